"""Fit the cost model: collect timed and scored compositions, train on them, score on what was held out.

python experiments/fit_cost_model.py
python experiments/fit_cost_model.py stage=collect data=outputs/cost_model
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gnncompose.launch import application

if TYPE_CHECKING:
    from omegaconf import DictConfig


@application("fit_cost_model")
def fit_cost_model(config: DictConfig) -> None:
    """Run the stages that are asked for."""
    from hydra.utils import instantiate

    from gnncompose.evaluation.cost_model.collection import collect
    from gnncompose.launch import set_threads
    from gnncompose.tasks.shipped import load_shipped

    set_threads(config.threads)
    prices = instantiate(config.resources)
    plans = instantiate(config.tasks)
    tasks = {name: load_shipped(name) for name in plans}
    data = Path(config.data)
    for name, task in tasks.items():
        collect(task, plans[name], data / name, prices, config.resource, config.seed)


if __name__ == "__main__":
    fit_cost_model()
