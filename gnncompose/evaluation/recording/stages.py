"""Recording a table in stages, each of which goes on where it was stopped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from gnncompose.catalog.catalog import load_catalog
from gnncompose.composition.enumeration import ClosedSpace, enumerate_space, walk
from gnncompose.composition.tree import Composition
from gnncompose.errors import TableError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.evaluation.recording.answers import answer
from gnncompose.evaluation.recording.files import (
    CATALOG,
    CLOSURE,
    COMPOSITIONS,
    MEASURED,
    TIMES,
    Columns,
    read_space,
    rows_file,
    write_catalog,
    write_columns,
    write_json,
    write_space,
)
from gnncompose.evaluation.recording.manifest import write_manifest
from gnncompose.evaluation.recording.recipe import Recipe, part_of
from gnncompose.evaluation.recording.times import drawn, measure_compositions, measure_memory, time_expressions
from gnncompose.execution.isolation import Isolation
from gnncompose.execution.worker import Limits as SandboxLimits
from gnncompose.tasks.task import Task, World

STAGES = ("space", "rows", "times", "memory", "manifest")
SPLITS = ("validation", "test")
CACHE_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Recording:
    """A table that is being recorded.

    Attributes:
        name: Of the table.
        recipe: What is recorded.
        task: The part of the task that is.
        folder: Where the table goes.
        prices: Know the resource.
        resource: Where it is timed.
        load: Under which load: one row in a request.
    """

    name: str
    recipe: Recipe
    task: Task
    folder: Path
    prices: Prices
    resource: str = "cpu-1"
    load: str = "single_stream"

    @classmethod
    def of(cls, name: str, recipe: Recipe, task: Task, folder: Path, prices: Prices) -> Recording:
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
        stages: dict[str, Callable[[], None]] = {
            "space": self._write_space,
            "rows": self._answer,
            "times": lambda: self._time(fresh),
            "memory": self._measure_memory,
            "manifest": lambda: write_manifest(
                self.name, self.recipe, self.task, self.folder, self._world, self.prices
            ),
            "closure": self._walk,
        }
        if stage != "all" and stage not in stages:
            raise TableError(f"stage={stage}: there is no such stage; choose one of {', '.join(stages)}, all")
        for name in STAGES if stage == "all" else (stage,):
            stages[name]()

    @property
    def _world(self) -> World:
        return World(self.task.conditions[0], self.resource, self.load)

    def space(self) -> ClosedSpace:
        """The compositions, as they were written.

        Raises:
            TableError: They were not.
        """
        return read_space(self.folder, self.task.catalog, self.task.input.type)[0]

    def _write_space(self) -> None:
        if (self.folder / COMPOSITIONS).exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_catalog(self.folder, self.task.catalog)
        space = enumerate_space(self.task.space)
        write_space(self.folder, space)
        print(f"{self.name}: {len(space):,} compositions of {len(space.expressions.chains)} chains", file=sys.stderr)

    def _answer(self) -> None:
        space = self.space()
        left = [c for c in self.task.conditions if not (self.folder / rows_file(c)).exists()]
        isolation = Isolation(self.task.catalog, SandboxLimits(cache_bytes=CACHE_BYTES))
        with _bar(f"{self.name}: rows", len(left) * len(SPLITS) * len(space), "row") as tell:
            for condition in left:
                columns: Columns = {}
                for split in SPLITS:
                    found = answer(self.task, space, self.task.split(condition, split), self.load, isolation, tell)
                    columns[f"metric_{split}"] = found.metric
                    for port, reached in enumerate(found.reached.T, start=1):
                        columns[f"reached_{split}_{port}"] = reached
                write_columns(self.folder / rows_file(condition), columns)
        isolation.close()

    def _time(self, fresh: bool) -> None:
        if fresh:
            for name in (TIMES, MEASURED):
                (self.folder / name).unlink(missing_ok=True)
        if not (self.folder / TIMES).exists():
            write_catalog(self.folder, self.task.catalog)  # with the profiles of the machine that is timed
        space, conditions = self.space(), self.task.conditions
        wanted = drawn(self.recipe, len(space), conditions)
        total = len(conditions) * (len(space.expressions.all) - 1) + len(wanted["row"])
        with _bar(f"{self.name}: times", total, "run") as tell:
            for condition in conditions:
                evaluator = self._evaluator(condition)
                time_expressions(self.folder, condition, space, evaluator, tell)
                measure_compositions(self.folder, wanted, condition, space, evaluator, tell)
                evaluator.isolation.close()

    def _measure_memory(self) -> None:
        with _bar(f"{self.name}: memory", self.recipe.memory, "run") as tell:
            evaluator = self._evaluator(self.task.conditions[0])
            measure_memory(self.folder, self.recipe.memory, self.space(), evaluator, tell)

    def _evaluator(self, condition: str) -> OnnxEvaluator:
        """As searches use it, but for the memory, which is measured of fewer compositions."""
        world = World(condition, self.resource, self.load)
        return OnnxEvaluator(
            self.task,
            world,
            self.prices,
            seconds=self.recipe.seconds,
            measure_memory=False,
            cache_bytes=CACHE_BYTES,
        )

    def _walk(self) -> None:
        """Walk the whole space edit by edit: it is to be exactly what was written down."""
        space = self.space()
        ids = {space.composition(row).id for row in range(len(space))}
        edits = 0
        with _bar(f"{self.name}: closure", len(space), "composition") as tell:

            def visit(composition: Composition, successors: list[Composition]) -> None:
                nonlocal edits
                edits += len(successors)
                strange = [successor for successor in successors if successor.id not in ids]
                if composition.id not in ids or strange:
                    raise TableError(f"{self.folder}: an edit of {composition} leads out of the table: {strange[:1]}")
                tell(1)

            reached = walk(self.task.space, visit)
        if reached < len(ids):
            raise TableError(f"{self.folder}: edits reach {reached} of its {len(ids)} compositions")
        write_json(self.folder / CLOSURE, {"compositions": reached, "edits": edits})


@contextmanager
def _bar(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error."""
    interval = 0.1 if sys.stderr.isatty() else 10.0
    with tqdm(total=total, desc=title, unit=unit, mininterval=interval, dynamic_ncols=True) as bar:

        def tell(count: int) -> None:
            bar.update(count)

        yield tell
