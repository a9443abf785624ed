"""Closed spaces as tensors: what is made from their arrays is what is made from their compositions."""

import numpy as np
import pytest
import torch
from synthetic import space_of
from test_transitions import SPACES

from gnncompose.closed_edits import ClosedEdits
from gnncompose.closed_graphs import ClosedGraphs
from gnncompose.composition.edits import KINDS, Stop
from gnncompose.composition.enumeration import ClosedSpace, enumerate_space
from gnncompose.composition.transitions import Transitions
from gnncompose.encoding import PLACE_VALUES, CatalogFeatures, encode, encode_all
from gnncompose.evaluation.recording.files import tables_directory
from gnncompose.evaluation.recording.table import open_table
from gnncompose.packing import Context, Packer
from gnncompose.policies.gine import Gine
from gnncompose.policies.policy import seeded
from gnncompose.policies.two_stage import TwoStagePolicy
from gnncompose.pretraining.rehearsal import RehearsedTable, Rehearsing

TABLES = ["letter", "census", "series_gun_point"]


def closed(name: str):
    """A closed space and its catalog, synthetic or recorded."""
    if name in SPACES:
        space = space_of(*SPACES[name])
        return enumerate_space(space), space.catalog
    table = open_table(tables_directory() / name)
    return table.space, table.task.catalog


def sampled(space: ClosedSpace, count: int) -> np.ndarray:
    return np.random.default_rng(0).choice(len(space), min(count, len(space)), replace=False)


@pytest.mark.parametrize("name", [*SPACES, *TABLES])
@pytest.mark.parametrize("features", [CatalogFeatures.of, CatalogFeatures.traits_of])
def test_closed_graphs__are_those_of_the_compositions(name, features):
    space, catalog = closed(name)
    described, rows = features(catalog), sampled(space, 400)
    found = ClosedGraphs(space, described)(rows)
    wanted = encode_all([space.composition(int(row)) for row in rows], described)
    for given, expected in zip(found, wanted, strict=True):
        assert torch.equal(given, expected)


@pytest.mark.parametrize("name", [*SPACES, *TABLES])
def test_closed_edits__are_those_of_the_compositions(name):
    space, catalog = closed(name)
    described, transitions = CatalogFeatures.of(catalog), Transitions.of(space, catalog)
    own = ClosedEdits.of(transitions, ClosedGraphs(space, described))
    assert len(own.target) == len(transitions.target)
    for row in sampled(space, 100).tolist():
        edits = [transitions.edit(row, number) for number in transitions.of_row(row)]
        wanted = encode(space.composition(row), edits, described)
        seen = []
        for place in range(own.place_begin[row], own.place_begin[row + 1]):
            for edit in range(own.edit_begin[place], own.edit_begin[place + 1]):
                number = int(own.number[edit])
                seen.append(number)
                told = own.kind[place], own.source[place], own.consumer[place], own.operator[edit]
                names = ("edit_kind", "edit_source", "edit_consumer", "edit_operator")
                assert told == tuple(int(wanted[name][number]) for name in names)
                values = np.concatenate([own.place_values[place], own.settings[own.setting[edit]]])
                np.testing.assert_array_equal(values, wanted["edit_values"][number].numpy())
                assert own.target[edit] == transitions.target[transitions.of_row(row)[number]]
        assert sorted(seen) == list(range(len(edits)))


def test_two_stage__both_stages_give_the_probability_of_each_edit():
    table = RehearsedTable("letter")
    policy = seeded(lambda: TwoStagePolicy(Gine(16, 2)), 0)
    rehearsal = table.begin(Rehearsing(environments=40), np.random.default_rng(1), condition=0)
    rows = rehearsal.env.rows.astype(np.int64)
    (graphs, which), left = table.encode(rows), np.linspace(0, 1, len(rows))
    context = rehearsal.context(rows, left)
    numbers, places = table.places(rows, graphs, which, np.ones(len(rows), dtype=bool))
    transitions = rehearsal.env.transitions
    packer = Packer()
    for row in rows.tolist():
        edits = [transitions.edit(row, number) for number in transitions.of_row(row)]
        packer.add(encode(transitions.space.composition(row), [*edits, Stop()], table.traits))
    packed = packer.pack(range(len(rows)), [Context(*told) for told in context.tolist()])
    with torch.no_grad():
        whole = policy(packed, table.traits.operators).split(torch.bincount(packed.edit_graph).tolist())
        hidden, chances = policy.places(policy.see(graphs, context, which=which), places)
        seen = [set[int]() for _ in rows]
        offered, offers = table.offers(numbers)
        further = policy.offers(hidden, offers, table.traits.operators)
        for place, (episode, column) in enumerate(zip(places.graph.tolist(), places.number.tolist(), strict=True)):
            for offer in np.flatnonzero(offers.there[place].numpy()).tolist():
                number = len(whole[episode]) - 1 if numbers[place] < 0 else int(offered[place, offer])
                own = chances[episode, column] + further[place, offer]
                torch.testing.assert_close(own, whole[episode][number], atol=1e-5, rtol=1e-4)
                seen[episode].add(number)
    assert [len(edits) for edits in seen] == [len(scores) for scores in whole]
    assert all(abs(float(scores.exp().sum()) - 1.0) < 1e-4 for scores in whole)
    assert int(places.kind[-1]) == KINDS.index(Stop)
    assert places.values.shape[-1] == PLACE_VALUES
