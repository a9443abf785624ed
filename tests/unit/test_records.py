"""The Pareto front, compositions as text without their catalog, and charts of many points."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import large_space

from gnncompose.composition.files import composition_to_json
from gnncompose.tracking.charts import GREEN, MOST_TOLD, Front, Line, Mark, curves, scatter
from gnncompose.tracking.finished import text_of
from gnncompose.tracking.pages import milliseconds
from gnncompose.tracking.records import front_of

FIGURES = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=30)


@given(FIGURES)
def test_front__holds_exactly_what_no_other_beats(rows: list[tuple[int, int, int]]) -> None:
    figures = np.array(rows, dtype=np.float64)
    gains = figures * [1, -1, -1]
    beaten = [any((other >= own).all() and (other > own).any() for other in gains) for own in gains]
    first = [rows.index(row) == number for number, row in enumerate(rows)]
    found = front_of(figures)
    assert sorted(found.tolist()) == [n for n in range(len(rows)) if first[n] and not beaten[n]]
    assert (np.diff(figures[found, 1]) >= 0).all()


def test_text__is_that_of_the_composition() -> None:
    space, generator = large_space(), np.random.default_rng(0)
    for _ in range(40):
        composition = space.random(generator)
        assert text_of(composition_to_json(composition)) == str(composition)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123456, "0.0123"), (123.456, "123"), (1e-5, "0.00001"), (12.34, "12.3"), (1000.0, "1000")]
)
def test_milliseconds__have_no_exponent(value: float, text: str) -> None:
    assert milliseconds(value) == text


def points(count: int) -> list[Mark]:
    draw = np.random.default_rng(0)
    return [Mark(float(draw.uniform(0.1, 9)), float(draw.uniform(0, 1)), f"<{n}>", key=str(n)) for n in range(count)]


@pytest.mark.parametrize(("count", "told"), [(50, 50), (MOST_TOLD + 1, 0)])
def test_scatter__says_what_points_are_unless_they_are_too_many(count: int, told: int) -> None:
    ahead = Mark(0.05, 0.9, "ahead", colour=GREEN, key="front")
    svg = ElementTree.fromstring(scatter(points(count), [Front([ahead])], [], ("ms", "score")))
    keys = [element.get("data-key") for element in svg.iter() if element.get("data-key")]
    assert len(keys) == told + 1
    assert keys[-1] == "front"


@pytest.mark.parametrize("latencies_ms", [(0.0, 0.0), (0.0, 3.0)])
def test_scatter__draws_what_takes_no_time(latencies_ms: tuple[float, float]) -> None:
    front = [Mark(latency_ms, 0.5, "one") for latency_ms in latencies_ms]
    svg = ElementTree.fromstring(scatter([], [Front(front)], [], ("ms", "score")))
    places = [float(circle.attrib["cx"]) for circle in svg.iter("circle") if circle.attrib["r"] == "4.2"]
    assert len(places) == 2
    assert (places[0] == places[1]) == (latencies_ms[0] == latencies_ms[1])


def test_scatter__joins_the_front_from_left_to_right() -> None:
    front = [Mark(x, y, "") for x, y in [(4, 0.9), (1, 0.2), (2, 0.6), (3, 0.5)]]
    svg = scatter([], [Front(front)], [], ("ms", "score"))
    path = re.search(r'<path d="(M[^"]+)" fill="none" stroke="#009e73"', svg)
    assert path.group(1).count("V") == 3  # three of four lie higher than all to their left, and the end of the axis


@pytest.mark.parametrize("count", [1, 12])
def test_curves__name_every_line_within_the_chart(count: int) -> None:
    lines = [Line(f"{n}: regularised_evolution, seed {n}", [0.1, 0.3 + n / 50], GREEN) for n in range(count)]
    svg = ElementTree.fromstring(curves(lines, [], "reward", budget=10))
    wide = float(svg.get("viewBox").split()[2])
    named = [e for e in svg.iter("text") if (e.text or "").endswith(tuple("0123456789")) and "seed" in e.text]
    assert len(named) == count
    assert all(float(e.get("x")) + 6.0 * len(e.text) <= wide for e in named)
