"""Streams: how states give way to one another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import CASCADE, model, space_of, transform

from gnncompose.adaptation.circumstances import USUAL, Circumstances
from gnncompose.adaptation.stream import Gradual, Mixed, Recurring, Sudden, states_of
from gnncompose.adaptation.worlds import LoadBurst, NewModel, PriceRise, WithdrawnModel
from gnncompose.composition.tree import Composition, Input, make_node
from gnncompose.errors import CatalogError, TaskError
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


M1, M2 = model("m1"), model("m2")
SPACE = space_of([transform("a"), M1, M2, CASCADE])
BEST = Composition(make_node(CASCADE, [make_node(m, [Input(SPACE.input_type)]) for m in (M1, M2)]))


@pytest.mark.parametrize(
    ("change", "turns"),
    [
        (NewModel(), ((0, Circumstances(withheld=("m2",))), (6, USUAL))),
        (NewModel(operator="a"), ((0, Circumstances(withheld=("a",))), (6, USUAL))),
        (WithdrawnModel(), ((0, USUAL), (6, Circumstances(withheld=("m2",))))),
        (PriceRise(times=3.0), ((0, USUAL), (6, Circumstances(price=3.0)))),
        (LoadBurst(utilisation=0.5), ((0, USUAL), (6, Circumstances(load="server:250")), (12, USUAL))),
    ],
)
def test_world_changes__leave_the_data_alone(change, turns):
    scenario = change.scenario(WEATHER)
    assert change.circumstances(scenario, BEST, 2.0) == turns
    shares, changes = change.shares(scenario)
    assert shares.shape == (6 * len(turns), 1)
    assert (changes, states_of(scenario)) == ((), ("clean",))


@pytest.mark.parametrize("change", CHANGES)
def test_data_changes__leave_all_around_the_data_alone(change):
    scenario = change.scenario(WEATHER)
    assert scenario == WEATHER
    assert change.circumstances(scenario, BEST, 2.0) == ((0, USUAL),)


def test_world_changes__happen_in_the_condition_that_is_asked_for():
    assert states_of(NewModel(condition="rain").scenario(WEATHER)) == ("rain",)


def test_world_changes__refuse_what_makes_no_sense():
    with pytest.raises(TaskError, match=r"change\.times=0"):
        PriceRise(times=0.0)
    with pytest.raises(TaskError, match=r"change\.utilisation=1"):
        LoadBurst(utilisation=1.0)
    with pytest.raises(CatalogError, match='no operator "m7"'):
        Circumstances(withheld=("m7",)).catalog(SPACE.catalog)


@pytest.mark.parametrize(
    ("now", "before", "told"),
    [
        (Circumstances(("m1", "m2")), Circumstances(("m2", "m3")), "m1 was withdrawn; m3 is new"),
        (Circumstances(price=3.0), Circumstances(price=1.5), "resources cost 2 times as much"),
        (USUAL, Circumstances(load="server:9"), "requests come as single_stream"),
    ],
)
def test_circumstances__say_what_has_changed(now, before, told):
    assert now.news(before) == told
