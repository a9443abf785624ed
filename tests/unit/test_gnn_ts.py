"""The flagship's decisions: what it opens with, where it looks, and what it makes of old trials."""

import numpy as np
import pytest
import torch
from synthetic import (
    TINY_GAINS,
    FakeEvaluator,
    large_space,
    reward_of,
    space_of,
)

from gnncompose.agents.agent import search
from gnncompose.agents.candidates import Candidates
from gnncompose.agents.gnn_ts import GNNThompson, climbed
from gnncompose.composition.edits import Limits
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.evaluation import Budget
from gnncompose.policies.gine import Gine
from gnncompose.policies.policy import seeded
from gnncompose.policies.surrogate import (
    DeepKernel,
    kernel_to_checkpoint,
)

RECIPE = Gine(8, 1)


@pytest.fixture
def checkpoint(tmp_path):
    """The file of a surrogate."""
    path = tmp_path / "surrogate.pt"
    torch.save(kernel_to_checkpoint(seeded(lambda: DeepKernel(RECIPE), 0)), path)
    return str(path)


def test_gnn_ts__looks_around_a_share_of_its_trials(monkeypatch):
    told = []

    class SpiedCandidates(Candidates):
        def __call__(self, trials, incumbents):
            told.append(incumbents)
            return super().__call__(trials, incumbents)

    monkeypatch.setattr("gnncompose.agents.gnn_ts.Candidates", SpiedCandidates)
    budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, 12)
    search(GNNThompson(RECIPE, opening=2, elite=0.25), large_space(), budget, np.random.default_rng(0))
    assert told == [1, 1, 1, 2, 2, 2, 2, 2, 3, 3]


def test_gnn_ts__opens_with_single_models():
    space = large_space()
    singles = {single.id for single in space.single_models()}
    for opening in (0, 3, 100):
        budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, len(singles) + 3)
        search(GNNThompson(RECIPE, opening=opening), space, budget, np.random.default_rng(0))
        is_single = [trial.composition.id in singles for trial in budget.trials]
        first = min(1 + opening, len(singles))
        assert all(is_single[:first])
        assert not any(is_single[first : first + 3])


def test_climbed__goes_on_to_what_is_worth_more_and_was_not_tried():
    space = large_space()

    def worth_of(compositions):
        return np.array([float(len(composition.nodes)) for composition in compositions])

    first = climbed([space.start], worth_of, 0, space, {space.start.id})
    assert first.id == space.start.id
    second = climbed([space.start], worth_of, 1, space, {space.start.id})
    assert second.id in {successor.id for _, successor in space.successors(space.start)}
    third = climbed([space.start], worth_of, 2, space, {space.start.id})
    assert len(third.nodes) > len(second.nodes) > len(first.nodes)
    assert climbed([space.start], worth_of, 1, space, {second.id}).id != second.id
    assert climbed([third], lambda all_: -worth_of(all_) - 10, 3, space, ()).id != third.id
    assert climbed([third], lambda all_: np.zeros(len(all_)), 3, space, ()).id == third.id


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("helps", [False, True])
def test_gnn_ts__looks_beyond_where_it_is_trained_and_nothing_beats_the_start(trained, helps, monkeypatch, checkpoint):
    steps = []

    def spied(pool, worth_of, climbs, space, tried):
        steps.append(climbs)
        return climbed(pool, worth_of, climbs, space, tried)

    monkeypatch.setattr("gnncompose.agents.gnn_ts.climbed", spied)
    agent = GNNThompson(RECIPE, checkpoint=checkpoint if trained else None, opening=1, climbs=2)

    def reward(evaluation):
        return evaluation.score if helps else 0.0

    budget = Budget(FakeEvaluator(TINY_GAINS), reward, 12)
    search(agent, large_space(), budget, np.random.default_rng(0))
    rewards = [trial.reward for trial in budget.trials]
    beaten = [max(rewards[: count + 1]) > rewards[0] for count in range(len(rewards) - 1)]
    assert any(beaten) == helps
    assert steps[: len(beaten)] == [
        2 if trained and count > 0 and not better else 0 for count, better in enumerate(beaten)
    ]


def test_gnn_ts__opens_with_fewer_models_where_it_is_trained(checkpoint):
    made = ((None, None), (checkpoint, None), (checkpoint, 0))
    assert [GNNThompson(RECIPE, checkpoint=file, opening=opening).opening for file, opening in made] == [5, 1, 0]


def test_gnn_ts__needs_no_opening_where_it_recalls_old_trials():
    space, asked = large_space(), {}
    budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, 60)
    search(GNNThompson(RECIPE), space, budget, np.random.default_rng(0))
    for opening in (0, 5):
        fresh = Budget(FakeEvaluator(TINY_GAINS), reward_of, 6)
        agent = GNNThompson(RECIPE, opening=opening)
        agent.recall(budget.trials)
        search(agent, space, fresh, np.random.default_rng(1))
        asked[opening] = [trial.composition.id for trial in fresh.trials]
    assert asked[0] == asked[5]


def test_gnn_ts__evaluates_the_best_of_old_trials_early_where_nothing_changed():
    space = large_space()
    budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, 60)
    best = search(GNNThompson(RECIPE), space, budget, np.random.default_rng(0))
    found = {}
    for old in ((), tuple(budget.trials)):
        fresh = Budget(FakeEvaluator(TINY_GAINS), reward_of, 4)
        agent = GNNThompson(RECIPE)
        agent.recall(old)
        found[len(old)] = search(agent, space, fresh, np.random.default_rng(1)).reward
    assert found[60] > best.reward - 0.03 > found[0]


def test_gnn_ts__leaves_old_trials_of_operators_that_are_gone():
    space = large_space()
    budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, 30)
    search(GNNThompson(RECIPE), space, budget, np.random.default_rng(0))
    start = space.start.root.operator.name
    operators = [o for o in space.catalog.operators if o.name in (start, "m5", "t1", "mean")]
    small = space_of(operators, Limits())
    agent = GNNThompson(RECIPE)
    agent.recall(budget.trials)
    fresh = Budget(FakeEvaluator(TINY_GAINS), reward_of, 8)
    search(agent, small, fresh, np.random.default_rng(1))
    assert all(node.operator in operators for trial in fresh.trials for node in trial.composition.nodes)


def test_gnn_ts__refuses_an_unknown_acquisition():
    with pytest.raises(GnncomposeError, match="acquisition=greedy: is none of"):
        GNNThompson(RECIPE, acquisition="greedy")
