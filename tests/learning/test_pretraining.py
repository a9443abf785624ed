"""Pre-training learns from recorded tables what helps on a table that it did not see."""

import json

import numpy as np
import pytest
import torch
from recorded import recorded

from gnncompose.agents.agent import search
from gnncompose.agents.gnn_ts import GNNThompson
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.evaluation import Budget
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.policies.gine import Gine
from gnncompose.pretraining.lessons import Lessons, Plan
from gnncompose.pretraining.training import Training, train
from gnncompose.reward import WeightedSum
from gnncompose.tasks.task import World

RECIPE, PLAN = Gine(24, 2), Plan(size=48, compositions=900)
LEFT_OUT = "series_gun_point"
TABLES = ["series_acsf1", "series_osu_leaf", "series_arrow_head", "series_japanese_vowels", LEFT_OUT]
pytestmark = recorded("series_gun_point")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(folder, TABLES, [LEFT_OUT], [], RECIPE, PLAN, Training(steps=500, lessons=4), seed=0)
    return folder


def test_train__learns_what_holds_on_the_table_left_out(trained):
    card = json.loads((trained / "card.json").read_text())
    curve = card["curve"]
    assert card["tables"] == TABLES[:-1]
    assert card["left_out"] == [LEFT_OUT]
    assert curve[-1][f"loss_{LEFT_OUT}"] < curve[0][f"loss_{LEFT_OUT}"]
    assert len((trained / "curve.csv").read_text().splitlines()) == len(curve) + 1


def regret(agent, condition, seed, evaluations):
    task, prices = recorded_task(LEFT_OUT), load_prices()
    evaluator = TableEvaluator(task, World(condition), prices)
    reward = WeightedSum(latency=0.01, cost=0.01).bind(task.catalog, prices, evaluator.world)
    budget = Budget(evaluator, reward, evaluations)
    best = search(agent, evaluator.task.space, budget, np.random.default_rng(seed))
    optimum, start = evaluator.optimum(reward), budget.trials[0].reward
    return (optimum - best.reward) / (optimum - start)


def test_gnn_ts__needs_fewer_evaluations_with_what_was_learned(trained):
    conditions = ("spikes", "wander", "missing", "missing_wander", "mixed")
    checkpoint = str(trained / "surrogate.pt")
    taught = [regret(GNNThompson(RECIPE, checkpoint, opening=0), condition, 0, 12) for condition in conditions]
    plain = [regret(GNNThompson(RECIPE, opening=0), condition, 0, 12) for condition in conditions]
    assert np.mean(taught) < np.mean(plain)


def test_train__same_seed_same_weights(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        torch.manual_seed(len(name))
        train(tmp_path / name, TABLES[:1], [], [], RECIPE, PLAN, Training(steps=5, lessons=2), seed=1)
    one, two = (torch.load(tmp_path / name / "surrogate.pt", weights_only=True)["weights"] for name in ("one", "two"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_lessons__are_of_what_there_is():
    lessons = Lessons(LEFT_OUT, 300, [], np.random.default_rng(0))
    generator = np.random.default_rng(1)
    for _ in range(20):
        lesson = lessons.draw(PLAN, generator)
        assert len(set(lesson.numbers.tolist())) == PLAN.size
        assert lesson.values.isfinite().all()
    assert len(lessons.graphs) == lessons.values.shape[1] == len(lessons.features)


def test_lessons__know_nothing_of_families_left_out():
    lessons = Lessons(LEFT_OUT, 300, ["denoise"], np.random.default_rng(0))
    catalog, generator = recorded_task(LEFT_OUT).catalog, np.random.default_rng(1)
    strange = [number for number, operator in enumerate(catalog.operators) if operator.family == "denoise"]
    uses = lessons.features[:, strange].any(axis=1)
    drawn = [lessons.draw(PLAN, generator).numbers for _ in range(20)]
    assert "denoise" in lessons.families
    assert not any(uses[numbers].any() for numbers in drawn)
    assert uses[lessons.draw(PLAN, generator, strange=True).numbers].any()


def test_train__watches_the_loss_where_a_family_was_left_out(tmp_path):
    train(tmp_path, TABLES[:2], [], ["rocket"], RECIPE, PLAN, Training(steps=2, lessons=1), seed=0)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["left_out_families"] == ["rocket"]
    assert card["curve"][-1].keys() == {"step", "loss", *(f"loss_{name}" for name in TABLES[:2])}
    with pytest.raises(GnncomposeError, match="left_out_families=rockets: no table has any; they have baseline, cnn"):
        train(tmp_path / "other", TABLES[:1], [], ["rockets"], RECIPE, PLAN, Training(steps=1), seed=0)


@pytest.mark.parametrize(("left_out", "message"), [(["digits"], "is none of tables"), (TABLES, "leaves no table")])
def test_train__refuses_what_leaves_nothing(left_out, message, tmp_path):
    with pytest.raises(GnncomposeError, match=message):
        train(tmp_path, TABLES, left_out, [], RECIPE, PLAN, Training(steps=1), seed=0)
    assert not list(tmp_path.iterdir())


def test_train__needs_tables(tmp_path):
    with pytest.raises(GnncomposeError, match=r"tables=\[\]: names none to learn from"):
        train(tmp_path, [], [], [], RECIPE, PLAN, Training(steps=1), seed=0)
