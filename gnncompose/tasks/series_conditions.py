"""States that time series can be in: corruptions of batches `float32[N,C,T]`.

Values are in units of a channel's standard deviation, so that one strength means the same for every set.
Each corruption takes a generator, so that the same seed gives the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32

from gnncompose.tasks.conditions import Condition, chained, clean, mixed

Series = Float32[np.ndarray, "N channel time"]
# What a sensor reports while it is out: far below all that it can measure, and finite as data must be.
MISSING = -50.0


def spikes(share: float, height: float) -> Condition:
    """Short glitches: a share of the points jumps up or down by half to all of the height.

    Args:
        share: Share of the points that are hit, 0 to 1.
        height: Largest jump.
    """

    def corrupt(series: Series, generator: np.random.Generator) -> Series:
        hit = generator.random(series.shape) < share
        jump = generator.uniform(0.5, 1, series.shape) * height * generator.choice([-1, 1], series.shape)
        return (series + np.where(hit, jump, 0)).astype(np.float32)

    return corrupt


def noise(sigma: float) -> Condition:
    """Gaussian noise.

    Args:
        sigma: Its standard deviation.
    """

    def corrupt(series: Series, generator: np.random.Generator) -> Series:
        return series + generator.standard_normal(series.shape, dtype=np.float32) * np.float32(sigma)

    return corrupt


def wander(height: float) -> Condition:
    """A baseline that wanders: a drift up or down, and a slow wave of a quarter of its height, per row and channel.

    Args:
        height: The most that the drift reaches at either end; it reaches half of that at least.
    """

    def corrupt(series: Series, generator: np.random.Generator) -> Series:
        rows, channels, length = series.shape
        time = np.linspace(0, 1, length)
        shape = (rows, channels, 1)
        slope = generator.uniform(0.5, 1, shape) * generator.choice([-1, 1], shape)
        cycles, phase = generator.uniform(0.5, 1, shape), generator.uniform(0, 1, shape)
        baseline = slope * (2 * time - 1) + np.sin(2 * np.pi * (cycles * time + phase)) / 4
        return (series + height * baseline).astype(np.float32)

    return corrupt


def gaps(share: float, count: int = 2) -> Condition:
    """Stretches in which the sensor is out and reports `MISSING` on every channel; they may meet.

    Args:
        share: Share of the points that all stretches together take, where they do not overlap.
        count: How many stretches.
    """

    def corrupt(series: Series, generator: np.random.Generator) -> Series:
        rows, _, length = series.shape
        width = gap_length(share, count, length)
        starts = generator.integers(0, length - width + 1, (rows, count, 1))
        time = np.arange(length)
        out = ((starts <= time) & (time < starts + width)).any(axis=1)
        return np.where(out[:, None], np.float32(MISSING), series)

    return corrupt


def gap_length(share: float, count: int, length: int) -> int:
    """Points of one stretch of `gaps`."""
    return max(1, round(share * length / count))


def scaled(factor: float, offset: float) -> Condition:
    """Another gain and zero point of the sensor, alike for all channels of a row.

    Args:
        factor: The gain lies between one over it and it, evenly on a logarithmic scale.
        offset: The zero point moves by up to it, up or down.
    """

    def corrupt(series: Series, generator: np.random.Generator) -> Series:
        shape = (len(series), 1, 1)
        gain = np.exp(generator.uniform(-1, 1, shape) * np.log(factor))
        return (series * gain + generator.uniform(-1, 1, shape) * offset).astype(np.float32)

    return corrupt


def series_conditions(
    *,
    spike_share: float = 0.05,
    spike_height: float = 6.0,
    noise_sigma: float = 0.2,
    wander_height: float = 2.0,
    gap_share: float = 0.2,
    scale_factor: float = 3.0,
    scale_offset: float = 1.0,
) -> Mapping[str, Condition]:
    """The conditions of the shipped series tasks, by name.

    `missing_wander` is the one where the order of transforms decides: a trend that is fitted before the
    gaps are filled follows the gaps.

    Args:
        spike_share: Share of the points hit in `spikes`.
        spike_height: Their largest jump.
        noise_sigma: Standard deviation of `noise`.
        wander_height: Largest drift of `wander`.
        gap_share: Share of the points missing in `missing`.
        scale_factor: Largest gain of `scaled`.
        scale_offset: Largest shift of its zero point.
    """
    single: dict[str, Condition] = {
        "clean": clean,
        "spikes": spikes(spike_share, spike_height),
        "noise": noise(noise_sigma),
        "wander": wander(wander_height),
        "missing": gaps(gap_share),
        "missing_wander": chained(wander(wander_height), gaps(gap_share)),
        "scaled": scaled(scale_factor, scale_offset),
    }
    return {**single, "mixed": mixed(list(single.values()))}
