"""A threshold whose best value lies between those of the grid: a continuous head finds it, and the grid cannot."""

import numpy as np
import pytest
from synthetic import FakeThresholdEvaluator, reward_of, threshold_space

from gnncompose.agents.agent import search
from gnncompose.agents.exhaustive import Exhaustive
from gnncompose.agents.ppo import PPO
from gnncompose.evaluation.evaluation import Budget
from gnncompose.policies.gine import Gine


def run(seed: int, limit: int = 100) -> Budget:
    budget = Budget(FakeThresholdEvaluator(), reward_of, limit)
    search(PPO(Gine(16, 2), 3e-3, continuous=True), threshold_space(), budget, np.random.default_rng(seed))
    return budget


def away(trials) -> float:
    """How far from the best one the thresholds are, on average."""
    roots = [trial.composition.root for trial in trials if trial.composition.root.operator.kind == "cascade"]
    return float(np.mean([abs(root.parameter("threshold") - FakeThresholdEvaluator.best) for root in roots]))


def test_ppo__finds_what_the_grid_cannot_and_draws_nearer_to_it():
    grid = Budget(FakeThresholdEvaluator(), reward_of, 100)
    search(Exhaustive(), threshold_space(), grid, np.random.default_rng(0))
    runs = [run(seed) for seed in (0, 1, 2)]
    for budget in runs:
        assert budget.best.reward > grid.best.reward + 0.12
        assert away([budget.best]) < 0.005
    early, late = (np.mean([away(b.trials[part]) for b in runs]) for part in (slice(1, 30), slice(-30, None)))
    assert late < 0.75 * early


@pytest.mark.parametrize("limit", [25])
def test_ppo__same_seed_gives_the_same_curve(limit):
    curves = [[(trial.composition.id, trial.reward) for trial in run(seed, limit).trials] for seed in (7, 7, 8)]
    assert curves[0] == curves[1] != curves[2]
