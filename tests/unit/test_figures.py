"""Figures of what was served: sums of each second, percentiles, and what is forgotten."""

import math
import sys
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnncompose.deployment.figures import BUCKETS, GROWTH, KEPT_S, LARGEST_ERROR, SHORTEST_S, Figures, confidence


@dataclass
class Clock:
    now: float = 1000.25

    def __call__(self) -> float:
        return self.now


LATENCIES = st.floats(SHORTEST_S, 100.0)
STATUSES = {429: "turned_away", 503: "turned_away", 500: "failed", 502: "failed", 400: "mistaken", 422: "mistaken"}


def percentile(seconds: list[float], percent: float) -> float:
    """The nearest rank, in milliseconds."""
    return 1e3 * sorted(seconds)[math.ceil(percent / 100 * len(seconds)) - 1]


@given(st.lists(st.lists(st.tuples(LATENCIES, st.integers(1, 9), st.floats(0.1, 1.0)), max_size=30), max_size=8))
def test_told__sums_each_second_by_itself(seconds: list[list[tuple[float, int, float]]]):
    clock = Clock()
    figures = Figures(clock)
    for answers in seconds:
        for taken_s, rows, sure in answers:
            figures.answered(taken_s, rows, 3, rows * sure)
        clock.now += 1
    told = figures.told()
    assert told["seconds"] == len(seconds)
    assert told["requests"] == [len(answers) for answers in seconds]
    assert told["rows"] == [sum(rows for _, rows, _ in answers) for answers in seconds]
    assert told["version"] == [3 if answers else None for answers in seconds]
    for second, answers in enumerate(seconds):
        if not answers:
            assert told["latency_ms_p50"][second] is told["confidence"][second] is told["accuracy"][second] is None
            continue
        mean = sum(rows * sure for _, rows, sure in answers) / told["rows"][second]
        assert told["confidence"][second] == pytest.approx(mean, rel=1e-3)
        for percent in (50, 95):
            due = percentile([taken_s for taken_s, _, _ in answers], percent)
            assert told[f"latency_ms_p{percent}"][second] == pytest.approx(due, rel=LARGEST_ERROR + 1e-3)


@given(st.lists(LATENCIES, min_size=1, max_size=200))
def test_told__takes_the_last_minute_together(seconds: list[float]):
    clock = Clock()
    figures = Figures(clock)
    for index, taken_s in enumerate(seconds):
        figures.answered(taken_s, 2, 1)
        clock.now += index % 5 == 4  # at most 40 seconds in all
    clock.now += 1
    latest = figures.told()["latest"]
    assert latest["requests_per_s"] == pytest.approx(len(seconds) / latest["seconds"], rel=1e-3)
    assert latest["rows_per_s"] == pytest.approx(2 * len(seconds) / latest["seconds"], rel=1e-3)
    for percent in (50, 95):
        due = percentile(seconds, percent)
        assert latest[f"latency_ms_p{percent}"] == pytest.approx(due, rel=LARGEST_ERROR + 1e-3)


@given(st.lists(st.sampled_from(sorted(STATUSES)), max_size=30))
def test_refused__tells_apart_who_is_to_blame(statuses: list[int]):
    clock = Clock()
    figures = Figures(clock)
    for status in statuses:
        figures.refused(status)
    clock.now += 1
    told = figures.told()
    assert told["requests"] == [len(statuses)]
    assert told["latency_ms_p50"] == [None]
    for kind in ("failed", "turned_away", "mistaken"):
        due = sum(STATUSES[status] == kind for status in statuses)
        assert told[kind] == [due]
        assert told["latest"][kind] == due


@given(st.lists(st.integers(1, 400), min_size=1, max_size=20))
def test_told__forgets_what_is_older_than_ten_minutes(pauses_s: list[int]):
    clock = Clock()
    figures, at = Figures(clock), []
    for pause_s in pauses_s:
        figures.answered(0.001, 1, 1)
        at.append(int(clock.now))
        clock.now += pause_s
    told, now = figures.told(), int(clock.now)
    assert told["seconds"] == min(now - at[0], KEPT_S)
    due = {now - second for second in at if now - second <= KEPT_S}
    assert {told["seconds"] - place for place, count in enumerate(told["requests"]) if count} == due


def test_told__leaves_out_the_second_that_runs():
    clock = Clock()
    figures = Figures(clock)
    figures.answered(0.001, 1, 1)
    assert figures.told()["seconds"] == 0
    assert figures.told()["latest"]["requests_per_s"] is None


def test_told__names_the_version_that_answered_most_rows():
    clock = Clock()
    figures = Figures(clock)
    for rows, version in ((3, 7), (2, 8), (2, 8), (1, 9)):
        figures.answered(0.001, rows, version)
    clock.now += 1
    assert figures.told()["version"] == [8]


def test_labels__count_in_the_second_in_which_they_come():
    clock = Clock()
    figures = Figures(clock)
    clock.now += 1
    figures.tell_labels(3, 4)
    figures.tell_labels(1, 4)
    clock.now += 1
    told = figures.told()
    assert told["accuracy"] == [None, 0.5]
    assert (told["latest"]["accuracy"], told["latest"]["labelled"]) == (0.5, 8)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, SHORTEST_S / 2, 1e9])
def test_answered__takes_latencies_beyond_its_histogram_as_its_ends(seconds: float):
    clock = Clock()
    figures = Figures(clock)
    figures.answered(seconds, 1, 1)
    clock.now += 1
    (told,) = figures.told()["latency_ms_p95"]
    end_s = SHORTEST_S if seconds < 1 else SHORTEST_S * GROWTH**BUCKETS
    assert told == pytest.approx(1e3 * end_s, rel=LARGEST_ERROR + 1e-3)


def test_figures__grow_no_more_once_ten_minutes_are_full():
    clock = Clock()
    figures = Figures(clock)

    def size_after(seconds: int) -> int:
        for second in range(seconds):
            for version in range(3):
                figures.answered(0.001 * (1 + second % 7), 4, second // 100 + version, 3.0)
            figures.refused(429)
            clock.now += 1
        held = (*figures._seconds, *(second.times for second in figures._seconds))
        return sum(map(sys.getsizeof, (*held, *(second.rows_of for second in figures._seconds))))

    full = size_after(KEPT_S + 1)
    assert full < 2**20
    assert size_after(3 * KEPT_S) == full
    figures.refused(429)  # the second that runs takes the place of none that is told
    assert figures.told()["requests"] == [4] * KEPT_S


@pytest.fixture
def switching():
    """Threads that take turns as often as they can."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval_s)


@pytest.mark.usefixtures("switching")
def test_figures__lose_nothing_when_told_from_several_threads():
    clock = Clock()
    figures = Figures(clock)

    def tell() -> None:
        for turn in range(2000):
            figures.answered(0.001, 1, 1, 0.5)
            figures.refused(500)
            if turn % 500 == 0:
                figures.told()

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.now += 1
    told = figures.told()
    assert told["rows"] == [8000]
    assert told["failed"] == [8000]
    assert told["confidence"] == [0.5]


@given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_confidence__is_the_sum_of_the_largest(rows: int, classes: int, seed: int):
    answers = np.random.default_rng(seed).random((rows, classes), dtype=np.float32)
    assert confidence(answers) == pytest.approx(float(answers.max(axis=1).sum()), rel=1e-5)
