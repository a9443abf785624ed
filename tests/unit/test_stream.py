"""Streams: how states give way to one another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnncompose.adaptation.stream import Gradual, Mixed, Recurring, Sudden, states_of
from gnncompose.errors import TaskError
from gnncompose.tasks.task import Scenario, Step

WEATHER = Scenario("weather", (Step("clean", 6), Step("fog", 4), Step("rain", 5), Step("clean", 3)))
CHANGES = [Sudden(), Gradual(over=3), Recurring(turns=4), Mixed()]


@pytest.mark.parametrize("change", CHANGES)
def test_shares__are_those_of_one_row(change):
    shares, changes = change.shares(WEATHER)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    assert shares.shape[1] == len(states_of(WEATHER)) == 3
    assert (shares >= 0).all()
    for row in range(1, len(shares)):
        if any(shares[row] != shares[row - 1]):
            assert any(change <= row for change in changes)


def test_sudden__is_as_the_scenario_has_it():
    shares, changes = Sudden().shares(WEATHER)
    assert shares.argmax(axis=1).tolist() == [0] * 6 + [1] * 4 + [2] * 5 + [0] * 3
    assert changes == (6, 10, 15)


def test_gradual__goes_over_bit_by_bit():
    shares, _ = Gradual(over=4).shares(WEATHER)
    np.testing.assert_allclose(shares[5:11, 1], [0.0, 0.25, 0.5, 0.75, 1.0, 0.75])


def test_recurring__comes_back():
    shares, changes = Recurring(turns=3).shares(WEATHER)
    assert shares.argmax(axis=1).tolist() == [0] * 6 + [1] * 6 + [0] * 6
    assert changes == (6, 12)
    with pytest.raises(TaskError, match="nothing can recur"):
        Recurring().shares(Scenario.of("still", 3, ["clean"]))


def test_mixed__has_all_states_at_once():
    shares, changes = Mixed().shares(WEATHER)
    np.testing.assert_allclose(shares[6:], 1 / 3)
    assert changes == (6,)


@given(st.integers(1, 50), st.integers(1, 80))
def test_gradual__never_leaves_the_shares(rows, over):
    shares, _ = Gradual(over).shares(Scenario.of("any", rows, ["a", "b", "c"]))
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    assert shares.min() >= 0
