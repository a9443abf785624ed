"""The timing protocol: what it takes to measure a few hundred microseconds to a few percent.

Every measurement pins its thread to a core that no other measurement holds, warms up, and runs requests in
rounds. In between it runs a small fixed reference operator. A round's times are multiplied by the reference's
time at the machine's best and divided by its median in that round, which takes out what slows all work on the
core alike, such as its clock; times are therefore those of the machine at its best. The samples are kept after
this correction, together with the reference's median time during the measurement.

The correction is exact for the reference only: a busy neighbour may slow it by a tenth and a composition by half.
So a round in which the reference was slow, or in which other processes had the core, is run again after a pause (a
second of pauses in all), until there are as many steady rounds as wanted or three times as many were run; then the
steadiest ones count.
Which rounds count never depends on how long the requests took.

What times is free of the file system, so that it also runs in a process that may open no file: whoever calls it
pins the thread and hands in the reference's best time. `measure` does both for a measurement in this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np

from gnncompose.execution.cores import claimed_cores, no_garbage_collection
from gnncompose.execution.percentiles import samples_needed
from gnncompose.execution.reference import baseline_ns, reference
from gnncompose.provenance import hardware

Request = TypeVar("Request")
Wait = Callable[[int], object]
PROTOCOL = "2"
WARM_UP_RUNS = 10
RUNS_PER_REFERENCE = 4
ATTEMPTS = 3
MOST_SLOWDOWN = 1.25
PAUSE_S = 0.005
MOST_PAUSES = 200
CLOCK_RUNS = 200
ROW_SEED = 20260101
HIGHEST_PERCENT = 99


@dataclass(frozen=True)
class Effort:
    """How much is timed.

    Attributes:
        rows: Rows of the data that are timed; always the same ones.
        repeats: Rounds over them, at least.
        seconds: Time within which further rounds are added, until the samples tell the 99th percentile.
    """

    rows: int = 48
    repeats: int = 5
    seconds: float = 0.3


@dataclass(frozen=True, eq=False)
class Timing:
    """What timing found.

    Attributes:
        samples_ms: float64[requests, repeats], corrected for the drift of the machine.
        cpu_ms: CPU time of one row, corrected likewise.
        throughput_per_s: Rows answered in a second.
        reference_ms: Median time of the reference operator during the measurement.
        noise: How much longer the machine itself made its unluckier runs: the 99th percentile of a request's time
            over the median time of the very same request, or the 95th percentile of the reference's times over
            their median, whichever is larger; 1 on a perfectly steady machine.
        share_waiting: Share of the time in which another process had the core; 0 or less where none had.
    """

    samples_ms: np.ndarray
    cpu_ms: float
    throughput_per_s: float
    reference_ms: float
    noise: float
    share_waiting: float


@dataclass(frozen=True, eq=False)
class Rounds:
    """Times of requests, round by round, corrected for the drift of the machine.

    Attributes:
        wall_ns: float64[rounds, requests].
        cpu_ns: float64[rounds, requests].
        reference_ns: float64[rounds, references], as measured.
    """

    wall_ns: np.ndarray
    cpu_ns: np.ndarray
    reference_ns: np.ndarray

    @property
    def mean_wall_ns(self) -> float:
        """Mean over requests of each one's median time."""
        return float(np.median(self.wall_ns, axis=0).mean())

    @property
    def mean_cpu_ns(self) -> float:
        """Mean over requests of the lower quartile of each one's CPU time: what disturbs only ever adds to it."""
        return float(np.percentile(self.cpu_ns, 25, axis=0).mean())

    @property
    def noise(self) -> float:
        """As in `Timing`."""
        same_request = np.percentile(self.wall_ns / np.median(self.wall_ns, axis=0), 99)
        reference = np.percentile(self.reference_ns, 95) / np.median(self.reference_ns)
        return float(max(same_request, reference))

    def timing(self, samples_ns: np.ndarray, rows_per_request: int, throughput_per_s: float) -> Timing:
        """These rounds as a timing, whose samples (float64[requests, repeats]) may be more than the bare times."""
        return Timing(
            samples_ms=samples_ns / 1e6,
            cpu_ms=self.mean_cpu_ns / 1e6 / rows_per_request,
            throughput_per_s=throughput_per_s,
            reference_ms=float(np.median(self.reference_ns)) / 1e6,
            noise=self.noise,
            share_waiting=float(1 - self.cpu_ns.sum() / self.wall_ns.sum()),
        )


@dataclass(frozen=True, eq=False)
class _Round:
    """One pass over the requests, in nanoseconds as measured."""

    wall: np.ndarray
    cpu: np.ndarray
    reference: np.ndarray

    def slowdown(self, baseline_ns: float) -> float:
        """How much longer than at the machine's best the reference took, and requests for others on the core."""
        return float(np.median(self.reference) / baseline_ns * max(1.0, self.wall.sum() / self.cpu.sum()))


def sample_rows(count: int, rows: int) -> np.ndarray:
    """Which of `count` rows are timed: always the same ones for the same numbers."""
    generator = np.random.default_rng(ROW_SEED)
    return np.sort(generator.choice(count, size=min(rows, count), replace=False))


def measure(run: Callable[[Request], object], requests: Sequence[Request], effort: Effort, threads: int = 1) -> Timing:
    """Time a function in this process, request after request, on a core that is claimed for it.

    Args:
        run: What is timed.
        requests: Each one is a call's argument and counts as one row.
        effort: How much is timed.
        threads: Cores that the function may use; as many are claimed, and where they are more than one the CPU
            time is that of the whole process.
    """
    cpu = str(hardware()["cpu"])  # asked before this thread is pinned, since it also counts the usable cores
    with claimed_cores(threads):
        return time_one_by_one(run, requests, effort, threads, baseline_ns(cpu))


def time_one_by_one(
    run: Callable[[Request], object],
    requests: Sequence[Request],
    effort: Effort,
    threads: int,
    baseline_ns: float,
    rows_per_request: int = 1,
) -> Timing:
    """Time a function on requests, the next one when the last is answered.

    Args:
        run: What is timed.
        requests: Each one is a call's argument.
        effort: How much is timed.
        threads: Cores that the function uses.
        baseline_ns: The reference's time at the machine's best.
        rows_per_request: Rows that one request carries.
    """
    rounds = time_rounds(run, requests, effort, threads, baseline_ns)
    return rounds.timing(rounds.wall_ns.T.copy(), rows_per_request, 1e9 * rows_per_request / rounds.mean_wall_ns)


def time_rounds(
    run: Callable[[Request], object],
    requests: Sequence[Request],
    effort: Effort,
    threads: int,
    baseline_ns: float,
    wait: Wait | None = None,
) -> Rounds:
    """Run requests in rounds; the time of the first one says how many rounds there will be.

    Args:
        run: What is timed.
        requests: Each one is a call's argument.
        effort: How much is timed.
        threads: Cores that the function uses.
        baseline_ns: The reference's time at the machine's best.
        wait: Called before each timed request with the time of the one before it, in nanoseconds; nothing is
            timed while it runs.
    """
    clock = time.thread_time_ns if threads == 1 else time.process_time_ns
    with no_garbage_collection():
        for i in range(max(WARM_UP_RUNS, min(len(requests), 2 * WARM_UP_RUNS))):
            run(requests[i % len(requests)])
        started = time.perf_counter()
        found = [_time_round(run, requests, clock, wait)]
        slowdowns = [found[0].slowdown(baseline_ns)]
        best_s = (time.perf_counter() - started) / slowdowns[0]
        wanted = -(-samples_needed(HIGHEST_PERCENT) // len(requests))
        count = max(effort.repeats, min(wanted, int(effort.seconds / best_s)))
        pauses = 0
        while sum(slowdown <= MOST_SLOWDOWN for slowdown in slowdowns) < count and len(found) < ATTEMPTS * count:
            if slowdowns[-1] > MOST_SLOWDOWN and pauses < MOST_PAUSES:
                time.sleep(PAUSE_S)
                pauses += 1
            found.append(_time_round(run, requests, clock, wait))
            slowdowns.append(found[-1].slowdown(baseline_ns))
    steadiest = np.sort(np.argsort(slowdowns, kind="stable")[:count])
    reference_ns = np.stack([found[i].reference for i in steadiest])
    drift = baseline_ns / np.median(reference_ns, axis=1, keepdims=True)
    return Rounds(
        drift * np.stack([found[i].wall for i in steadiest]),
        drift * np.stack([found[i].cpu for i in steadiest]),
        reference_ns,
    )


def _time_round(
    run: Callable[[Request], object], requests: Sequence[Request], clock: Callable[[], int], wait: Wait | None
) -> _Round:
    """One pass over the requests."""
    now, run_reference = time.perf_counter_ns, reference()
    wall, cpu = np.empty(len(requests)), np.empty(len(requests))
    references = np.empty(-(-len(requests) // RUNS_PER_REFERENCE))
    elapsed = 0
    for i, request in enumerate(requests):
        if i % RUNS_PER_REFERENCE == 0:
            # what ran before has taken the caches: neither the reference nor what is timed may pay for that
            run_reference()
            run_reference()
            started = now()
            run_reference()
            references[i // RUNS_PER_REFERENCE] = now() - started
            run(requests[i - 1])  # another one, or branches would be predicted for this one
        if wait is not None:
            wait(elapsed)
        cpu_started = clock()
        started = now()
        run(request)
        elapsed = now() - started
        cpu[i] = clock() - cpu_started
        wall[i] = elapsed
    return _Round(wall, np.maximum(cpu - _clock_ns(clock), 1), references)


@cache
def _clock_ns(clock: Callable[[], int]) -> float:
    """What reading the clocks adds to a CPU time."""
    now = time.perf_counter_ns
    costs = np.empty(CLOCK_RUNS)
    for i in range(CLOCK_RUNS):
        started = clock()
        now()
        now()
        costs[i] = clock() - started
    return float(np.median(costs))
