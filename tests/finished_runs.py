"""Run folders that tests look at: real searches of recorded tables, which take no time."""

from pathlib import Path
from typing import Any

from gnncompose.agents.agent import Agent
from gnncompose.agents.local_search import LocalSearch
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.evaluation import Evaluator
from gnncompose.evaluation.rows import RowsEvaluator
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.reward import WeightedSum
from gnncompose.runs import run_search
from gnncompose.tasks.bundle import read_description
from gnncompose.tasks.task import Task, World
from gnncompose.tracking.files import FilesTracker
from gnncompose.tracking.tracker import Run, Summary, Tracker

TABLES = Path(__file__).parents[1] / "benchmarks" / "tables"


def searched(
    folder: Path,
    task: str = "digits",
    agent: Agent | None = None,
    seed: int = 0,
    budget: int = 40,
    condition: str = "mixed",
    trackers: tuple[Tracker, ...] = (),
    start: str = "shortest",
    **config: Any,
) -> Summary:
    """Search a recorded table in this process; the folder then is as after `gnncompose search`."""
    world, prices = World(condition), load_prices()
    evaluator: Evaluator
    if task == "ocr":
        evaluator = RowsEvaluator(read_description(TABLES / task), world, prices)
    else:
        evaluator = TableEvaluator(recorded_task(task), world, prices)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = agent or LocalSearch()
    known: Task = evaluator.task
    settings = {"agent": {"_target_": "theirs", "patience": 40}, "seed": seed, **config}
    run = Run(folder, known, world, type(chosen).__name__.lower(), seed, budget, settings, start)
    return run_search(run, chosen, evaluator, WeightedSum(), prices, [FilesTracker(), *trackers])
