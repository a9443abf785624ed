"""Loads: how requests arrive while a composition is timed.

They are the scenarios of MLPerf Inference (Reddi et al., "MLPerf Inference Benchmark", ISCA 2020) for one worker:
`single_stream`, `offline:BATCH` and `server:RATE`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from gnncompose.errors import EvaluationError
from gnncompose.execution.latency import (
    ATTEMPTS,
    HIGHEST_PERCENT,
    Effort,
    Timing,
    sample_rows,
    time_one_by_one,
    time_rounds,
)
from gnncompose.execution.percentiles import samples_needed

Run = Callable[[np.ndarray], np.ndarray]
Number = TypeVar("Number", int, float)
FEWEST_BATCHES = 4
LARGEST_BATCH = 1 << 16
ARRIVAL_SEED = 20260102
MOST_UTILISATION = 0.95
LONGEST_PAUSE_S = 0.001


class Load(Protocol):
    """How requests arrive."""

    @property
    def name(self) -> str:
        """The load as text, the same for equal loads; `parse_load` reads it."""
        ...

    @property
    def batch(self) -> int:
        """Rows per request."""
        ...

    def rows(self, effort: Effort) -> int:
        """How many rows are timed; of more, always the same ones are sampled."""
        ...

    def requests(self, count: int, effort: Effort) -> np.ndarray:
        """int64[requests, batch]: which of `count` rows make up each request that is timed."""
        ...

    def time(self, run: Run, x: np.ndarray, effort: Effort, threads: int, baseline_ns: float) -> Timing:
        """Time a composition under this load, on the core that this thread is pinned to.

        Args:
            run: Answers [rows, ...], at least one row.
            x: [rows, ...] of which the timed ones are sampled.
            effort: How much is timed.
            threads: Cores that `run` uses.
            baseline_ns: The reference's time at the machine's best.

        Raises:
            EvaluationError: The composition cannot sustain the load.
        """
        ...


@dataclass(frozen=True)
class SingleStream:
    """One row per request; the next request comes when the last is answered."""

    name = "single_stream"
    batch = 1

    def rows(self, effort: Effort) -> int:
        """As many as the effort says."""
        return effort.rows

    def requests(self, count: int, effort: Effort) -> np.ndarray:
        """A sampled row each."""
        return sample_rows(count, self.rows(effort))[:, None]

    def time(self, run: Run, x: np.ndarray, effort: Effort, threads: int, baseline_ns: float) -> Timing:
        """Samples are the times of single rows."""
        return time_one_by_one(run, [x[row] for row in self.requests(len(x), effort)], effort, threads, baseline_ns)


@dataclass(frozen=True)
class Offline:
    """All rows are there at once; they are answered in batches, one right after the other.

    Attributes:
        batch: Rows per request.
    """

    batch: int

    @property
    def name(self) -> str:
        """As in `offline:64`."""
        return f"offline:{self.batch}"

    def rows(self, effort: Effort) -> int:
        """Those of whole batches, at least four of them."""
        return self.batch * max(FEWEST_BATCHES, -(-effort.rows // self.batch))

    def requests(self, count: int, effort: Effort) -> np.ndarray:
        """Whole batches of sampled rows; data with fewer rows are gone through again."""
        rows = self.rows(effort)
        return np.resize(sample_rows(count, rows), rows).reshape(-1, self.batch)

    def time(self, run: Run, x: np.ndarray, effort: Effort, threads: int, baseline_ns: float) -> Timing:
        """Samples are the times of batches; CPU time and throughput are per row."""
        batches = [x[rows] for rows in self.requests(len(x), effort)]
        return time_one_by_one(run, batches, effort, threads, baseline_ns, self.batch)


@dataclass(frozen=True)
class Server:
    """Single rows arrive at random, as a Poisson process, and wait in one queue before one worker.

    A request's latency is its completion less its arrival. The clock of the arrivals stands still while the
    reference runs, and runs at the speed of the machine at its best, so that a slow phase of the machine does not
    pass for a longer queue. While the queue is empty the worker sleeps, a millisecond at most: then the next
    arrival is brought forward in real time, not on the clock of the arrivals.

    Attributes:
        rate_per_s: Rows that arrive in a second, on average.
    """

    rate_per_s: float
    batch = 1

    @property
    def name(self) -> str:
        """As in `server:200`."""
        return f"server:{np.format_float_positional(self.rate_per_s, trim='-')}"

    def rows(self, effort: Effort) -> int:
        """As many as the effort says."""
        return effort.rows

    def requests(self, count: int, effort: Effort) -> np.ndarray:
        """A sampled row each."""
        return sample_rows(count, self.rows(effort))[:, None]

    def time(self, run: Run, x: np.ndarray, effort: Effort, threads: int, baseline_ns: float) -> Timing:
        """Samples are latencies, in order of arrival; two compositions see the same arrivals.

        Raises:
            EvaluationError: The composition is busy for more than 95 % of the time at this rate: the queue would
                grow without end, or so slowly settle that a measurement tells nothing.
        """
        requests = [x[row] for row in self.requests(len(x), effort)]
        most = len(requests) * max(effort.repeats, -(-samples_needed(HIGHEST_PERCENT) // len(requests)))
        arrivals_ns = poisson_arrivals_ns(self.rate_per_s, ATTEMPTS * most)
        rounds = time_rounds(run, requests, effort, threads, baseline_ns, _Pauses(arrivals_ns))
        service_ns = rounds.mean_wall_ns
        utilisation = self.rate_per_s * service_ns / 1e9
        if utilisation > MOST_UTILISATION:
            raise EvaluationError(
                f"{self.name}: a row takes {service_ns / 1e6:.3g} ms, so one worker would be busy {utilisation:.0%} of "
                f"the time; give a rate of at most {MOST_UTILISATION * 1e9 / service_ns:.0f}"
            )
        arrivals_ns = arrivals_ns[: rounds.wall_ns.size]
        completions_ns = queue_completions_ns(arrivals_ns, rounds.wall_ns.ravel())
        latencies_ns = (completions_ns - arrivals_ns)[:, None]
        return rounds.timing(latencies_ns, 1, 1e9 * len(arrivals_ns) / completions_ns[-1])


class _Pauses:
    """Lets the worker sleep, as it does where the queue is empty; knows the queue from the times so far."""

    def __init__(self, arrivals_ns: np.ndarray) -> None:
        self._arrivals_ns = iter(arrivals_ns.tolist())
        self._now_ns = 0.0

    def __call__(self, last_ns: int) -> None:
        """Sleep until the next arrival, after a request that took this long; where it has come already, do not."""
        self._now_ns += last_ns
        arrival_ns = next(self._arrivals_ns)
        if arrival_ns > self._now_ns:
            time.sleep(min((arrival_ns - self._now_ns) / 1e9, LONGEST_PAUSE_S))
            self._now_ns = arrival_ns


def poisson_arrivals_ns(rate_per_s: float, count: int) -> np.ndarray:
    """float64[count]: times of arrival; the same for the same numbers, and scaled by the rate."""
    generator = np.random.default_rng(ARRIVAL_SEED)
    return generator.standard_exponential(count).cumsum() * (1e9 / rate_per_s)


def queue_completions_ns(arrivals_ns: np.ndarray, service_ns: np.ndarray) -> np.ndarray:
    """float64[requests]: when one worker that serves in order of arrival has answered each request.

    A request begins when it has come and the one before it is done (Lindley, "The theory of queues with a single
    server", 1952).
    """
    completions, done = np.empty(len(arrivals_ns)), 0.0
    for i, (arrival, service) in enumerate(zip(arrivals_ns.tolist(), service_ns.tolist(), strict=True)):
        done = max(done, arrival) + service
        completions[i] = done
    return completions


def parse_load(text: str) -> Load:
    """Read a load: `single_stream`, `offline:BATCH` or `server:RATE`.

    Raises:
        EvaluationError: The text is none of these, or its number makes no sense.
    """
    kind, colon, argument = text.strip().partition(":")
    if kind not in _LOADS:
        raise EvaluationError(f'there is no load "{text}"; choose one of {", ".join(_FORMS)}')
    return _LOADS[kind](argument if colon else None, text)


def _single_stream(argument: str | None, text: str) -> SingleStream:
    if argument is not None:
        raise EvaluationError(f'load "{text}": single_stream takes no number; leave it out')
    return SingleStream()


def _offline(argument: str | None, text: str) -> Offline:
    batch = _number(argument, int)
    if batch is None or not 1 <= batch <= LARGEST_BATCH:
        raise EvaluationError(f'load "{text}": the batch is a whole number from 1 to {LARGEST_BATCH}, as in offline:64')
    return Offline(batch)


def _server(argument: str | None, text: str) -> Server:
    rate = _number(argument, float)
    if rate is None or not 0 < rate < 1e9:
        raise EvaluationError(f'load "{text}": the rate is a number of rows per second over 0, as in server:200')
    return Server(rate)


def _number(argument: str | None, kind: Callable[[str], Number]) -> Number | None:
    try:
        return None if argument is None else kind(argument)
    except ValueError:
        return None


_LOADS: dict[str, Callable[[str | None, str], Load]] = {
    "single_stream": _single_stream,
    "offline": _offline,
    "server": _server,
}
_FORMS = ("single_stream", "offline:BATCH", "server:RATE")
