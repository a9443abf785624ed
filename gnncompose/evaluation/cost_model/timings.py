"""Timed compositions: what the latency model learns from, measured for real and kept as Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow as arrow
import pyarrow.parquet as parquet

from gnncompose.composition.tree import Composition
from gnncompose.execution.latency import ROW_SEED, measure, sample_rows
from gnncompose.execution.plan import Plan
from gnncompose.execution.sessions import SessionPool
from gnncompose.tasks.task import Task

SINGLE_ROWS = 48
SINGLE_REPEATS = 5
BATCH_ROWS = 96
BATCH_REPEATS = 5
FEWEST_BATCHES = 2


@dataclass(frozen=True, eq=False)
class Timed:
    """One composition timed at one batch size in one world.

    Attributes:
        task: Name of the task.
        composition_id: Whose times they are.
        condition: State of the data.
        batch: Rows of a request.
        threads: Threads of every session.
        machine: What beside the threads decides how fast it runs, such as `optimised`.
        repetition: 0 for the first time, 1 for the second measurement of the same.
        latency_ms: Mean over requests of each one's median time.
        cpu_ms: CPU time of a request.
        reference_ms: Median time of the reference operator meanwhile.
        runs: Share of the requests in which each node runs, in the order of `Composition.nodes`.
        rows: Mean number of rows that each node runs on, over all requests.
    """

    task: str
    composition_id: str
    condition: str
    batch: int
    threads: int
    machine: str
    repetition: int
    latency_ms: float
    cpu_ms: float
    reference_ms: float
    runs: tuple[float, ...]
    rows: tuple[float, ...]

    @property
    def key(self) -> tuple[str, str, str, int, int, str, int]:
        """What it is the measurement of."""
        return (
            self.task,
            self.composition_id,
            self.condition,
            self.batch,
            self.threads,
            self.machine,
            self.repetition,
        )


def time_composition(
    task: Task, composition: Composition, sessions: SessionPool, condition: str, batch: int, machine: str, repetition: int
) -> Timed:
    """Time a composition on validation rows at a batch size.

    Raises:
        EvaluationError: It does not run.
    """
    x = task.split(condition, "validation").x
    plan = Plan(composition, sessions)
    inputs = requests(x, batch)
    counts = np.array([list(plan.row_counts(part).values()) for part in inputs])
    ran = np.array([list(plan.row_counts(part)) for part in inputs[:1]])[0].tolist()
    assert ran == [node.id for node in composition.nodes]
    timing = measure(plan.run, inputs, SINGLE_REPEATS if batch == 1 else BATCH_REPEATS, sessions.threads)
    return Timed(
        task=task.name,
        composition_id=composition.id,
        condition=condition,
        batch=batch,
        threads=sessions.threads,
        machine=machine,
        repetition=repetition,
        latency_ms=float(np.median(timing.samples_ms, axis=1).mean()),
        cpu_ms=timing.cpu_ms,
        reference_ms=timing.reference_ms,
        runs=tuple(map(float, (counts > 0).mean(axis=0))),
        rows=tuple(map(float, counts.mean(axis=0))),
    )


def requests(x: np.ndarray, batch: int) -> list[np.ndarray]:
    """The requests that are timed: always the same ones for the same rows and batch size."""
    if batch == 1:
        return [x[row : row + 1].copy() for row in sample_rows(len(x), SINGLE_ROWS)]
    count = max(FEWEST_BATCHES, BATCH_ROWS // batch)
    generator = np.random.default_rng([ROW_SEED, batch])
    drawn = [generator.choice(len(x), size=batch, replace=batch > len(x)) for _ in range(count)]
    return [x[np.sort(rows)].copy() for rows in drawn]
