"""Evaluations from any Parquet file of compositions and metrics: a run's, or a benchmark's of someone else.

The columns are those of a run folder's `evaluations.parquet`, most of which may be missing. A search keeps to the
compositions of the file, so an edit is legal there where what it makes is one of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from gnncompose.composition.edits import Edit
from gnncompose.composition.files import composition_from_json
from gnncompose.composition.legal import successors
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.errors import CompositionError, EvaluationError, TableError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.evaluation import Evaluation
from gnncompose.tasks.task import Task, World

FILE = "evaluations.parquet"
NEEDED = ("composition", "score", "latency_ms_mean")
SIGNED = ("score", "metric")
NUMBERS = ("metric", "latency_ms_p50", "cpu_ms", "cost_usd_per_million", "peak_memory_bytes", "artifact_bytes")
TAILS = ("latency_ms_p90", "latency_ms_p95", "latency_ms_p99", "throughput_per_s")
TEXTS = ("world", "split", "failure")
KEPT_FILES = 16
Row = Mapping[str, Any]


@dataclass(eq=False)
class RowsSpace(Space):
    """The compositions of a file that legal edits join.

    Attributes:
        members: The compositions by their ids.
    """

    members: dict[str, Composition] = field(kw_only=True)
    _edits: dict[str, list[tuple[Edit, Composition]]] = field(default_factory=dict[str, Any], repr=False)

    def allows(self, composition: Composition) -> bool:
        """Whether the file has it."""
        return composition.id in self.members

    def single_models(self) -> list[Composition]:
        """Every model alone, where the file has it."""
        return [composition for composition in super().single_models() if self.allows(composition)]

    def apply(self, composition: Composition, edit: Edit) -> Composition:
        """Apply an edit; raises `CompositionError` where it is not legal, or leads out of the file."""
        found = super().apply(composition, edit)
        if not self.allows(found):
            raise CompositionError(f"{edit} leads to {found}, which the file does not hold; choose among legal_edits")
        return self.members[found.id]

    def walk(self, composition: Composition, edits: int, generator: np.random.Generator) -> Composition:
        """Where so many legal edits lead from a composition, each drawn uniformly."""
        for _ in range(edits):
            reachable = self.successors(composition)
            if reachable:
                composition = reachable[int(generator.integers(len(reachable)))][1]
        return composition

    def _reachable(self, composition: Composition) -> list[tuple[Edit, Composition]]:
        found = self._edits.get(composition.id)
        if found is None:
            edits = successors(composition, self.catalog, self.limits)
            found = [(edit, self.members[made.id]) for edit, made in edits if self.allows(made)]
            self._edits[composition.id] = found
        return found


class Rows:
    """A file that was read.

    Attributes:
        path: Where it lies.
        untested: Worlds, of those asked for, in which rows of validation data stand for test data, too.
    """

    def __init__(self, path: Path, task: Task) -> None:
        """Read and check it.

        Raises:
            TableError: The file is missing or damaged, lacks a column, or holds no composition of the task.
        """
        self.path = path
        self._task = task
        self.untested: set[World] = set()
        self._parts: dict[World, Task] = {}
        rows = _read(path)
        built: dict[str, Composition] = {}
        self._rows: dict[tuple[str, World | None, str | None], Row] = {}
        contradicted = 0
        for number, row in enumerate(rows):
            text, where = row["composition"], f"{path}: row {number}"
            if text not in built:
                built[text] = _composition(text, task, where)
            key = built[text].id, _world(row.get("world"), where), row.get("split")
            contradicted += self._rows.get(key, row) != row
            self._rows[key] = row  # the last of several counts: it was measured last
        self._built = {composition.id: composition for composition in built.values()}
        if contradicted:
            told = f"{contradicted} of {len(rows)} rows contradict an earlier one of the same composition"
            print(f"{path}: {told}; the later ones count", file=sys.stderr)

    def part(self, world: World) -> Task:
        """The task, its space what the file tells of in a world.

        Raises:
            TableError: That is nothing.
        """
        if world not in self._parts:
            told = {key for key, known, split in self._rows if known in (world, None) and split in ("validation", None)}
            splits = {split for _, known, split in self._rows if known in (world, None)}
            if None in splits and "test" not in splits:
                self.untested.add(world)
            members = {key: composition for key, composition in self._built.items() if key in told}
            if not members:
                raise TableError(f"{self.path}: tells nothing of validation data in {world}; {self._known()}")

            def make_space(*bounds: Any) -> Space:  # noqa: ANN401 - those of a task's space
                space = RowsSpace(*bounds, members=members)
                return space if space.start.id in members else replace(space, initial=next(iter(members.values())))

            self._parts[world] = replace(self._task, make_space=make_space)
        return self._parts[world]

    def row(self, composition: Composition, world: World, split: str) -> Row:
        """What the file tells of a composition.

        Raises:
            TableError: It tells nothing of it in that world, on that split.
        """
        found = [self._rows.get((composition.id, told, part)) for told in (world, None) for part in (split, None)]
        row = next((row for row in found if row is not None), None)
        if row is None:
            raise TableError(f"{self.path}: tells nothing of {composition} in {world} on {split}; {self._known()}")
        return row

    def _known(self) -> str:
        worlds = sorted({f"{world or 'any world'} on {split or 'any split'}" for _, world, split in self._rows})
        return f"it tells of {'; '.join(worlds[:8])}{' and more' if len(worlds) > 8 else ''}"


def _read(path: Path) -> list[dict[str, Any]]:
    import pyarrow as arrow
    from pyarrow import parquet

    if not path.is_file():
        raise TableError(f"{path}: there is no such file; give the path of a Parquet file as evaluator.path")
    try:
        table = parquet.read_table(path)
    except (OSError, arrow.ArrowException) as problem:
        raise TableError(f"{path}: is no readable Parquet file ({str(problem).splitlines()[0]})") from None
    lacking = [name for name in NEEDED if name not in table.column_names]
    if lacking:
        raise TableError(f"{path}: has no column {lacking[0]}; it needs {', '.join(NEEDED)}")
    for place, name in enumerate(table.column_names):
        kind, known = table.schema.field(name).type, (*NEEDED[1:], *NUMBERS, *TAILS)
        is_number = arrow.types.is_floating(kind) or arrow.types.is_integer(kind) or arrow.types.is_null(kind)
        if name in known and not is_number:
            raise TableError(f"{path}: column {name} holds {kind}, not numbers; convert it")
        if name in known:
            values = table.column(name).to_numpy().astype(float)
            _refuse_impossible(values, name, path)
            table = table.set_column(place, name, arrow.array(values, from_pandas=True))  # NaN is as good as nothing
        is_text = arrow.types.is_string(kind) or arrow.types.is_large_string(kind) or arrow.types.is_null(kind)
        if name in ("composition", *TEXTS) and not is_text:
            raise TableError(f"{path}: column {name} holds {kind}, not text; convert it")
    wanted = (*NEEDED, *NUMBERS, *TAILS, *TEXTS)
    rows = table.select([name for name in wanted if name in table.column_names]).to_pylist()
    if not rows:
        raise TableError(f"{path}: holds no rows; give a file that has some")
    return rows


def _refuse_impossible(values: Float[np.ndarray, " row"], name: str, path: Path) -> None:
    wrong = np.isinf(values) | ((values < 0) & (name not in SIGNED))
    if wrong.any():
        row = int(wrong.argmax())
        hint = "give a finite number" if name in SIGNED else "give a finite number from 0 up"
        raise TableError(f"{path}: row {row}: {name} is {values[row]:g}; {hint}")


def _composition(text: str, task: Task, where: str) -> Composition:
    try:
        return composition_from_json(json.loads(text), task.catalog, task.input.type, name=where)
    except (ValueError, TypeError) as problem:
        raise TableError(
            f"{where}: composition is no JSON ({problem}); write it as *.composition.json has it"
        ) from None


def _world(text: str | None, where: str) -> World | None:
    try:
        return World(**json.loads(text)) if text else None
    except (ValueError, TypeError):
        example = json.dumps(asdict(World()))
        raise TableError(f"{where}: world is {text}; leave it out, or write it as {example}") from None


def _opened(path: Path, task: Task) -> Rows:
    """The file; the latest ones stay in memory, with the edits that searches listed."""
    key = path, path.stat().st_mtime_ns if path.is_file() else 0, task.directory.absolute(), task.catalog.sha256
    if key not in _OPEN:
        rows = Rows(path, task)
        while len(_OPEN) >= KEPT_FILES:
            del _OPEN[next(iter(_OPEN))]
        _OPEN[key] = rows
    return _OPEN[key]


_OPEN: dict[tuple[Path, int, Path, str], Rows] = {}


class RowsEvaluator:
    """Looks evaluations up in a Parquet file; no artifact runs.

    What the file does not tell of a composition is taken from what it tells: `metric` from the score, the median from
    the mean latency, CPU time from latency, cost from both by the price file; sizes are 0.

    Attributes:
        name: What evaluations say they came from.
        task: The part of the task that the file holds.
        world: In which world.
    """

    name = "rows"

    def __init__(self, task: Task, world: World, prices: Prices, *, path: str | None = None) -> None:
        """Read the file, or take it from memory where it was read before.

        Args:
            task: Whose compositions the file holds.
            world: In which world; rows that name none hold in every one.
            prices: Turns resource use into money.
            path: The file; None for `evaluations.parquet` in the task's folder.

        Raises:
            TableError: The file is not usable.
            CompositionError: A composition in it is none of the task's.
            EvaluationError: The resource is unknown.
        """
        self._rows = _opened((Path(path).expanduser() if path else task.directory / FILE).absolute(), task)
        if world.condition not in task.conditions:
            known = ", ".join(task.conditions)
            raise TableError(f'condition={world.condition}: task "{task.name}" has no such condition; it has {known}')
        prices.resource(world.resource)
        self.task = self._rows.part(world)
        self.world = world
        self._prices = prices
        if world in self._rows.untested:
            told = "names no split, so test figures are those of validation"
            print(f"{self._rows.path}: {told}", file=sys.stderr)

    @property
    def real(self) -> RowsEvaluator:
        """Itself: nothing else stands behind it."""
        return self

    def charge(self, composition: Composition) -> int:
        """One."""
        return 1

    def evaluate(self, composition: Composition, split: str = "validation") -> Evaluation:
        """Look a composition up.

        Raises:
            EvaluationError: It failed when the file was made.
            TableError: The file does not hold it.
        """
        row = self._rows.row(composition, self.world, split)
        score, latency_ms = row["score"], row["latency_ms_mean"]
        if score is None or latency_ms is None:
            raise EvaluationError(row.get("failure") or f"{self._rows.path} has no score and latency of {composition}")
        cpu_ms, memory_bytes = _told(row, "cpu_ms", latency_ms), int(_told(row, "peak_memory_bytes", 0))
        cost = self._prices.usd_per_million(self.world.resource, cpu_ms, memory_bytes, latency_ms)
        return Evaluation(
            composition_id=composition.id,
            world=self.world,
            split=split,
            metric=_told(row, "metric", score),
            score=float(score),
            latency_ms_mean=float(latency_ms),
            latency_ms_p50=_told(row, "latency_ms_p50", latency_ms),
            latency_ms_p90=row.get("latency_ms_p90"),
            latency_ms_p95=row.get("latency_ms_p95"),
            latency_ms_p99=row.get("latency_ms_p99"),
            throughput_per_s=_told(row, "throughput_per_s", 1000.0 / latency_ms if latency_ms else 0.0),
            cpu_ms=cpu_ms,
            cost_usd_per_million=_told(row, "cost_usd_per_million", cost),
            peak_memory_bytes=memory_bytes,
            artifact_bytes=int(_told(row, "artifact_bytes", 0)),
            evaluator=self.name,
        )

    def optimum(self, reward: Callable[[Evaluation], float]) -> float:
        """The largest reward that the file tells of on validation data, within reach of edits or not."""
        space, best = self.task.space, -np.inf
        assert isinstance(space, RowsSpace)
        for composition in space.members.values():
            try:
                best = max(best, reward(self.evaluate(composition)))
            except EvaluationError:
                continue
        return float(best)


def _told(row: Row, name: str, otherwise: float) -> float:
    value = row.get(name)
    return float(otherwise if value is None else value)
