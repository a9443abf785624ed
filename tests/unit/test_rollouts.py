"""Walks of policy-gradient agents, and the returns that they learn from."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from synthetic import TINY_GAINS, FakeEvaluator, reward_of, tiny_space, turns_of

from gnncompose.agents.returns import discounted_returns, generalised_advantages
from gnncompose.agents.rollouts import Rollouts
from gnncompose.evaluation.evaluation import Budget
from gnncompose.policies.gine import Gine
from gnncompose.policies.policy import EditPolicy, seeded


def walked(count, **changes):
    """Some episodes on the tiny task, with the policy that walked them."""
    space, policy = tiny_space(), seeded(lambda: EditPolicy(Gine(8, 1)), 0)
    budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, 80)
    settings = {"horizon": 5, "restart_probability": 0.5, "unvisited_only": True} | changes
    rollouts = Rollouts(space, 80, **settings, generator=np.random.default_rng(0), policy=policy)
    start, _ = rollouts.visited.add(budget.evaluate(space.start))
    episodes = [turns_of(rollouts.episode(policy, start), budget) for _ in range(count)]
    return rollouts, policy, start, episodes


def test_episode__is_a_chain_of_turns_that_stop_or_the_horizon_ends():
    _, _, start, episodes = walked(12)
    assert {len(episode) for episode in episodes} > {5}
    for episode in episodes:
        for turn, following in pairwise(episode):
            assert turn.after is following.before
            assert not turn.terminated
        assert episode[-1].terminated or len(episode) == 5
        assert not episode[0].terminated, "an episode's first edit is not Stop"
        for turn in episode:
            assert turn.reward == pytest.approx(turn.after.reward - turn.before.reward)
    begun = [episode[0].before for episode in episodes]
    assert any(visit is start for visit in begun[3:])
    assert any(visit is not start for visit in begun[3:])


def test_episode__asks_for_what_is_new_while_there_is_some():
    rollouts, _, _, episodes = walked(6)
    edits = sum(not turn.terminated for episode in episodes for turn in episode)
    assert len(rollouts.visited.by_id) == edits + 1
    rollouts, _, _, episodes = walked(12, unvisited_only=False, restart_probability=0.0, horizon=2)
    edits = sum(not turn.terminated for episode in episodes for turn in episode)
    assert len(rollouts.visited.by_id) < edits + 1


def test_scored__gives_what_was_drawn_the_probability_that_it_was_drawn_with():
    rollouts, policy, _, episodes = walked(8)
    turns = [turn for episode in episodes for turn in episode]
    logarithms, entropy = rollouts.scored(policy, rollouts.before(turns), turns)
    torch.testing.assert_close(logarithms, torch.tensor([turn.log_probability for turn in turns]))
    most = torch.tensor([float(len(turn.allowed)) for turn in turns]).log()
    assert torch.all(entropy <= most + 1e-5)
    assert torch.all(entropy[most > 0] > 0)


def test_discounted_returns__sum_up_what_is_to_come():
    assert discounted_returns([1.0, 2.0, 4.0], 0.5).tolist() == [3.0, 4.0, 4.0]
    assert discounted_returns([], 0.5).tolist() == []


def test_generalised_advantages__go_from_one_step_to_the_whole_return():
    rewards, values, last, gamma = [1.0, -0.5, 2.0], [0.2, 0.4, -0.1], 0.7, 0.9
    after = [*values[1:], last]
    one_step = [r + gamma * w - v for r, w, v in zip(rewards, after, values, strict=True)]
    assert generalised_advantages(rewards, values, last, gamma, 0.0) == pytest.approx(one_step)
    whole = discounted_returns([*rewards, last], gamma)[:3] - values
    assert generalised_advantages(rewards, values, last, gamma, 1.0) == pytest.approx(whole)
    mixed = [sum((gamma * 0.6) ** k * one_step[t + k] for k in range(3 - t)) for t in range(3)]
    assert generalised_advantages(rewards, values, last, gamma, 0.6) == pytest.approx(mixed)
