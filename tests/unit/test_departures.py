import numpy as np
import pytest

from gnncompose.tasks.factory.departures import NOTICE_MINUTES, clock_minutes, describe, recent_delays

CODES = {"carrier": {"AA": 0, "UA": 1}, "origin": {"EWR": 0, "JFK": 1}, "dest": {"LAX": 0}}


def year_of(flights: int, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    departs = draw.integers(6 * 60, 22 * 60, flights)
    delay = draw.exponential(20, flights).round() - 5
    delay[draw.random(flights) < 0.05] = np.nan
    return {
        "day_of_year": draw.integers(0, 3, flights).astype(float),
        "weekday": draw.integers(0, 7, flights).astype(float),
        "sched_dep_time": (departs // 60 * 100 + departs % 60).astype(float),
        "sched_arr_time": np.full(flights, 2359.0),
        "distance": np.full(flights, 2475.0),
        "dep_delay": delay,
        "arr_delay": delay + 3,
        "carrier": draw.choice(["AA", "UA"], flights),
        "origin": draw.choice(["EWR", "JFK"], flights),
        "dest": np.full(flights, "LAX"),
    }


def test_clock_minutes__reads_hours_and_minutes() -> None:
    np.testing.assert_array_equal(clock_minutes(np.array([0, 59, 100, 1345, 2359])), [0, 59, 60, 825, 1439])


def test_recent_delays__agrees_with_a_plain_loop() -> None:
    draw = np.random.default_rng(1)
    groups, scheduled = draw.integers(0, 3, 300), draw.integers(0, 2000, 300).astype(float)
    delays = draw.normal(10, 20, 300)
    delays[::17] = np.nan
    mean, count = recent_delays(groups, scheduled, scheduled + delays, delays, 240)
    for i in range(300):
        moment = scheduled[i] - NOTICE_MINUTES
        departed = scheduled + delays
        seen = (groups == groups[i]) & (departed < moment) & (departed >= moment - 240)
        assert count[i] == seen.sum()
        assert mean[i] == pytest.approx(delays[seen].mean() if seen.any() else 0.0)


def test_describe__knows_nothing_of_what_happens_after_the_moment_of_prediction() -> None:
    flights = year_of(400)
    before = describe(flights, CODES)
    scheduled = flights["day_of_year"] * 1440 + clock_minutes(flights["sched_dep_time"])
    for i in range(0, 400, 40):
        changed = {name: values.copy() for name, values in flights.items()}
        later = ~(scheduled + flights["dep_delay"] < scheduled[i] - NOTICE_MINUTES)
        changed["dep_delay"][later] += 500
        changed["arr_delay"][:] = 999
        after = describe(changed, CODES)
        for name in before.keys() - {"late"}:
            assert after[name][i] == before[name][i], name


def test_describe__says_what_became_of_a_flight() -> None:
    flights = year_of(50)
    flights["arr_delay"][:3] = [15, 16, np.nan]
    np.testing.assert_array_equal(describe(flights, CODES)["late"][:3], [0, 1, np.nan])
