"""Which percentile a number of samples can tell: the early-stopping rule of MLPerf Inference.

Let each of n independent requests exceed the true p-th percentile with probability 1 - p. Then at most t of them
do with probability `binomial_cdf(t; n, 1 - p)`. The rule accepts a percentile's bound with t requests over it
where that probability is at most 1 - confidence, with confidence .99 and no tolerance.

Source: MLPerf Inference Rules, appendix "Early Stopping Criterion"
(https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc); the numbers here are those that
MLPerf's LoadGen prints.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.special import bdtr

CONFIDENCE = 0.99
MOST_NOISE = {95: 3.0, 99: 2.0}


@cache
def samples_needed(percent: float) -> int:
    """Fewest samples that tell a percentile: 11 for the 50th, 64 for the 90th, 130 for the 95th, 662 for the 99th."""
    exceeding = 1 - percent / 100
    fewest, most = 2, 4
    while bdtr(1, most, exceeding) > 1 - CONFIDENCE:
        fewest, most = most, 2 * most
    counts = np.arange(fewest, most + 1)
    return int(counts[bdtr(1, counts, exceeding) <= 1 - CONFIDENCE][0])


def discarded(count: int, percent: float) -> int:
    """How many of the largest of `count` samples the estimate of a percentile may leave out.

    Raises:
        ValueError: There are fewer samples than the percentile needs.
    """
    if count < samples_needed(percent):
        raise ValueError(f"percentile {percent:g} needs {samples_needed(percent)} samples, not {count}")
    over = np.arange(count)
    accepted = over[bdtr(over, count, 1 - percent / 100) <= 1 - CONFIDENCE]
    return int(accepted[-1]) - 1


def early_stopping_estimate(samples: np.ndarray, percent: float) -> float | None:
    """Upper bound of a percentile at 99 % confidence; None where the samples are too few to tell one."""
    values = np.ravel(samples)
    if len(values) < samples_needed(percent):
        return None
    place = len(values) - 1 - discarded(len(values), percent)
    return float(np.partition(values, place)[place])


def percentile(samples: np.ndarray, percent: float) -> float | None:
    """The percentile of samples of any shape; None where they are too few to tell it."""
    return float(np.percentile(samples, percent)) if np.size(samples) >= samples_needed(percent) else None


def why_withheld(count: int, noise: float, percent: float) -> str | None:
    """Why so many samples from so noisy a machine do not tell a percentile; None where they do.

    Args:
        count: Number of samples.
        noise: As in `Timing`.
        percent: Which percentile.
    """
    if count < samples_needed(percent):
        return f"it needs {samples_needed(percent)} samples and there are {count}"
    most = min((most for lowest, most in MOST_NOISE.items() if percent >= lowest), default=np.inf)
    return f"the machine was too noisy (noise {noise:.2f}, at most {most:g})" if noise > most else None
