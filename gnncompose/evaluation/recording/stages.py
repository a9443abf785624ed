"""Recording a table in stages, each of which goes on where it was stopped: what every kind of table has in common."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from tqdm import tqdm

from gnncompose.catalog.catalog import load_catalog
from gnncompose.composition.tree import Composition
from gnncompose.errors import TableError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.evaluation.recording.files import (
    CATALOG,
    MEASURED,
    TIMES,
    Columns,
    rows_file,
    write_catalog,
    write_columns,
)
from gnncompose.evaluation.recording.recipe import Recipe, part_of
from gnncompose.evaluation.recording.times import Compositions, drawn, measure_compositions, measure_memory
from gnncompose.execution.isolation import Isolation
from gnncompose.execution.worker import Limits as SandboxLimits
from gnncompose.tasks.task import Task, World

STAGES = ("space", "rows", "times", "memory", "manifest")
SPLITS = ("validation", "test")
Tell = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Recording(ABC):
    """A table that is being recorded.

    Attributes:
        name: Of the table.
        recipe: What is recorded.
        task: The part of the task that is.
        folder: Where the table goes.
        prices: Know the resource.
        resource: Where it is timed.
        load: Under which load: one row in a request.
        cache_bytes: Outputs that are kept for compositions which share nodes.
    """

    cache_bytes: ClassVar[int] = 1 << 30
    name: str
    recipe: Recipe
    task: Task
    folder: Path
    prices: Prices
    resource: str = "cpu-1"
    load: str = "single_stream"

    @classmethod
    def of(cls, name: str, recipe: Recipe, task: Task, folder: Path, prices: Prices) -> Self:
        """Prepare; nothing is written yet.

        Raises:
            CatalogError: The task's catalog lacks an operator.
            TableError: The folder holds a table of other operators or limits.
        """
        part = part_of(task, recipe)
        known = folder / CATALOG
        if known.exists() and load_catalog(known).sha256 != part.catalog.sha256:
            raise TableError(f"{folder}: was recorded from another catalog; remove it, or give another folder")
        return cls(name, recipe, part, folder, prices)

    def record(self, stage: str, fresh: bool = False) -> None:
        """Run a stage, or `all` but the closure.

        Args:
            stage: Which.
            fresh: Whether to time everything anew.

        Raises:
            TableError: There is no such stage, or what an earlier one makes is missing.
            EvaluationError: A composition does not run.
        """
        stages: Mapping[str, Callable[[], None]] = {
            "space": self.write_space,
            "rows": self._write_rows,
            "times": lambda: self._time(fresh),
            "memory": self._measure_memory,
            "manifest": self.write_manifest,
            "closure": self.walk,
        }
        if stage != "all" and stage not in stages:
            raise TableError(f"stage={stage}: there is no such stage; choose one of {', '.join(stages)}, all")
        for name in STAGES if stage == "all" else (stage,):
            stages[name]()

    @abstractmethod
    def write_space(self) -> None:
        """Write which compositions there are, unless that was done."""

    @abstractmethod
    def compositions(self) -> Compositions:
        """The compositions, as they were written.

        Raises:
            TableError: They were not.
        """

    @abstractmethod
    def answer(self, condition: str, split: str, isolation: Isolation, tell: Tell) -> Columns:
        """What every composition answers on a split: `metric_SPLIT`, and what the formula of latency needs to know.

        Raises:
            EvaluationError: A composition does not run.
        """

    @abstractmethod
    def parts_to_time(self) -> int:
        """How many parts of compositions are timed in a condition."""

    @abstractmethod
    def time_parts(self, condition: str, evaluator: OnnxEvaluator, tell: Tell) -> None:
        """Time the parts of compositions in a condition, where that was not done."""

    def used(self, composition: Composition, evaluator: OnnxEvaluator) -> dict[str, float]:
        """What the formula needs to know of the very requests that a composition is timed on; mostly nothing."""
        return {}

    @abstractmethod
    def write_manifest(self) -> None:
        """Fit the formula, check it, and write what the table says of itself."""

    @abstractmethod
    def walk(self) -> None:
        """Walk the whole space edit by edit: it is to be exactly what was written down."""

    @property
    def world(self) -> World:
        """The first condition, where and as it is timed."""
        return World(self.task.conditions[0], self.resource, self.load)

    def _write_rows(self) -> None:
        count = len(self.compositions())
        left = [c for c in self.task.conditions if not (self.folder / rows_file(c)).exists()]
        isolation = Isolation(self.task.catalog, SandboxLimits(cache_bytes=self.cache_bytes))
        with progress_bar(f"{self.name}: rows", len(left) * len(SPLITS) * count, "row") as tell:
            for condition in left:
                columns: Columns = {}
                for split in SPLITS:
                    columns |= self.answer(condition, split, isolation, tell)
                write_columns(self.folder / rows_file(condition), columns)
        isolation.close()

    def _time(self, fresh: bool) -> None:
        known = [self.folder / TIMES, self.folder / MEASURED]
        for path in known if fresh else []:
            path.unlink(missing_ok=True)
        if not any(path.exists() for path in known):
            write_catalog(self.folder, self.task.catalog)  # with the profiles of the machine that is timed
        compositions, conditions = self.compositions(), self.task.conditions
        wanted = drawn(self.recipe, len(compositions), conditions)
        total = len(conditions) * self.parts_to_time() + len(wanted["row"])
        with progress_bar(f"{self.name}: times", total, "run") as tell:
            for condition in conditions:
                evaluator = self._evaluator(condition)
                self.time_parts(condition, evaluator, tell)
                measure_compositions(self.folder, wanted, condition, compositions, evaluator, self.used, tell)
                evaluator.isolation.close()

    def _measure_memory(self) -> None:
        with progress_bar(f"{self.name}: memory", self.recipe.memory, "run") as tell:
            evaluator = self._evaluator(self.task.conditions[0])
            measure_memory(self.folder, self.recipe.memory, self.compositions(), evaluator, tell)

    def _evaluator(self, condition: str) -> OnnxEvaluator:
        """As searches use it, but for the memory, which is measured of fewer compositions."""
        world = World(condition, self.resource, self.load)
        return OnnxEvaluator(
            self.task,
            world,
            self.prices,
            rows=self.recipe.rows,
            repeats=self.recipe.repeats,
            seconds=self.recipe.seconds,
            measure_memory=False,
            cache_bytes=self.cache_bytes,
        )


@contextmanager
def progress_bar(title: str, total: int, unit: str) -> Iterator[Tell]:
    """A progress bar on standard error."""
    interval = 0.1 if sys.stderr.isatty() else 10.0
    with tqdm(total=total, desc=title, unit=unit, mininterval=interval, dynamic_ncols=True) as bar:

        def tell(count: int) -> None:
            bar.update(count)

        yield tell
