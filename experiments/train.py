"""Pre-train the surrogate of `gnn_ts` on recorded tables.

python experiments/train.py left_out='[letter]'
python experiments/search.py task=letter agent=gnn_ts agent.checkpoint=…/surrogate.pt budget=20
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gnncompose.launch import application

if TYPE_CHECKING:
    from omegaconf import DictConfig


@application("train")
def train(config: DictConfig) -> None:
    """Build everything from its leaf, then train."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from gnncompose.launch import set_threads
    from gnncompose.policies.devices import device_of
    from gnncompose.pretraining.records import title_of
    from gnncompose.pretraining.training import AXIS
    from gnncompose.pretraining.training import train as train_surrogate

    folder, left_out = Path(HydraConfig.get().runtime.output_dir), list(config.left_out)
    settings = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    title = title_of(folder, "train", "surrogate", left_out, config.seed, AXIS, settings)
    tracker = instantiate(config.tracker, _convert_="all")
    set_threads(config.threads)
    train_surrogate(
        folder=folder,
        tables=list(config.tables),
        left_out=left_out,
        left_out_families=list(config.left_out_families),
        recipe=instantiate(config.encoder),
        plan=instantiate(config.plan),
        training=instantiate(config.training),
        seed=config.seed,
        device=device_of(config.device),
        open_journal=lambda: tracker.journal(title),
    )


if __name__ == "__main__":
    train()
