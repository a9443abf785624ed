"""How long a call takes for one row: the same few lines for every tool, whatever environment it lives in."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

ROWS, ROUNDS, SEED = 48, 7, 20260101


def one_row_latency_ms(call: Callable[[np.ndarray], object], x: np.ndarray) -> list[float]:
    """Median, 5th and 95th percentile of the milliseconds that rows take, one row in a call, after a round to warm up.

    Args:
        call: Takes float32[1, columns].
        x: Where the rows are drawn from, always the same ones.
    """
    rows = x[np.random.default_rng(SEED).choice(len(x), min(ROWS, len(x)), replace=False)]
    times_ms = np.empty((ROUNDS, len(rows)))
    for number in range(-1, ROUNDS):
        for i in range(len(rows)):
            row = rows[i : i + 1]
            started = time.perf_counter_ns()
            call(row)
            if number >= 0:
                times_ms[number, i] = (time.perf_counter_ns() - started) / 1e6
    return [float(value) for value in np.percentile(times_ms, (50, 5, 95))]
