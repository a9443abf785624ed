"""Edits as arrays are the edits of compositions, one by one and in the same order."""

import numpy as np
import pytest
from synthetic import space_of
from test_enumeration import SPACES

from gnncompose.agents.agent import search
from gnncompose.agents.local_search import LocalSearch
from gnncompose.composition.enumeration import enumerate_space
from gnncompose.composition.space import Space
from gnncompose.composition.transitions import ClosedSearchSpace, Transitions
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.evaluation import Budget
from gnncompose.evaluation.recording.files import tables_directory
from gnncompose.evaluation.recording.table import open_table
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.reward import WeightedSum
from gnncompose.tasks.task import World


@pytest.mark.parametrize(("operators", "limits"), SPACES.values(), ids=SPACES)
def test_transitions__are_the_edits_of_every_composition(operators, limits):
    space = space_of(operators, limits)
    written = enumerate_space(space)
    transitions = Transitions.of(written, space.catalog)
    rows = {written.composition(row).id: row for row in range(len(written))}
    for row in range(len(written)):
        listed = [(transitions.edit(row, n), int(transitions.target[n])) for n in transitions.of_row(row)]
        assert listed == [(edit, rows[after.id]) for edit, after in space.successors(written.composition(row))]


@pytest.mark.parametrize("name", ["digits", "letter", "census", "series_gun_point"])
def test_transitions__of_recorded_tables_are_those_that_were_walked(name):
    table = open_table(tables_directory() / name)
    transitions = Transitions.of(table.space, table.task.catalog)
    assert len(transitions.target) == table.manifest["closure"]["edits"]
    plain = Space(table.task.catalog, table.task.limits, table.task.input.type, table.task.output.type)
    for row in np.random.default_rng(0).choice(len(table), 100, replace=False).tolist():
        listed = [(transitions.edit(row, n), int(transitions.target[n])) for n in transitions.of_row(row)]
        successors = plain.successors(table.space.composition(row))
        assert listed == [(edit, table.row(after)) for edit, after in successors]


def test_closed_search_space__is_searched_as_any_other():
    task, world, prices = recorded_task("digits"), World("mixed"), load_prices()
    evaluator, reward = TableEvaluator(task, world, prices), WeightedSum().bind(task.catalog, prices, world)
    table = evaluator.table
    plain = Space(table.task.catalog, table.task.limits, table.task.input.type, table.task.output.type)
    curves = []
    for space in (table.task.space, plain):
        budget = Budget(evaluator, reward, 60)
        search(LocalSearch(), space, budget, np.random.default_rng(0))
        curves.append([(trial.composition.id, trial.reward) for trial in budget.trials])
    assert isinstance(table.task.space, ClosedSearchSpace)
    assert curves[0] == curves[1]


def test_closed_search_space__draws_each_edit_alike():
    space = open_table(tables_directory() / "series_gun_point").task.space
    generator = np.random.default_rng(0)
    ends = [after.id for _, after in space.successors(space.start)]
    drawn = [space.walk(space.start, 1, generator).id for _ in range(200 * len(ends))]
    counts = np.array([drawn.count(end) for end in ends])
    assert counts.sum() == len(drawn)
    assert np.abs(counts - 200).max() < 5 * 200**0.5
