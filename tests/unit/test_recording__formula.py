"""The formula of recorded tables, against the executor's own rule of what runs where."""

import numpy as np
import pytest
from synthetic import CASCADE, MEAN, VOTE, model, space_of, transform

from gnncompose.composition.edits import Limits
from gnncompose.composition.enumeration import ClosedSpace, enumerate_space
from gnncompose.evaluation.recording.formula import Structure, Weights, fit, weighted_median
from gnncompose.execution.regions import find_regions

TIMED = 48
ROUTER = model("router", kind="router", outputs=[{"name": "which", "type": "probs float32[N,3]"}])
OPERATORS = [transform("a"), transform("b"), model("m1"), model("m2"), model("m3"), MEAN, VOTE, CASCADE, ROUTER]


@pytest.fixture(scope="module")
def space() -> ClosedSpace:
    return enumerate_space(space_of(OPERATORS, Limits(5, 4, 3, 2, 1)))


@pytest.fixture(scope="module")
def times_ms(space: ClosedSpace) -> np.ndarray:
    own = np.random.default_rng(5).uniform(0.005, 0.1, len(space.expressions.all))
    found = np.zeros(len(own))
    for number in range(1, len(own)):
        found[number] = found[space.expressions.parents[number]] + own[number]
    return found


def reached(space: ClosedSpace) -> np.ndarray:
    """Row counts as they may be: all in ensembles, fewer and fewer in cascades, a part of the rows in routers."""
    draw, found = np.random.default_rng(6), np.zeros((len(space), 2), dtype=np.uint8)
    for row in range(len(space)):
        way, used = space.ways[space.way[row]], np.count_nonzero(space.branches[row])
        if way is None:
            continue
        first = int(draw.integers(TIMED + 1))
        most = first if way.operator.kind == "cascade" else TIMED - first
        second = int(draw.integers(most + 1))
        found[row] = (first, second) if way.operator.kind in ("cascade", "router") else (TIMED, TIMED)
        found[row, used - 1 :] = 0
    return found


def by_regions(space: ClosedSpace, row: int, shares: np.ndarray, times_ms: np.ndarray) -> float:
    """Sum over the nodes of a composition of their step, each for the share of its region."""
    composition, below = space.composition(row), space.expressions
    numbers = {node.id: number for number, node in enumerate(below.all)}
    regions, total = find_regions(composition), 0.0
    for node in composition.nodes:
        region = regions[node.id]
        if node.id in numbers:
            step = times_ms[numbers[node.id]] - times_ms[below.parents[numbers[node.id]]]
            port = region[-1][1] if region else 0
            if region and composition.root.operator.kind == "router":
                port -= 1
            total += step * (shares[port] if region else 1.0)
    if space.route[row]:
        total += times_ms[space.route[row]] - times_ms[below.parents[space.route[row]]]
    return total


def test_structure__runs_what_the_executor_runs(space: ClosedSpace, times_ms: np.ndarray) -> None:
    structure = Structure(space)
    shares = structure.shares(reached(space), TIMED)
    nothing = Weights(
        0.0,
        dict.fromkeys(("mean", "vote", "cascade", "router"), 0.0),
        dict.fromkeys(("mean", "vote", "cascade", "router"), 0.0),
        {},
    )
    told = structure.milliseconds(times_ms, shares, nothing)
    for row in np.random.default_rng(7).choice(len(space), 400, replace=False):
        assert told[row] == pytest.approx(by_regions(space, int(row), shares[row], times_ms)), space.composition(row)


def test_structure__levels_make_up_the_mean(space: ClosedSpace, times_ms: np.ndarray) -> None:
    structure = Structure(space)
    shares = structure.shares(reached(space), TIMED)
    names = ("mean", "vote", "cascade", "router")
    weights = Weights(0.002, dict.fromkeys(names, 0.003), dict.fromkeys(names, 0.001), {"m1": 0.1})
    levels = structure.levels(shares)
    mean = sum(often * structure.milliseconds(times_ms, taken, weights) for often, taken in levels)
    assert sum(often for often, _ in levels) == pytest.approx(1.0)
    assert mean == pytest.approx(structure.milliseconds(times_ms, shares, weights))


def test_structure__a_chain_takes_what_was_measured(space: ClosedSpace, times_ms: np.ndarray) -> None:
    chains = np.flatnonzero(space.way == 0)
    structure = Structure(space, chains)
    names = ("mean", "vote", "cascade", "router")
    weights = Weights(0.5, dict.fromkeys(names, 0.5), dict.fromkeys(names, 0.5), {"m1": 0.5, "a": 0.5})
    told = structure.milliseconds(times_ms, structure.shares(np.zeros((len(chains), 2)), TIMED), weights)
    assert told == pytest.approx(times_ms[space.branches[chains, 0]])


def test_fit__finds_what_was_planted(space: ClosedSpace, times_ms: np.ndarray) -> None:
    structure = Structure(space)
    shares = structure.shares(reached(space), TIMED)
    planted = Weights(
        request=0.002,
        joint={"mean": 0.005, "vote": 0.012, "cascade": 0.003, "router": 0.004},
        further={"mean": 0.001, "vote": 0.006, "cascade": 0.002, "router": 0.0},
        context={"a": 0.02, "b": 0.0, "m1": 0.05, "m2": 0.1, "m3": 0.0, "router": 0.0},
    )
    measured = structure.milliseconds(times_ms, shares, planted)
    found = fit(structure, np.broadcast_to(times_ms, (len(space), len(times_ms))), shares, measured)
    assert structure.milliseconds(times_ms, shares, found) == pytest.approx(measured, rel=2e-3)
    assert found.context["m2"] == pytest.approx(0.1, abs=0.02)
    assert found.joint["vote"] == pytest.approx(0.012, abs=0.001)


def test_weighted_median__is_the_level_that_half_of_the_rows_do_not_exceed() -> None:
    values = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    shares = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.5, 0.0, 0.5]])
    assert weighted_median(values, shares).tolist() == [2.0, 3.0, 1.0]
