"""Pre-train a policy on recorded tables.

python experiments/train_policy.py left_out='[letter]'
python experiments/search.py task=letter agent=ppo agent.checkpoint=…/policy.pt
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gnncompose.launch import application

if TYPE_CHECKING:
    from omegaconf import DictConfig


@application("train_policy")
def train(config: DictConfig) -> None:
    """Build everything from its leaf, then train."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from gnncompose.launch import set_threads
    from gnncompose.policies.devices import device_of
    from gnncompose.pretraining.policy_training import train_policy

    set_threads(config.threads)
    train_policy(
        folder=Path(HydraConfig.get().runtime.output_dir),
        tables=list(config.tables),
        left_out=list(config.left_out),
        recipe=instantiate(config.encoder),
        plan=instantiate(config.plan),
        training=instantiate(config.training),
        seed=config.seed,
        history=config.history,
        device=device_of(config.device),
    )


if __name__ == "__main__":
    train()
