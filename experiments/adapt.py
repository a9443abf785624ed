"""Let a deployment live through a world that changes, and adapt; writes a run folder.

python experiments/adapt.py task=digits agent=gnn_ts agent.checkpoint=…/surrogate.pt
python experiments/adapt.py -m trigger=never,every,drift change=sudden,withdrawn_model 'seed=range(3)'
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
    from gnncompose.tracking.tracker import Title

    settings = HydraConfig.get().runtime
    task, prices, reward = (instantiate(leaf) for leaf in (config.task, config.resources, config.reward))
    change = instantiate(config.change)
    recorded, scenario = opened(task, config.scenario, change, config.stretch, prices, reward)
    life = Life(
        recorded=recorded,
        scenario=scenario,
        change=change,
        agent=instantiate(config.agent, _convert_="all"),
        trigger=instantiate(config.trigger),
        settings=instantiate(config.settings),
        late=config.late,
        before=config.before,
        seed=config.seed,
    )
    title = Title(
        folder=Path(settings.output_dir),
        kind="adapt",
        group="/".join([task.name, *(settings.choices[group] for group in ("change", "trigger", "agent"))]),
        name=f"seed {config.seed}",
        axis="row",
        config=cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True)),
    )
    tracker = instantiate(config.tracker, _convert_="all")
    set_threads(config.threads)
    print(json.dumps(run_adaptation(title, life, tracker)))


if __name__ == "__main__":
    adapt()
