"""What was served, second by second over the last ten minutes; in memory of constant size."""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

FEW = 64  # numbers that Python goes through faster than numpy is called
KEPT_S = 600
LATEST_S = 60
TURNED_AWAY = (429, 503)
FAILED = 500
SHORTEST_S, GROWTH, BUCKETS = 1e-5, 1.1, 170  # of the histograms of latency, from 10 µs to 108 s
PER_BUCKET = 1 / math.log(GROWTH)
LARGEST_ERROR = math.sqrt(GROWTH) - 1  # of a percentile, relative: 4.9 %
_MIDDLES_MS = [float(f"{1e3 * SHORTEST_S * GROWTH ** (place + 0.5):.4g}") for place in range(BUCKETS)]


def _no_times() -> array[int]:
    return array("I", bytes(array("I").itemsize * BUCKETS))


@dataclass(slots=True)
class _Second:
    """Sums over one second; `times` counts answers by latency, `rows_of` rows by the version that answered."""

    number: int
    requests: int = 0
    failed: int = 0
    turned_away: int = 0
    mistaken: int = 0
    confidence: float = 0.0
    confident_rows: int = 0
    correct: int = 0
    labelled: int = 0
    rows_of: dict[int, int] = field(default_factory=dict[int, int])
    times: array[int] = field(default_factory=_no_times)

    @property
    def rows(self) -> int:
        return sum(self.rows_of.values())

    @property
    def version(self) -> int | None:
        """The version that answered most rows; the latest one of several."""
        return max(self.rows_of, key=lambda version: (self.rows_of[version], version), default=None)


class Figures:
    """Counts, latencies and confidences of requests; may be told and asked from several threads.

    A second is begun by what first happens in it and takes the place of the one that is `KEPT_S` older. Latencies are
    counted in a histogram whose buckets grow by a tenth, so that a percentile, which is one of the values that occurred
    (the nearest rank), is told with a relative error of 4.9 % at most.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing.

        Args:
            clock: Tells seconds and never goes back.
        """
        self._clock = clock
        self._begun = int(clock())
        self._lock = threading.Lock()
        # One more than is told, since the second that runs is not.
        self._seconds = [_Second(-1) for _ in range(KEPT_S + 1)]

    def answered(
        self, seconds: float, rows: int, version: int, confidence: float | None = None, at_s: float | None = None
    ) -> None:
        """Note a request that was answered.

        Args:
            seconds: How long it took.
            rows: How many it had.
            version: Of the deployment that answered.
            confidence: Sum over rows of how sure the answer is, from 0 to 1; None where answers do not say.
            at_s: When, as the clock tells; None for now.
        """
        place = int(math.log(seconds / SHORTEST_S) * PER_BUCKET) if seconds > SHORTEST_S else 0
        with self._lock:
            second = self._running(at_s)
            second.requests += 1
            second.rows_of[version] = second.rows_of.get(version, 0) + rows
            second.times[place if place < BUCKETS else BUCKETS - 1] += 1
            if confidence is not None:
                second.confidence += confidence
                second.confident_rows += rows

    def refused(self, status: int, at_s: float | None = None) -> None:
        """Note a request that was not answered.

        Args:
            status: The HTTP status that told so: 429 and 503 turn a request away, others from 500 on are failures of
                the server, those below are mistakes of the client.
            at_s: When, as the clock tells; None for now.
        """
        with self._lock:
            second = self._running(at_s)
            second.requests += 1
            if status in TURNED_AWAY:
                second.turned_away += 1
            elif status >= FAILED:
                second.failed += 1
            else:
                second.mistaken += 1

    def tell_labels(self, correct: int, of: int) -> None:
        """Note labels that have come, in the second in which they come.

        Args:
            correct: How many rows were answered as their labels say.
            of: How many rows have got labels.
        """
        with self._lock:
            second = self._running()
            second.correct += correct
            second.labelled += of

    def _running(self, at_s: float | None = None) -> _Second:
        number = int(self._clock() if at_s is None else at_s)
        place = number % len(self._seconds)
        second = self._seconds[place]
        if second.number != number:
            second = self._seconds[place] = _Second(number)
        return second

    def told(self) -> dict[str, Any]:
        """All of it as plain data.

        Returns:
            `seconds`, how many whole seconds are told; for each, the oldest first, `requests`, `failed`, `turned_away`,
            `mistaken`, `rows`, `latency_ms_p50`, `latency_ms_p95`, `confidence`, `accuracy` and `version`, None where a
            second has none; and `latest`, the same over the last minute, with the requests of a second in it.
        """
        with self._lock:
            now = int(self._clock())
            seconds = [self._told_of(number) for number in range(max(self._begun, now - KEPT_S), now)]
        told: dict[str, Any] = {"seconds": len(seconds), **_columns(seconds)}
        return told | {"latest": _together(seconds[-LATEST_S:])}

    def _told_of(self, number: int) -> _Second:
        second = self._seconds[number % len(self._seconds)]
        return second if second.number == number else _Second(number)


def confidence(answers: Float[np.ndarray, "row class"]) -> float:
    """Sum over rows of the largest probability."""
    if answers.size <= FEW:
        return sum(map(max, answers.tolist()))
    return float(np.maximum.reduce(answers, -1).sum())


def percentiles_ms(counts: Int[np.ndarray, "second bucket"], percent: float) -> list[float | None]:
    """The percentile of each second's latencies, in milliseconds; None where there are none."""
    totals, reached = counts.sum(axis=1), counts.cumsum(axis=1)
    ranks = np.ceil(percent / 100 * totals)
    places = np.minimum((reached < ranks[:, None]).sum(axis=1), BUCKETS - 1)
    pairs = zip(places.tolist(), totals.tolist(), strict=True)
    return [_MIDDLES_MS[place] if total else None for place, total in pairs]


def _counts(seconds: Sequence[_Second]) -> Int[np.ndarray, "second bucket"]:
    times = [np.frombuffer(second.times, dtype=np.uintc) for second in seconds]
    return np.array(times, dtype=np.int64).reshape(len(seconds), BUCKETS)


def _columns(seconds: Sequence[_Second]) -> dict[str, list[Any]]:
    counts = _counts(seconds)
    return {
        "requests": [second.requests for second in seconds],
        "failed": [second.failed for second in seconds],
        "turned_away": [second.turned_away for second in seconds],
        "mistaken": [second.mistaken for second in seconds],
        "rows": [second.rows for second in seconds],
        "latency_ms_p50": percentiles_ms(counts, 50),
        "latency_ms_p95": percentiles_ms(counts, 95),
        "confidence": [_share(second.confidence, second.confident_rows) for second in seconds],
        "accuracy": [_share(second.correct, second.labelled) for second in seconds],
        "version": [second.version for second in seconds],
    }


def _together(seconds: Sequence[_Second]) -> dict[str, Any]:
    """The same figures over several seconds."""
    counts = _counts(seconds).sum(axis=0, keepdims=True)

    def total(name: str) -> float:
        return sum(getattr(second, name) for second in seconds)

    return {
        "seconds": len(seconds),
        "requests_per_s": _share(total("requests"), len(seconds)),
        "rows_per_s": _share(total("rows"), len(seconds)),
        "failed": total("failed"),
        "turned_away": total("turned_away"),
        "mistaken": total("mistaken"),
        "latency_ms_p50": percentiles_ms(counts, 50)[0],
        "latency_ms_p95": percentiles_ms(counts, 95)[0],
        "confidence": _share(total("confidence"), total("confident_rows")),
        "accuracy": _share(total("correct"), total("labelled")),
        "labelled": total("labelled"),
    }


def _share(part: float, whole: float) -> float | None:
    return _rounded(part / whole) if whole else None


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
