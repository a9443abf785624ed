"""Make the cost model: collect timed and scored compositions, score it on held-out ones, fit it to all.

python experiments/fit_cost_model.py
python experiments/fit_cost_model.py stage=fit artifact=mine.npz
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gnncompose.launch import application

if TYPE_CHECKING:
    from omegaconf import DictConfig


@application("fit_cost_model")
def fit_cost_model(config: DictConfig) -> None:
    """Build everything from its leaf, then run the stages that are asked for."""
    from hydra.utils import instantiate

    from gnncompose.evaluation.cost_model.stages import run_stages
    from gnncompose.launch import set_threads
    from gnncompose.tasks.shipped import load_shipped

    plans = instantiate(config.tasks, _convert_="all")
    prices = instantiate(config.resources)
    settings, scoring = (instantiate(part, _convert_="all") for part in (config.fitting, config.scoring))
    set_threads(config.threads)
    run_stages(
        stage=config.stage,
        tasks={name: load_shipped(name) for name in plans},
        plans=plans,
        data=Path(config.data),
        artifact=Path(config.artifact) if config.artifact else None,
        prices=prices,
        resource=config.resource,
        settings=settings,
        scoring=scoring,
        seed=config.seed,
    )


if __name__ == "__main__":
    fit_cost_model()
