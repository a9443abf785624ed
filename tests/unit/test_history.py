"""What a policy is told of the evaluations so far: a set, whatever the order, the number and the catalog."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import TINY_GAINS, FakeEvaluator, large_space, reward_of, tiny_space

from gnncompose.agents.a2c import A2C
from gnncompose.agents.agent import search
from gnncompose.agents.evaluations import Evaluations
from gnncompose.agents.ppo import PPO
from gnncompose.agents.reinforce import Reinforce
from gnncompose.encoding import NODE_DIM, CatalogFeatures, encode
from gnncompose.evaluation.evaluation import Budget, Trial
from gnncompose.packing import Context, History, Packer, figures_of
from gnncompose.policies.checkpoints import policy_from_checkpoint, policy_to_checkpoint
from gnncompose.policies.gine import Gine
from gnncompose.policies.policy import Critic, EditPolicy, seeded


def drawn_history(counts, evaluations: int = 6, seed: int = 0) -> History:
    draw = torch.Generator().manual_seed(seed)
    bag, figures = torch.rand(evaluations, NODE_DIM, generator=draw), torch.randn(evaluations, 4, generator=draw)
    at = torch.arange(max(counts)).repeat(len(counts), 1)
    return History(bag, figures, at, at < torch.tensor(counts).unsqueeze(1))


def judged(history: History | None, models: int = 3, count: int = 1) -> torch.Tensor:
    space = large_space(models)
    features, packer = CatalogFeatures.of(space.catalog), Packer()
    packer.add(encode(space.start, space.legal_edits(space.start), features))
    policy = seeded(lambda: EditPolicy(Gine(16, 2), history=8), 0)
    packed = packer.pack([0] * count, [Context(0.5, 0.1)] * count)
    with torch.no_grad():
        return policy(replace(packed, history=history), features.operators).reshape(count, -1)


def test_history__is_a_set():
    told = drawn_history([5])
    turned = told._replace(at=told.at.flip(1), there=told.there.flip(1))
    torch.testing.assert_close(judged(told), judged(turned))
    other = told._replace(figures=told.figures.roll(1, dims=0))
    assert not torch.allclose(judged(told), judged(other), atol=1e-4), "which figures go with which composition counts"


def test_history__each_decision_has_its_own():
    told = drawn_history([5, 0, 2])
    together = judged(told, count=3)
    torch.testing.assert_close(together[1], judged(None)[0])
    torch.testing.assert_close(together[2], judged(drawn_history([2]))[0])
    assert not torch.allclose(together[0], together[2], atol=1e-4)


@pytest.mark.parametrize("models", [1, 20])
def test_history__serves_catalogs_of_any_size(models):
    assert judged(drawn_history([4]), models).isfinite().all()


def test_figures__tell_of_failures_and_of_small_gains():
    nan = math.nan
    figures = figures_of(
        np.array([0.0, 0.01, -0.5, -1.0]), np.array([0.0, 0.02, -0.4, nan]), np.array([1, 2, 0.5, nan])
    )
    assert figures.isfinite().all()
    assert figures[0].tolist() == [0.0] * 4
    assert figures[:, 3].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert figures[1, 0] > 0.1
    assert figures[1, 2] == -figures[2, 2] > 0
    assert figures[3, 1:3].tolist() == [0.0, 0.0]


def trials(count: int) -> list[Trial]:
    budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, count)
    search(Reinforce(Gine(8, 1)), tiny_space(), budget, np.random.default_rng(0))
    return budget.trials


def test_evaluations__are_the_latest_of_those_that_were_known():
    known = Evaluations(most=3)
    for number, trial in enumerate(trials(6)):
        known.add(trial, torch.full((4, NODE_DIM), float(number)))
    told = known.before([1, 2, 6])
    for row, wanted in enumerate([{0}, {0, 1}, {3, 4, 5}]):
        assert set(told.bag[told.at[row][told.there[row]], 0].tolist()) == wanted


def test_evaluations__where_the_start_failed_tell_of_rewards_only():
    known, (start, other) = Evaluations(most=3), trials(2)
    for trial in (replace(start, evaluation=None, reward=-1.0), other):
        known.add(trial, torch.zeros(4, NODE_DIM))
    figures = known.before([2]).figures
    assert figures.isfinite().all()
    assert figures[1, 0] > 0


def test_critic__heeds_the_history():
    space, packer = tiny_space(), Packer()
    packer.add(encode(space.start, space.legal_edits(space.start), CatalogFeatures.of(space.catalog)))
    critic = seeded(lambda: Critic(Gine(16, 2), history=8), 0)
    packed = packer.pack([0], [Context(0.5, 0.1)])
    values = [critic(replace(packed, history=history)) for history in (None, drawn_history([4]))]
    assert not torch.allclose(*values, atol=1e-4)


@pytest.mark.parametrize("make", [Reinforce, A2C, PPO])
def test_agents__learn_what_the_history_tells(make):
    agent, budget = make(Gine(16, 2), history=8), Budget(FakeEvaluator(TINY_GAINS), reward_of, 40)
    search(agent, tiny_space(), budget, np.random.default_rng(0))
    learned = agent.checkpoint()
    seed = int(np.random.default_rng(0).integers(2**31))
    begun = seeded(lambda: EditPolicy(Gine(16, 2), history=8), seed).state_dict()
    changed = [name for name in begun if "summary" in name and not torch.equal(begun[name], learned["weights"][name])]
    assert len(changed) == len([name for name in begun if "summary" in name]) > 0


def test_checkpoint__keeps_the_history_whatever_the_agent_asks_for(tmp_path):
    policy = seeded(lambda: EditPolicy(Gine(16, 2), history=8), 0)
    data = policy_to_checkpoint(policy)
    known = policy_from_checkpoint(data, Gine(), name="it")
    assert known.history == 8
    torch.save(data, tmp_path / "policy.pt")
    agent, budget = PPO(Gine(), checkpoint=str(tmp_path / "policy.pt")), Budget(FakeEvaluator({}), reward_of, 20)
    search(agent, tiny_space(), budget, np.random.default_rng(0))
    assert agent.checkpoint()["history"] == 8
    older = {key: value for key, value in policy_to_checkpoint(EditPolicy(Gine(16, 2))).items() if key != "history"}
    assert policy_from_checkpoint(older, Gine(), name="it").history == 0
