"""Every learning agent solves a tiny task whose optimum is known, and the same seed gives the same curve."""

import numpy as np
import pytest
import torch
from peers import parameter
from synthetic import TINY_GAINS, FakeEvaluator, reward_of, tiny_space

from gnncompose.agents.a2c import A2C
from gnncompose.agents.agent import search
from gnncompose.agents.bananas import Bananas
from gnncompose.agents.dqn import DQN
from gnncompose.agents.exhaustive import Exhaustive
from gnncompose.agents.exploration import EpsilonGreedy, Softmax
from gnncompose.agents.gnn_ts import GNNThompson
from gnncompose.agents.gp_ts import GPThompson
from gnncompose.agents.local_search import LocalSearch
from gnncompose.agents.mcts import MCTS
from gnncompose.agents.one_plus_one_ea import OnePlusOneEA
from gnncompose.agents.peers.maskable_ppo import Sb3MaskablePPO
from gnncompose.agents.peers.nevergrad import Nevergrad
from gnncompose.agents.peers.tpe import TPE
from gnncompose.agents.ppo import PPO
from gnncompose.agents.q_learning import QLearning
from gnncompose.agents.regularised_evolution import RegularisedEvolution
from gnncompose.agents.reinforce import Reinforce
from gnncompose.agents.simulated_annealing import SimulatedAnnealing
from gnncompose.evaluation.evaluation import Budget
from gnncompose.policies.gine import Gine

# Half of the space of 84 compositions, and a third of it for the search that infers nothing but climbs.
LEARNERS = {
    "dqn": (lambda: DQN(Gine(24, 2), EpsilonGreedy(1.0, 0.05, 0.3), batch_size=16), 42),
    "dqn_dueling": (
        lambda: DQN(Gine(24, 2), EpsilonGreedy(1.0, 0.05, 0.3), batch_size=16, dueling=True, priority=0.6),
        42,
    ),
    "dqn_softmax": (lambda: DQN(Gine(24, 2), Softmax(0.1, 0.01, 0.5), batch_size=16), 42),
    "local_search": (LocalSearch, 28),
    "reinforce": (lambda: Reinforce(Gine(24, 2)), 56),
    "a2c": (lambda: A2C(Gine(24, 2)), 56),
    "ppo": (lambda: PPO(Gine(24, 2)), 56),
    # A table has to visit again and again what the others infer: it gets more.
    "q_learning": (lambda: QLearning(EpsilonGreedy(1.0, 0.2, 0.5)), 70),
    "regularised_evolution": (RegularisedEvolution, 42),
    "one_plus_one_ea": (OnePlusOneEA, 42),
    "simulated_annealing": (SimulatedAnnealing, 42),
    "gp_ts": (GPThompson, 28),
    # With its usual pool it looks at the whole of so small a space, whatever the seed.
    "gnn_ts": (lambda: GNNThompson(Gine(16, 2), pool=20), 28),
    "gnn_ts_thompson": (lambda: GNNThompson(Gine(16, 2), acquisition="thompson"), 42),
    "mcts": (lambda: MCTS(Gine(16, 2), Gine(16, 2), simulations=16), 28),
    "bananas": (Bananas, 42),
    "tpe": (TPE, 42),
    "nevergrad": (Nevergrad, 42),
    "maskable_ppo": (lambda: Sb3MaskablePPO(n_steps=32, n_epochs=4), 70),
}
SEEDS = (0, 1, 2)


each_learner = pytest.mark.parametrize(
    ("make", "limit"), [parameter(name, make, limit) for name, (make, limit) in LEARNERS.items()]
)


def curve(make, limit, seed) -> list[float]:
    budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, limit)
    search(make(), tiny_space(), budget, np.random.default_rng(seed))
    return [trial.best_reward for trial in budget.trials]


@pytest.fixture(scope="module")
def optimum() -> float:
    agent = Exhaustive()
    budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, 1000)
    best = search(agent, tiny_space(), budget, np.random.default_rng(0))
    assert agent.finished
    assert len(budget.trials) == 84
    assert best.reward > budget.trials[0].reward + 0.4, "the task must have something to learn"
    return best.reward


@each_learner
@pytest.mark.parametrize("seed", SEEDS)
def test_learner__finds_the_optimum(make, limit, seed, optimum):
    assert curve(make, limit, seed)[-1] == pytest.approx(optimum)


@pytest.mark.parametrize("seed", SEEDS)
def test_dqn__learned_values_lead_straight_to_the_optimum(seed, optimum, tmp_path):
    teacher = LEARNERS["dqn"][0]()
    search(teacher, tiny_space(), Budget(FakeEvaluator(TINY_GAINS), reward_of, 84), np.random.default_rng(seed))
    torch.save(teacher.checkpoint(), tmp_path / "policy.pt")

    def greedy(checkpoint):
        agent = DQN(
            Gine(24, 2),
            EpsilonGreedy(0.0, 0.0),
            restart_probability=0.0,
            updates_per_evaluation=0,
            checkpoint=checkpoint,
        )
        budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, 6)
        return search(agent, tiny_space(), budget, np.random.default_rng(seed)).reward

    assert greedy(str(tmp_path / "policy.pt")) == pytest.approx(optimum)
    assert greedy(None) < optimum - 0.2, "an untrained policy must not find it, or nothing was shown"


@pytest.mark.parametrize(
    "make",
    [
        parameter("reinforce", lambda **changes: Reinforce(Gine(24, 2), 3e-3, **changes)),
        parameter("a2c", lambda **changes: A2C(Gine(24, 2), 3e-3, **changes)),
        parameter("ppo", lambda **changes: PPO(Gine(24, 2), 3e-3, **changes)),
    ],
)
def test_policy_gradient__learns_what_to_do_first(make, optimum, tmp_path):
    """It walks anywhere from the start, again and again, for free; what it learned finds the optimum at once."""
    teacher = make(unvisited_only=False, restart_probability=0.0)
    search(teacher, tiny_space(), Budget(FakeEvaluator(TINY_GAINS), reward_of, 83), np.random.default_rng(0))
    torch.save(teacher.checkpoint(), tmp_path / "policy.pt")

    def few(checkpoint):
        agent = make(checkpoint=checkpoint, restart_probability=0.0)
        budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, 8)
        return search(agent, tiny_space(), budget, np.random.default_rng(1)).reward

    assert few(str(tmp_path / "policy.pt")) == pytest.approx(optimum)
    assert few(None) < optimum - 0.1, "an untrained policy must not find it, or nothing was shown"


@each_learner
def test_learner__same_seed_gives_the_same_curve(make, limit):
    assert curve(make, 20, 7) == curve(make, 20, 7)
    assert curve(make, 20, 7) != curve(make, 20, 8)
