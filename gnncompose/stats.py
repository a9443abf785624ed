"""Statistics of agent comparisons: interquartile means, bootstrap intervals, regret, evaluations to a target, ranks.

Nothing here draws from a global generator, and nothing knows of tasks or files: arrays in, arrays out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range, trim_mean

Statistic = Callable[[np.ndarray], np.ndarray]
REACHED = 1e-9  # share of the way to the optimum that rounding may hide


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half of the values along the last axis.

    Source: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021.

    Args:
        values: float[..., value].

    Returns:
        float[...].
    """
    return np.asarray(trim_mean(np.asarray(values, dtype=float), 0.25, axis=-1))


def censored_median(values: np.ndarray) -> np.ndarray:
    """The smallest time by which half of the runs were done, along the last axis; infinite where fewer ever were.

    A run that never got there is censored at its budget and stands as infinity. As all runs of a comparison share one
    budget, this is the median of the Kaplan-Meier estimate.

    Source: Kaplan and Meier, Nonparametric Estimation from Incomplete Observations, JASA 1958.

    Args:
        values: float[..., run].

    Returns:
        float[...].
    """
    times = np.asarray(values, dtype=float)
    middle = (times.shape[-1] - 1) // 2
    return np.partition(times, middle, axis=-1)[..., middle]


def bootstrap_interval(
    values: np.ndarray,
    generator: np.random.Generator,
    statistic: Statistic = interquartile_mean,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of a statistic by the stratified bootstrap: seeds are redrawn within each stratum.

    Each stratum redraws its own seeds. All points of a curve share the draws, as they belong to the same runs.

    Source: Agarwal et al., NeurIPS 2021.

    Args:
        values: float[seed, stratum, *point]; a stratum is a task in a condition. One axis means one stratum.
        generator: Draws the seeds.
        statistic: Maps float[resample, value] to float[resample]; a resample pools its strata.
        resamples: How many resamples to draw.
        confidence: Share of the resamples between the bounds.

    Returns:
        Lower and upper bound, each float[*point].

    Raises:
        ValueError: There are fewer than two seeds.
    """
    table = np.asarray(values, dtype=float)
    table = table[:, None] if table.ndim == 1 else table
    seeds, strata, *points = table.shape
    if seeds < 2:
        raise ValueError(f"an interval needs two seeds or more, not {seeds}; run more seeds")
    rows = generator.integers(seeds, size=(resamples, seeds, strata))
    # A curve that stays where it is, is the same point many times over.
    distinct, place = np.unique(table.reshape(seeds * strata, -1), axis=1, return_inverse=True)
    flat = distinct.reshape(seeds, strata, -1)
    tail = 50 * (1 - confidence)
    bounds = np.empty((2, flat.shape[-1]))
    for point in range(flat.shape[-1]):  # one at a time: all resamples of all points would take gigabytes
        found = statistic(flat[rows, np.arange(strata), point].reshape(resamples, seeds * strata))
        # No interpolation, which could not be had between infinities.
        bounds[:, point] = np.percentile(found, [tail, 100 - tail], method="inverted_cdf")
    low, high = bounds[:, place.reshape(-1)].reshape(2, *points)
    return low, high


def best_at(evaluations: np.ndarray, best: np.ndarray, marks: Sequence[int] | np.ndarray) -> np.ndarray:
    """The best reward so far after each mark, from the steps of a run's curve.

    Args:
        evaluations: int[step]: when the best rose, ascending.
        best: float[step]: what it rose to.
        marks: int[mark]: numbers of evaluations.

    Returns:
        float[mark]; minus infinity before the first step.
    """
    step = np.searchsorted(np.asarray(evaluations), np.asarray(marks), side="right") - 1
    return np.where(step >= 0, np.asarray(best, dtype=float)[step], -np.inf)


def normalised_regret(best: np.ndarray, start: float, optimum: float) -> np.ndarray:
    """Share of the way from the start's reward to the optimum's that is still to go.

    0 at the optimum, 1 at the start, and no other value of a reward's shift or scale; 0 where the start is optimal.

    Args:
        best: float[...]: best rewards so far.
        start: Reward of the composition that searches begin with.
        optimum: Reward of the best composition of the space.

    Raises:
        ValueError: A reward lies above the optimum, which thus is none.
    """
    way, left = optimum - start, optimum - np.asarray(best, dtype=float)
    if np.min(left, initial=0.0) < -REACHED * max(abs(way), 1.0):
        raise ValueError(f"reward {np.max(best)!r} lies above the optimum {optimum!r}; this optimum is none")
    return np.maximum(left, 0.0) / way if way > 0 else np.zeros_like(left)


def evaluations_to(evaluations: np.ndarray, regrets: np.ndarray, share: float) -> float:
    """How many evaluations it took to come `share` of the way to the optimum; infinite where it was never reached.

    Args:
        evaluations: int[step]: when the best rose, ascending.
        regrets: float[step]: normalised regret from then on.
        share: Of the way from the start to the optimum; 1 for the optimum itself.
    """
    reached = np.flatnonzero(np.asarray(regrets) <= 1 - share + REACHED)
    return float(np.asarray(evaluations)[reached[0]]) if reached.size else np.inf


def mean_ranks(losses: np.ndarray) -> np.ndarray:
    """Mean rank of each agent over the cases; 1 is best, equals share the mean of their ranks.

    Args:
        losses: float[agent, case]; the smaller the better.

    Returns:
        float[agent].
    """
    return rankdata(losses, axis=0).mean(axis=1)


def critical_difference(agents: int, cases: int, significance: float = 0.05) -> float:
    """By how much two mean ranks must differ to be told apart: the Nemenyi test of all pairs.

    Source: Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 2006, section 3.2.2:
    q √(k (k + 1) / 6N), with q the quantile of the studentized range for k agents and infinite degrees of freedom,
    divided by √2.

    Args:
        agents: How many are compared, k.
        cases: On how many tasks in conditions, N.
        significance: Probability that agents of which none is better are told apart.
    """
    quantile = float(studentized_range.ppf(1 - significance, agents, np.inf)) / np.sqrt(2)
    return quantile * float(np.sqrt(agents * (agents + 1) / (6 * cases)))


def friedman(losses: np.ndarray) -> float | None:
    """P-value of the Friedman test that all agents rank alike; None for fewer than three, or where all are equal.

    Source: Friedman, The Use of Ranks to Avoid the Assumption of Normality, JASA 1937; Demšar, JMLR 2006.

    Args:
        losses: float[agent, case]; the smaller the better.
    """
    if len(losses) < 3 or np.all(losses == losses[:1]):
        return None
    return float(friedmanchisquare(*losses).pvalue)


def alike(ranks: np.ndarray, difference: float) -> list[tuple[int, ...]]:
    """The largest groups of agents whose mean ranks lie within the critical difference.

    Args:
        ranks: float[agent]: mean ranks.
        difference: The critical difference.

    Returns:
        Groups of two or more agents, each and all from the best rank to the worst.
    """
    order = np.argsort(ranks, kind="stable")
    ordered = np.asarray(ranks)[order]
    groups: list[tuple[int, ...]] = []
    end = 0
    for first in range(len(order)):
        last = int(np.searchsorted(ordered, ordered[first] + difference, side="left"))
        if last - first > 1 and last > end:
            groups.append(tuple(int(agent) for agent in order[first:last]))
            end = last
    return groups
