"""A policy learns from recorded tables what helps on a table that it did not see."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from recorded import recorded

from gnncompose.agents.a2c import A2C
from gnncompose.agents.agent import Agent, search
from gnncompose.agents.dqn import DQN
from gnncompose.agents.evaluations import Evaluations
from gnncompose.agents.exploration import EpsilonGreedy
from gnncompose.agents.mcts import MCTS
from gnncompose.agents.ppo import PPO
from gnncompose.agents.reinforce import Reinforce
from gnncompose.encoding import encode_all
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.evaluation import Budget
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.policies.gine import Gine
from gnncompose.pretraining.policy_training import PolicyLearner, PolicyTraining, train_policy
from gnncompose.pretraining.rehearsal import RehearsedTable, Rehearsing
from gnncompose.reward import WeightedSum
from gnncompose.tasks.task import World

RECIPE, LEFT_OUT = Gine(16, 2), "series_gun_point"
TABLES = ["series_osu_leaf", "series_arrow_head", LEFT_OUT]
PLAN, TRAINING = Rehearsing(environments=256), PolicyTraining(rehearsals=60, learning_rate=4e-3)
pytestmark = recorded(LEFT_OUT)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    train_policy(folder, TABLES, [LEFT_OUT], RECIPE, PLAN, TRAINING, seed=0)
    return folder


def test_train__gains_more_on_the_table_left_out(trained: Path) -> None:
    card = json.loads((trained / "card.json").read_text())
    gains = [mark[f"gain_{LEFT_OUT}"] for mark in card["curve"]]
    assert card["tables"] == TABLES[:-1]
    assert card["steps"] == 60 * 256 * 6
    assert gains[-1] > gains[0] + 0.1
    assert len((trained / "curve.csv").read_text().splitlines()) == len(gains) + 1


def test_train__the_same_seed_gives_the_same_policy(tmp_path: Path) -> None:
    short = PolicyTraining(rehearsals=3)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_policy(tmp_path / name, TABLES[:1], [], RECIPE, Rehearsing(environments=32), short, seed)
    weights = [torch.load(tmp_path / name / "policy.pt", weights_only=True)["weights"] for name in "abc"]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not all(torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


def test_learner__looks_ahead_from_where_truncated_episodes_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, told = PolicyLearner(RECIPE, TRAINING, seed=0), []
    monkeypatch.setattr(learner, "_learn", lambda table, steps, last, generator: told.append((steps, last)))
    table, generator = RehearsedTable(LEFT_OUT), np.random.default_rng(0)
    rehearsal = table.begin(Rehearsing(environments=64, elsewhere=0.0), generator)
    learner.rehearse(rehearsal, generator)
    ((steps, last),) = told
    ends, truncated = steps[-1].after, ~steps[-1].terminated
    assert (rehearsal.env.rows[truncated] != ends[truncated]).any(), "the environment must have begun anew"
    context = torch.from_numpy(np.stack([steps[0].context[:, 0], rehearsal.env.rewards[ends] * rehearsal.unit], axis=1))
    graphs, which = table.encode(ends)
    with torch.no_grad():
        wanted = learner.policy.promise(learner.policy.see(graphs, context.float(), which=which))
    assert last == pytest.approx(wanted.numpy(), abs=1e-5)


def test_learner__is_told_of_evaluations_as_a_search_is() -> None:
    """What a rehearsal tells of rows is what a search tells of its trials."""
    table, generator, condition = RehearsedTable(LEFT_OUT), np.random.default_rng(0), 2
    learner = PolicyLearner(RECIPE, TRAINING, seed=0, history=12)
    rehearsal = table.begin(Rehearsing(environments=8), generator, condition)
    known = learner.recollection(rehearsal, generator)
    first, second = (learner.act(rehearsal, np.ones(8), known) for _ in range(2))
    assert first.history is not None
    assert second.history is not None
    grown = second.history.there.sum(dim=1) - first.history.there.sum(dim=1)
    assert grown.tolist() == (~first.terminated).astype(int).tolist()
    task, prices = recorded_task(LEFT_OUT), load_prices()
    evaluator = TableEvaluator(task, World(task.conditions[condition]), prices)
    reward = WeightedSum(latency=0.01, cost=0.01).bind(task.catalog, prices, evaluator.world)
    rows = np.array([table.start, *first.after])
    budget, told = Budget(evaluator, reward, len(rows)), Evaluations(most=len(rows))
    for row in rows.tolist():
        composition = evaluator.table.space.composition(row)
        told.add(budget.evaluate(composition), encode_all([composition], table.traits).x)
    searched = told.before([len(rows)])
    torch.testing.assert_close(rehearsal.figures(rows), searched.figures, atol=1e-5, rtol=1e-5)
    went = np.flatnonzero(~first.terminated)
    latest = second.history.at[went].gather(1, second.history.there[went].sum(dim=1, keepdim=True) - 1).squeeze(1)
    torch.testing.assert_close(second.history.figures[latest], searched.figures[1 + went], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(second.history.bag[latest], searched.bag[1 + went])


def test_train__a_policy_told_of_evaluations_goes_on_in_a_search(tmp_path: Path) -> None:
    short, plan = PolicyTraining(rehearsals=3), Rehearsing(environments=32)
    for name in "ab":
        train_policy(tmp_path / name, [LEFT_OUT], [], RECIPE, plan, short, seed=1, history=12)
    first, second = (torch.load(tmp_path / name / "policy.pt", weights_only=True) for name in "ab")
    assert first["history"] == json.loads((tmp_path / "a" / "card.json").read_text())["history"] == 12
    assert all(torch.equal(first["weights"][key], second["weights"][key]) for key in first["weights"])
    task, prices = recorded_task(LEFT_OUT), load_prices()
    evaluator = TableEvaluator(task, World("mixed"), prices)
    agent = PPO(Gine(), checkpoint=str(tmp_path / "a" / "policy.pt"))
    budget = Budget(evaluator, WeightedSum().bind(task.catalog, prices, evaluator.world), 40)
    search(agent, task.space, budget, np.random.default_rng(0))
    learned = agent.checkpoint()
    assert learned is not None
    assert not torch.equal(learned["weights"]["summary.bag.0.weight"], first["weights"]["summary.bag.0.weight"])


@pytest.mark.parametrize("left_out", [["letter"], TABLES])
def test_train__names_what_is_wrong_with_the_tables(tmp_path: Path, left_out: list[str]) -> None:
    with pytest.raises(GnncomposeError, match="left_out"):
        train_policy(tmp_path, TABLES, left_out, RECIPE, PLAN, TRAINING, seed=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "make",
    [
        lambda path: PPO(Gine(), checkpoint=path),
        lambda path: A2C(Gine(), checkpoint=path),
        lambda path: Reinforce(Gine(), checkpoint=path),
        lambda path: MCTS(Gine(), RECIPE, policy_checkpoint=path, simulations=6),
    ],
    ids=["ppo", "a2c", "reinforce", "mcts"],
)
def test_agents__begin_with_the_policy_and_go_on_learning(trained: Path, make) -> None:
    agent: Agent = make(str(trained / "policy.pt"))
    task, prices = recorded_task(LEFT_OUT), load_prices()
    evaluator = TableEvaluator(task, World("mixed"), prices)
    budget = Budget(evaluator, WeightedSum().bind(task.catalog, prices, evaluator.world), 40)
    search(agent, task.space, budget, np.random.default_rng(0))
    assert len(budget.trials) == 40
    before = torch.load(trained / "policy.pt", weights_only=True)
    after = agent.checkpoint()
    assert after["two_stage"]
    assert after["architecture"] == before["architecture"]
    assert not all(torch.equal(after["weights"][key], before["weights"][key]) for key in after["weights"])


def test_dqn__refuses_a_policy_that_gives_no_values(trained: Path) -> None:
    with pytest.raises(GnncomposeError, match="no values; use agent=ppo"):
        DQN(Gine(), EpsilonGreedy(), checkpoint=str(trained / "policy.pt"))
