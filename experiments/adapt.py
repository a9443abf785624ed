"""Let a deployment live through data that change, and adapt; writes a run folder.

python experiments/adapt.py task=digits agent=gnn_ts agent.checkpoint=benchmarks/surrogates/without_digits/surrogate.pt
python experiments/adapt.py -m trigger=never,every,drift change=sudden,gradual 'seed=range(3)'
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gnncompose.launch import application

if TYPE_CHECKING:
    from omegaconf import DictConfig


@application("adapt")
def adapt(config: DictConfig) -> None:
    """Build everything from its leaf, then replay."""
    import json

    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from gnncompose.adaptation.runs import Life, opened, run_adaptation
    from gnncompose.launch import set_threads

    task, prices, reward = (instantiate(leaf) for leaf in (config.task, config.resources, config.reward))
    recorded, scenario = opened(task, config.scenario, config.stretch, prices, reward)
    life = Life(
        recorded=recorded,
        scenario=scenario,
        change=instantiate(config.change),
        agent=instantiate(config.agent, _convert_="all"),
        trigger=instantiate(config.trigger),
        settings=instantiate(config.settings),
        late=config.late,
        before=config.before,
        seed=config.seed,
    )
    set_threads(config.threads)
    folder = Path(HydraConfig.get().runtime.output_dir)
    record = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    figures = run_adaptation(folder, life, record)
    print(json.dumps(figures))


if __name__ == "__main__":
    adapt()
