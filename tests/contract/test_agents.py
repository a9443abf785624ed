"""What every agent keeps to, whatever it does."""

import random
import tempfile

import numpy as np
import pytest
import torch
from peers import parameter
from synthetic import (
    CASCADE,
    MEAN,
    TINY_GAINS,
    FakeEvaluator,
    large_space,
    model,
    reward_of,
    space_of,
    tiny_space,
    transform,
)

from gnncompose.agents.a2c import A2C
from gnncompose.agents.agent import Agent, AskTell, search
from gnncompose.agents.bananas import Bananas
from gnncompose.agents.dqn import DQN
from gnncompose.agents.exhaustive import Exhaustive
from gnncompose.agents.exploration import EpsilonGreedy, Softmax
from gnncompose.agents.frugal import Frugal
from gnncompose.agents.gnn_ts import GNNThompson
from gnncompose.agents.gp_ts import GPThompson
from gnncompose.agents.ipa import IPA
from gnncompose.agents.local_search import LocalSearch
from gnncompose.agents.mcts import MCTS
from gnncompose.agents.one_plus_one_ea import OnePlusOneEA
from gnncompose.agents.peers.maskable_ppo import Sb3MaskablePPO
from gnncompose.agents.peers.nevergrad import Nevergrad
from gnncompose.agents.peers.tpe import TPE
from gnncompose.agents.ppo import PPO
from gnncompose.agents.q_learning import QLearning
from gnncompose.agents.random import Random
from gnncompose.agents.regularised_evolution import RegularisedEvolution
from gnncompose.agents.reinforce import Reinforce
from gnncompose.agents.simulated_annealing import SimulatedAnnealing
from gnncompose.composition.edits import Limits
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.evaluation import Budget
from gnncompose.policies.gine import Gine

AGENTS = {
    "random": Random,
    "local_search": LocalSearch,
    "local_search_best": lambda: LocalSearch(improvement="best", patience=None),
    "local_search_opening": lambda: LocalSearch(opening=3),
    "exhaustive": Exhaustive,
    "q_learning": lambda: QLearning(EpsilonGreedy(1.0, 0.1, 0.5)),
    "q_learning_softmax": lambda: QLearning(Softmax()),
    "dqn": lambda: DQN(Gine(8, 1), EpsilonGreedy(1.0, 0.1, 0.3), batch_size=4, updates_per_evaluation=1),
    "dqn_softmax": lambda: DQN(Gine(8, 1), Softmax(), batch_size=4, updates_per_evaluation=1, unvisited_only=False),
    "reinforce": lambda: Reinforce(Gine(8, 1), episodes=2),
    "a2c": lambda: A2C(Gine(8, 1), batch_size=4),
    "ppo": lambda: PPO(Gine(8, 1), batch_size=4, epochs=2),
    "ppo_anywhere": lambda: PPO(Gine(8, 1), batch_size=4, epochs=1, unvisited_only=False),
    "regularised_evolution": lambda: RegularisedEvolution(population=5, sample=2),
    "one_plus_one_ea": OnePlusOneEA,
    "simulated_annealing": SimulatedAnnealing,
    "gp_ts": lambda: GPThompson(initial=3, pool=20),
    "gp_ts_opening": lambda: GPThompson(opening=3, pool=20),
    "gnn_ts": lambda: GNNThompson(Gine(8, 1), pool=20),
    "mcts": lambda: MCTS(Gine(8, 1), Gine(8, 1), simulations=6),
    "gnn_ts_without_history": lambda: GNNThompson(Gine(8, 1), pool=20, rows=0),
    "gnn_ts_thompson": lambda: GNNThompson(Gine(8, 1), pool=20, acquisition="thompson"),
    "bananas": lambda: Bananas(initial=3, round_size=2, members=2, layers=(8,), epochs=20, pool=20),
    "tpe": lambda: TPE(startup=4),
    "tpe_multivariate": lambda: TPE(startup=4, multivariate=True),
    "nevergrad": Nevergrad,
    "maskable_ppo": lambda: Sb3MaskablePPO(n_steps=16, batch_size=16, n_epochs=1),
}
# These ask only for what they planned, and end where the plans do.
PLANNERS = {"ipa": IPA, "frugal": Frugal}
each_agent = pytest.mark.parametrize("make", [parameter(name, make) for name, make in (AGENTS | PLANNERS).items()])
each_searcher = pytest.mark.parametrize("make", [parameter(name, make) for name, make in AGENTS.items()])


def run(make, space, limit, seed=0, **evaluator):
    evaluator = FakeEvaluator(TINY_GAINS, **evaluator)
    budget = Budget(evaluator, reward_of, limit)
    best = search(make(), space, budget, np.random.default_rng(seed))
    return budget, best, evaluator


@each_agent
def test_agent__spends_its_budget_and_no_more(make):
    assert isinstance(make(), Agent)
    budget, best, evaluator = run(make, large_space(), 12)
    assert len(budget.trials) == 12
    assert len(evaluator.asked) == len(set(evaluator.asked)) == 12
    assert best.reward == max(trial.reward for trial in budget.trials)


@each_agent
@pytest.mark.parametrize("limit", [1, 2])
def test_agent__lives_with_a_tiny_budget(make, limit):
    assert len(run(make, tiny_space(), limit)[0].trials) == limit


@each_agent
def test_agent__asks_only_for_legal_compositions_the_start_first(make):
    space = large_space()
    budget, *_ = run(make, space, 12)
    assert budget.trials[0].composition == space.start
    for trial in budget.trials:
        assert space.limits.allow(trial.composition)
        assert trial.composition.root.type == space.output_type


@each_agent
def test_agent__same_seed_gives_the_same_run(make):
    torch.manual_seed(0)
    one = [t.composition.id for t in run(make, large_space(), 12, seed=5)[0].trials]
    torch.manual_seed(1)
    state, pythons, numpys = torch.random.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    assert [t.composition.id for t in run(make, large_space(), 12, seed=5)[0].trials] == one
    assert torch.equal(state, torch.random.get_rng_state()), "torch's global random state was touched"
    assert random.getstate() == pythons, "Python's global random state was touched"
    assert str(np.random.get_state()) == str(numpys), "NumPy's global random state was touched"  # noqa: NPY002


@each_agent
def test_agent__leaves_nothing_on_disk(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run(make, tiny_space(), 5)
    # PyG renders its message passing into a temporary module, once a process, and leaves it.
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("torch_geometric.")] == []


@each_agent
def test_agent__survives_failing_evaluations(make):
    budget, best, _ = run(make, tiny_space(), 20, failing="cnn")
    assert any(trial.failure for trial in budget.trials) or len(budget.trials) == 20
    assert best.failure is None


@each_searcher
def test_agent__ends_where_the_space_is_smaller_than_the_budget(make):
    space = space_of([transform("median"), model("mlp"), model("cnn")], Limits(nodes=2, depth=2, branches=2))
    budget, *_ = run(make, space, 30)
    assert len(budget.trials) == 4


@each_agent
def test_agent__lives_where_no_edit_is_legal(make):
    budget, *_ = run(make, space_of([model("mlp")], Limits(nodes=1, depth=1, branches=2)), 3)
    assert len(budget.trials) == 1


def test_exhaustive__says_when_the_space_was_finished():
    agent = Exhaustive()
    assert agent.finished is None
    space = space_of([transform("median"), model("mlp"), model("cnn"), MEAN, CASCADE])
    run(lambda: agent, space, 5)
    assert agent.finished is False
    budget, *_ = run(lambda: agent, space, 10_000)
    assert agent.finished is True
    assert len({trial.composition.id for trial in budget.trials}) == len(budget.trials) < 10_000


@pytest.mark.parametrize(
    "make",
    [Random, LocalSearch, Exhaustive, RegularisedEvolution, OnePlusOneEA, SimulatedAnnealing, GPThompson, IPA, Frugal],
)
def test_searcher__has_no_checkpoint(make):
    agent = make()
    run(lambda: agent, tiny_space(), 5)
    assert agent.checkpoint() is None


@each_agent
def test_agent__behind_ask_and_tell_is_the_same(make):
    space, evaluator = large_space(), FakeEvaluator(TINY_GAINS)
    budget = Budget(evaluator, reward_of, 12)
    asking = AskTell(make(), space, 12, np.random.default_rng(3))
    while (wanted := asking.ask()) is not None:
        assert asking.ask() is wanted
        asking.tell(budget.evaluate(wanted))
    searched, *_ = run(make, space, 12, seed=3)
    assert [t.composition.id for t in budget.trials] == [t.composition.id for t in searched.trials]
    assert budget.steps == len(budget.trials), "a re-visit was asked for"


def test_ask_tell__needs_a_budget() -> None:
    with pytest.raises(GnncomposeError, match="budget=0: is no whole number from 1 up"):
        AskTell(Random(), tiny_space(), 0, np.random.default_rng(0))


def test_ask_tell__takes_only_the_trial_of_what_it_asked_for():
    space = tiny_space()
    budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, 3)
    asking = AskTell(Random(), space, 2, np.random.default_rng(0))
    other = budget.evaluate(space.successors(space.start)[0][1])
    with pytest.raises(ValueError, match="was not asked for, but"):
        asking.tell(other)
    asking.tell(budget.evaluate(space.start))
    asking.tell(budget.evaluate(asking.ask()))
    assert asking.ask() is None
    with pytest.raises(ValueError, match="was not asked for, but None"):
        asking.tell(other)
