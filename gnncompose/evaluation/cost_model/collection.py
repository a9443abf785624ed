"""Collecting what the cost model is fitted to: timed and scored random compositions, kept as Parquet.

Everything is a function of the seed but the times. An interrupted collection goes on where it was.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
from tqdm import tqdm

from gnncompose.catalog.catalog import Catalog, load_catalog
from gnncompose.catalog.operator import PortType
from gnncompose.composition.files import composition_from_json, composition_to_json
from gnncompose.composition.tree import Composition
from gnncompose.errors import EvaluationError, GnncomposeError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.cost_model.behaviour import Behaviour
from gnncompose.evaluation.cost_model.outcomes import run_on_split
from gnncompose.evaluation.cost_model.sampling import ShapedSampler
from gnncompose.evaluation.cost_model.timings import Timed, time_composition, usage_of
from gnncompose.evaluation.metrics import find_metric
from gnncompose.execution.isolation import Isolation
from gnncompose.execution.load import parse_load
from gnncompose.execution.memory import peak_memory_bytes
from gnncompose.execution.work import answers
from gnncompose.execution.worker import Limits
from gnncompose.tasks import conditions
from gnncompose.tasks.task import Split, Task

SAVE_EVERY_S = 20.0
SCORING_CACHE_BYTES = 3 << 30
BATCHES = (2, 4, 8, 16, 32, 64, 128, 256)
TIMINGS, MEMORY, COMPOSITIONS, CATALOG = "timings.parquet", "memory.parquet", "compositions.parquet", "catalog.yaml"


@dataclass(frozen=True)
class Plan:
    """How much is collected of one task.

    Attributes:
        compositions: Drawn and scored.
        timed: How many of them are timed, in one condition each.
        loads: Batch sizes that each of these is timed at beside single rows.
        repeated: How many of them are timed a second time, after all others.
        resources: Of further resources, how many are timed there, at single rows and one batch size.
        memory: How many have their peak memory measured.
        drawn_conditions: Worlds that are scored beside the task's own: random corruptions of clean rows.
        drawn_rows: Validation rows of these.
        tested: How many of them are scored on test rows, too, in the task's own conditions. Nothing is fitted to these:
            they say how well one sample of rows ranks compositions as another does.
    """

    compositions: int
    timed: int
    loads: int
    repeated: int
    resources: Mapping[str, int]
    memory: int
    drawn_conditions: int
    drawn_rows: int
    tested: int = 0


@dataclass(frozen=True, eq=False)
class Collected:
    """What was collected of one task.

    Attributes:
        name: Of the task.
        catalog: With the profiles that the machine of the timings gave.
        shapes: Shape of each composition.
        compositions: The compositions.
        timings: What was timed.
        memory: Peak memory in bytes by composition id.
        scores: Of each world its name, and by node id how it behaves there.
        tested: Of each own condition its name, and by composition id the score on test rows.
    """

    name: str
    catalog: Catalog
    shapes: tuple[str, ...]
    compositions: tuple[Composition, ...]
    timings: tuple[Timed, ...]
    memory: Mapping[str, int]
    scores: Mapping[str, Mapping[str, Behaviour]]
    tested: Mapping[str, Mapping[str, float]]


def collect(task: Task, plan: Plan, folder: Path, prices: Prices, resource: str, seed: int) -> None:
    """Draw, time and score compositions of a task.

    Args:
        task: Of what.
        plan: How much.
        folder: Where the files go.
        prices: Know the resources.
        resource: Where most compositions are timed.
        seed: Decides which compositions, conditions and loads.

    Raises:
        GnncomposeError: An operator does not run, or what lies there was collected from another catalog.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = _drawn(task, plan, folder, seed)
    _collect_timings(task, drawn[: plan.timed], plan, folder, prices, resource, seed)
    _collect_memory(task, drawn[: plan.memory], folder)
    _collect_scores(task, drawn, plan, folder, seed)
    _collect_tested(task, drawn[-plan.tested :] if plan.tested else [], folder)


def _drawn(task: Task, plan: Plan, folder: Path, seed: int) -> list[Composition]:
    path = folder / COMPOSITIONS
    if path.exists():
        known = load_catalog(folder / CATALOG)
        if known.sha256 != task.catalog.sha256:
            raise GnncomposeError(f"{folder}: was collected from another catalog; give an empty folder")
    else:
        shutil.copyfile(task.catalog.directory / CATALOG, folder / CATALOG)
        sampler = ShapedSampler(task.space, np.random.default_rng(seed))
        pairs = sampler.sample(plan.compositions)
        rows = [
            {"shape": shape, "composition_id": c.id, "composition": json.dumps(composition_to_json(c))}
            for shape, c in pairs
        ]
        _write(path, rows)
    return list(read_compositions(folder, task.catalog, task.input.type)[1])


def read_compositions(folder: Path, catalog: Catalog, source: PortType) -> tuple[list[str], list[Composition]]:
    """Shapes and compositions, in the order in which they were drawn."""
    rows = parquet.read_table(folder / COMPOSITIONS).to_pylist()
    return [row["shape"] for row in rows], [
        composition_from_json(json.loads(row["composition"]), catalog, source, name=row["composition_id"])
        for row in rows
    ]


def _jobs(
    task: Task, compositions: Sequence[Composition], plan: Plan, resource: str, seed: int
) -> Iterator[tuple[Composition, str, str, str, int]]:
    """What is timed: composition, condition, load, resource, repetition."""
    generator = np.random.default_rng([seed, 1])
    again: list[tuple[Composition, str, str, str, int]] = []
    for number, composition in enumerate(compositions):
        condition = task.conditions[int(generator.integers(len(task.conditions)))]
        batches = generator.choice(BATCHES, size=plan.loads, replace=False)
        loads = ["single_stream", *(f"offline:{batch}" for batch in batches)]
        for load in loads:
            yield composition, condition, load, resource, 0
            if number < plan.repeated:
                again.append((composition, condition, load, resource, 1))
        for other, count in plan.resources.items():
            if number < count:
                yield from ((composition, condition, load, other, 0) for load in loads[:2])
    yield from again


def _collect_timings(
    task: Task,
    compositions: Sequence[Composition],
    plan: Plan,
    folder: Path,
    prices: Prices,
    resource: str,
    seed: int,
) -> None:
    found = list(read_timings(folder))
    known = {row.key for row in found}
    jobs = [job for job in _jobs(task, compositions, plan, resource, seed) if (job[0].id, *job[1:]) not in known]
    isolations: dict[str, Isolation] = {}
    saved = time.monotonic()
    for composition, condition, load_name, where, repetition in tqdm(jobs, desc=f"{task.name}: time", unit="run"):
        place, load = prices.resource(where), parse_load(load_name)
        if where not in isolations:
            limits = Limits(threads=place.threads, providers=place.providers)
            isolations[where] = Isolation(task.catalog, limits)
        split = task.split(condition, "validation")
        timing, counts = time_composition(isolations[where], composition, split, load, place)
        usage = usage_of(counts, load.batch, place.threads)
        latency_ms = float(np.median(timing.samples_ms, axis=1).mean())
        found.append(
            Timed(
                composition_id=composition.id,
                condition=condition,
                load=load_name,
                resource=where,
                repetition=repetition,
                batch=load.batch,
                threads=place.threads,
                latency_ms=latency_ms,
                cpu_ms=timing.cpu_ms * load.batch,
                reference_ms=timing.reference_ms,
                runs=usage.runs,
                rows=usage.rows,
            )
        )
        if time.monotonic() - saved > SAVE_EVERY_S:
            _write(folder / TIMINGS, [asdict(row) for row in found])
            saved = time.monotonic()
    if jobs:
        _write(folder / TIMINGS, [asdict(row) for row in found])
    for isolation in isolations.values():
        isolation.close()


def read_timings(folder: Path) -> tuple[Timed, ...]:
    """What was timed; nothing where nothing was."""
    path = folder / TIMINGS
    if not path.exists():
        return ()
    rows = parquet.read_table(path).to_pylist()
    return tuple(Timed(**{**row, "runs": tuple(row["runs"]), "rows": tuple(row["rows"])}) for row in rows)


def _collect_memory(task: Task, compositions: Sequence[Composition], folder: Path) -> None:
    found = dict(read_memory(folder))
    x = task.split(task.conditions[0], "validation").x
    left = [composition for composition in compositions if composition.id not in found]
    for composition in tqdm(left, desc=f"{task.name}: memory", unit="run"):
        found[composition.id] = peak_memory_bytes(composition, task.catalog, x)
    if left:
        _write(folder / MEMORY, [{"composition_id": key, "peak_memory_bytes": value} for key, value in found.items()])


def read_memory(folder: Path) -> dict[str, int]:
    """Peak memory in bytes by composition id."""
    path = folder / MEMORY
    rows = parquet.read_table(path).to_pylist() if path.exists() else []
    return {row["composition_id"]: row["peak_memory_bytes"] for row in rows}


def _collect_scores(task: Task, compositions: Sequence[Composition], plan: Plan, folder: Path, seed: int) -> None:
    names = [*task.conditions, *(f"drawn_{number}" for number in range(plan.drawn_conditions))]
    clean = task.split(task.conditions[0], "validation")
    isolation = Isolation(task.catalog, Limits(cache_bytes=SCORING_CACHE_BYTES))
    for number, name in enumerate(tqdm(names, desc=f"{task.name}: score", unit="world")):
        path = folder / "scores" / f"{name}.parquet"
        if path.exists():
            continue
        if name in task.conditions:
            split = task.split(name, "validation")
        else:
            rows = slice(0, plan.drawn_rows)
            split = draw_condition(Split(clean.x[rows], clean.y[rows]), np.random.default_rng([seed, 2, number]))
        _write(path, score_nodes(task, compositions, split, isolation))
    isolation.close()


def _collect_tested(task: Task, compositions: Sequence[Composition], folder: Path) -> None:
    isolation, metric = Isolation(task.catalog, Limits(cache_bytes=SCORING_CACHE_BYTES)), find_metric(task.metric)
    for name in tqdm(task.conditions if compositions else (), desc=f"{task.name}: test", unit="world"):
        path = folder / "tested" / f"{name}.parquet"
        if path.exists():
            continue
        split, found = task.split(name, "test"), []
        for composition in compositions:
            output = isolation.runner(composition).call(answers, composition, split)
            score = metric.score(metric.compute(output, split.y))
            found.append({"composition_id": composition.id, "score": score})
        _write(path, found)
    isolation.close()


def score_nodes(
    task: Task, compositions: Sequence[Composition], split: Split, isolation: Isolation
) -> list[dict[str, Any]]:
    """How every node of the task's output type behaves.

    Raises:
        EvaluationError: An operator does not run.
    """
    metric = find_metric(task.metric)
    found: dict[str, dict[str, Any]] = {}
    for composition in compositions:
        outcomes = run_on_split(isolation.runner(composition), composition, split, task.output.type)
        for key, output in outcomes.outputs.items():
            if key not in found:
                found[key] = {"node_id": key, **asdict(Behaviour.of(output, split.y, metric))}
    return list(found.values())


def draw_condition(split: Split, generator: np.random.Generator) -> Split:
    """Rows under a random corruption or two, or under a mixture of some: a world that is no task's own."""

    def one() -> conditions.Condition:
        kind = int(generator.integers(5))
        if kind == 0:
            return conditions.impulse(float(generator.uniform(0.03, 0.3)))
        if kind == 1:
            return conditions.noise(float(generator.uniform(0.05, 0.4)))
        if kind == 2:
            span = float(generator.uniform(0.1, 0.7))
            return conditions.low_contrast(span, float(generator.uniform(0.0, 1.0 - span)))
        return conditions.inverted if kind == 3 else conditions.rotated_180

    chosen = [one() for _ in range(int(generator.integers(1, 4)))]
    mixed = generator.random() < 0.25
    condition = conditions.mixed([conditions.clean, *chosen]) if mixed else conditions.chained(*chosen[:2])
    return Split(np.clip(condition(split.x, generator), 0, 1).astype(np.float32), split.y)


def read_collected(folder: Path, source: PortType) -> Collected:
    """Everything that was collected of a task.

    Args:
        folder: Where it lies.
        source: Type of the task's input.

    Raises:
        EvaluationError: Nothing lies there.
    """
    if not (folder / COMPOSITIONS).exists():
        raise EvaluationError(f"{folder}: nothing was collected there; run stage=collect first")
    catalog = load_catalog(folder / CATALOG)
    shapes, compositions = read_compositions(folder, catalog, source)
    scores: dict[str, dict[str, Behaviour]] = {}
    for path in sorted((folder / "scores").glob("*.parquet")):
        rows = parquet.read_table(path).to_pylist()
        scores[path.stem] = {
            row["node_id"]: Behaviour(row["score"], tuple(row["confident"]), row["spread"]) for row in rows
        }
    tested: dict[str, dict[str, float]] = {}
    for path in sorted((folder / "tested").glob("*.parquet")):
        rows = parquet.read_table(path).to_pylist()
        tested[path.stem] = {row["composition_id"]: row["score"] for row in rows}
    return Collected(
        name=folder.name,
        catalog=catalog,
        shapes=tuple(shapes),
        compositions=tuple(compositions),
        timings=read_timings(folder),
        memory=read_memory(folder),
        scores=scores,
        tested=tested,
    )


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a Parquet file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    parquet.write_table(arrow.Table.from_pylist(list(rows)), partial, compression="zstd")
    os.replace(partial, path)
