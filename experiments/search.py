"""Let one agent search one task under one condition with one budget; writes a run folder.

python experiments/search.py task=fashion condition=low_contrast_impulse agent=dqn budget=200 seed=0
python experiments/search.py -m agent=dqn,local_search,random 'seed=range(10)'
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gnncompose.launch import application

if TYPE_CHECKING:
    from omegaconf import DictConfig


@application("search")
def search(config: DictConfig) -> None:
    """Build everything from its leaf, then search."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from gnncompose.errors import INTERRUPTED
    from gnncompose.launch import set_threads
    from gnncompose.runs import run_search
    from gnncompose.tasks.task import World
    from gnncompose.tracking.files import FilesTracker
    from gnncompose.tracking.progress import ProgressTracker
    from gnncompose.tracking.tracker import Run

    settings = HydraConfig.get().runtime
    task, prices = instantiate(config.task), instantiate(config.resources)
    evaluator = instantiate(config.evaluator)(task, World(config.condition, config.resource, config.load), prices)
    run = Run(
        folder=Path(settings.output_dir),
        task=evaluator.task,
        world=evaluator.world,
        agent=settings.choices["agent"],
        seed=config.seed,
        budget=config.budget,
        config=cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True)),
        start=config.start,
    )
    reward = instantiate(config.reward)
    trackers = [FilesTracker(), instantiate(config.tracker, _convert_="all"), ProgressTracker()]
    agent = instantiate(config.agent, _convert_="all")
    set_threads(config.threads)
    if run_search(run, agent, evaluator, reward, prices, trackers).interrupted:
        raise SystemExit(INTERRUPTED)


if __name__ == "__main__":
    search()
