"""Statistics of agent comparisons: the interquartile mean and its stratified-bootstrap interval."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import trim_mean

Statistic = Callable[[np.ndarray], np.ndarray]


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half of the values along the last axis.

    Source: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021.

    Args:
        values: float[..., value].

    Returns:
        float[...].
    """
    return np.asarray(trim_mean(np.asarray(values, dtype=float), 0.25, axis=-1))


def bootstrap_interval(
    values: np.ndarray,
    generator: np.random.Generator,
    statistic: Statistic = interquartile_mean,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a statistic by the stratified bootstrap: seeds are redrawn within each stratum.

    Source: Agarwal et al., NeurIPS 2021.

    Args:
        values: float[seed, stratum]; a stratum is a task in a condition. One axis means one stratum.
        generator: Draws the seeds.
        statistic: Maps float[resample, value] to float[resample]; a resample pools its strata.
        resamples: How many resamples to draw.
        confidence: Share of the resamples between the bounds.

    Returns:
        Lower and upper bound.

    Raises:
        ValueError: There are fewer than two seeds.
    """
    table = np.asarray(values, dtype=float)
    table = table[:, None] if table.ndim == 1 else table
    seeds, strata = table.shape
    if seeds < 2:
        raise ValueError(f"an interval needs two seeds or more, not {seeds}; run more seeds")
    rows = generator.integers(seeds, size=(resamples, seeds, strata))
    drawn = table[rows, np.arange(strata)]
    found = statistic(drawn.reshape(resamples, seeds * strata))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(found, [tail, 100 - tail])
    return float(low), float(high)
