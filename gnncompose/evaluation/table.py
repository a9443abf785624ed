"""Evaluations that were recorded: scores of real runs, and latencies composed of measured times and real row counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gnncompose.composition.tree import Composition
from gnncompose.errors import TableError
from gnncompose.evaluation.contributions import NodeTime
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.evaluation import Evaluation
from gnncompose.evaluation.recording.files import ID_DIGITS, MANIFEST, tables_directory
from gnncompose.evaluation.recording.table import Figures, open_table
from gnncompose.tasks.task import Task, World


class TableEvaluator:
    """Looks evaluations up; no artifact runs.

    A table knows a part of its task's space, closed under legal edits, and that part is the evaluator's task. To ask
    for anything else is a mistake that ends the run. Tail latencies are None: they are the machine's more than the
    composition's, and nothing composes them.

    Attributes:
        name: What evaluations say they came from.
        task: The recorded part of the task.
        world: In which world.
        table: What is looked up, for whoever wants arrays.
    """

    name = "table"

    def __init__(self, task: Task, world: World, prices: Prices, *, path: str | None = None) -> None:
        """Read the table.

        Args:
            task: Whose table.
            world: In which world; on the resource and under the load that were recorded.
            prices: Turns resource use into money.
            path: Folder of the table; None for the clone's own table of that task.

        Raises:
            TableError: There is no such table, it was recorded of another task, or not in that world.
            EvaluationError: The resource is unknown.
        """
        self.table = open_table(table_folder(task.name, path))
        self.task = self.table.part_of(task)
        self.world = world
        for what in ("resource", "load"):
            asked, recorded = getattr(world, what), self.table.manifest[what]
            if asked != recorded:
                raise TableError(f"{what}={asked}: table {self.table.folder.name} was recorded with {what}={recorded}")
        if world.condition not in self.task.conditions:
            known = ", ".join(self.task.conditions)
            raise TableError(f"condition={world.condition}: table {self.table.folder.name} has none such, but {known}")
        self._prices = prices
        prices.resource(world.resource)

    @property
    def real(self) -> TableEvaluator:
        """Itself: nothing else stands behind it."""
        return self

    def charge(self, composition: Composition) -> int:
        """One."""
        return 1

    def evaluate(self, composition: Composition, split: str = "validation") -> Evaluation:
        """Look a composition up.

        Raises:
            TableError: The table does not hold it.
        """
        return self._evaluation(composition.id, self.table.row(composition), split)

    def node_times(self, composition: Composition) -> dict[str, NodeTime]:
        """What the table's latency gives to each node; see `TimesNodes`.

        Raises:
            TableError: The table does not hold it.
        """
        found = self.table.node_times(self.world.condition, "validation", self.table.row(composition))
        return {key: NodeTime(*figures) for key, figures in found.items()}

    def figures(self, split: str = "validation") -> Figures:
        """The figures of all rows as arrays."""
        return self.table.figures(self.world.condition, split)

    def cost_usd_per_million(self, split: str = "validation") -> np.ndarray:
        """float64[rows]: price of a million rows of data."""
        figures, price, resource = self.figures(split), self._prices.usd_per_million, self.world.resource
        used = (figures.cpu_ms.tolist(), figures.peak_memory_bytes.tolist(), figures.latency_ms_mean.tolist())
        return np.array([price(resource, cpu, memory, occupied) for cpu, memory, occupied in zip(*used, strict=True)])

    def rewards(self, reward: Callable[[Evaluation], float], split: str = "validation") -> np.ndarray:
        """float64[rows]: the reward of every composition."""
        ids = (f"{key:0{ID_DIGITS}x}" for key in self.table.ids.tolist())
        return np.array([reward(self._evaluation(key, row, split)) for row, key in enumerate(ids)])

    def optimum(self, reward: Callable[[Evaluation], float]) -> float:
        """The largest reward that any composition of the table has on validation data."""
        return float(self.rewards(reward).max())

    def _evaluation(self, composition_id: str, row: int, split: str) -> Evaluation:
        figures = self.figures(split)
        latency_ms, cpu_ms = figures.latency_ms_mean.item(row), figures.cpu_ms.item(row)
        memory_bytes, resource = figures.peak_memory_bytes.item(row), self.world.resource
        return Evaluation(
            composition_id=composition_id,
            world=self.world,
            split=split,
            metric=figures.metric.item(row),
            score=figures.score.item(row),
            latency_ms_mean=latency_ms,
            latency_ms_p50=figures.latency_ms_p50.item(row),
            latency_ms_p90=None,
            latency_ms_p95=None,
            latency_ms_p99=None,
            throughput_per_s=1000.0 / latency_ms,
            cpu_ms=cpu_ms,
            cost_usd_per_million=self._prices.usd_per_million(resource, cpu_ms, memory_bytes, latency_ms),
            peak_memory_bytes=memory_bytes,
            artifact_bytes=figures.artifact_bytes.item(row),
            evaluator=self.name,
        )


def table_folder(name: str, path: str | None = None) -> Path:
    """The folder of a table: the one that is named, else the clone's own of a task.

    Raises:
        TableError: There is none.
    """
    folder = Path(path).expanduser() if path else tables_directory() / name
    if not (folder / MANIFEST).is_file():
        raise TableError(
            f"{folder}: holds no recorded table; in a clone, where they lie, python benchmarks/record.py table={name} "
            f"records one; or name a folder that holds one"
        )
    return folder


def recorded_task(name: str, path: str | None = None) -> Task:
    """The task of a table, for searches that replay it without building the task's bundle.

    Args:
        name: Of the task.
        path: Folder of the table; None for the clone's own of that task.

    Raises:
        TableError: There is no such table.
    """
    return open_table(table_folder(name, path)).task
