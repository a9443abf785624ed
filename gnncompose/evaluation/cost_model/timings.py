"""Timed compositions: what the latency model learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gnncompose.composition.tree import Composition
from gnncompose.evaluation.cost import Resource
from gnncompose.evaluation.cost_model.latency import Usage
from gnncompose.execution.cores import claimed_cores
from gnncompose.execution.isolation import Isolation
from gnncompose.execution.latency import Effort, Timing
from gnncompose.execution.load import Load
from gnncompose.execution.reference import baseline_ns
from gnncompose.execution.work import rows_reached, timed
from gnncompose.provenance import hardware
from gnncompose.tasks.task import Split

# Quicker than an evaluation, and steady enough that a second measurement is within a few per cent.
SINGLE_ROWS = Effort(rows=48, repeats=5, seconds=0.03)
BATCHES = Effort(rows=48, repeats=5, seconds=0.05)


@dataclass(frozen=True)
class Timed:
    """One composition timed in one world.

    Attributes:
        composition_id: Whose times they are.
        condition: State of the data.
        load: How requests arrived.
        resource: Where it ran.
        repetition: 0 for the first measurement, 1 for the second of the same.
        batch: Rows of a request.
        threads: Threads of every session.
        latency_ms: Mean over requests of each one's median time.
        cpu_ms: CPU time of a request.
        reference_ms: Median time of the reference operator meanwhile.
        runs: Share of the requests in which each node runs, in the order of `Composition.nodes`.
        rows: Mean rows that each node runs on, over all requests.
    """

    composition_id: str
    condition: str
    load: str
    resource: str
    repetition: int
    batch: int
    threads: int
    latency_ms: float
    cpu_ms: float
    reference_ms: float
    runs: tuple[float, ...]
    rows: tuple[float, ...]

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What it is the measurement of."""
        return self.composition_id, self.condition, self.load, self.resource, self.repetition

    @property
    def usage(self) -> Usage:
        """Which nodes took part."""
        return Usage(self.batch, self.threads, tuple(self.runs), tuple(self.rows))


def time_composition(
    isolation: Isolation, composition: Composition, split: Split, load: Load, resource: Resource
) -> tuple[Timing, np.ndarray]:
    """Time a composition under a load; also int64[requests, nodes], the rows that each node ran on.

    Args:
        isolation: Says where it may run; its sessions must have the resource's threads.
        composition: What is timed.
        split: Whose rows are sampled.
        load: How requests arrive.
        resource: Where it runs.

    Raises:
        EvaluationError: It does not run.
        CatalogError: An artifact is not usable.
    """
    runner, effort = isolation.runner(composition), effort_of(load)
    requests = load.requests(len(split.x), effort)
    counts = runner.call(rows_reached, composition, split, requests)
    cpu = str(hardware()["cpu"])  # asked before this thread is pinned, since it also counts the usable cores
    with claimed_cores(resource.threads) as cores, runner.pinned(cores):
        best = baseline_ns(cpu)
        figures = runner.call(timed, composition, split, load.name, effort, resource.threads, best)
    return Timing(*figures), counts


def effort_of(load: Load) -> Effort:
    """How much is timed under a load."""
    return SINGLE_ROWS if load.batch == 1 else BATCHES


def usage_of(counts: np.ndarray, batch: int, threads: int) -> Usage:
    """How much each node takes part, from the rows that it runs on in each request [requests, nodes]."""
    return Usage(batch, threads, _floats((counts > 0).mean(axis=0)), _floats(counts.mean(axis=0)))


def _floats(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, values))
