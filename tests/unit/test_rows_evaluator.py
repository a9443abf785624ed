"""Evaluations from a Parquet file: what a search wrote is replayed, and what is missing or wrong is told."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
from peers import parameter
from pyarrow import parquet
from synthetic import TINY_GAINS, FakeEvaluator, reward_of, tiny_space

from gnncompose.agents.agent import search
from gnncompose.agents.frugal import Frugal
from gnncompose.agents.gnn_ts import GNNThompson
from gnncompose.agents.ipa import IPA
from gnncompose.agents.local_search import LocalSearch
from gnncompose.agents.peers.nevergrad import Nevergrad
from gnncompose.agents.peers.tpe import TPE
from gnncompose.catalog.operator import Port
from gnncompose.composition.files import composition_to_json
from gnncompose.errors import CompositionError, EvaluationError, TableError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.evaluation import Budget
from gnncompose.evaluation.rows import RowsEvaluator
from gnncompose.policies.gine import Gine
from gnncompose.tasks.task import Task, World
from gnncompose.tracking.records import trial_row

SPACE = tiny_space()
WORLD = World()


def task_in(folder: Path) -> Task:
    ports = (Port(name=name, type=kind) for name, kind in (("x", SPACE.input_type), ("y", SPACE.output_type)))
    return Task("tiny", "accuracy", *ports, SPACE.limits, ("clean", "noisy"), SPACE.catalog, folder)


def trials(count: int, failing: str | None = None):
    budget = Budget(FakeEvaluator(TINY_GAINS, failing), reward_of, count)
    search(LocalSearch(), SPACE, budget, np.random.default_rng(0))
    return budget.trials


def written(folder: Path, rows: list[dict]) -> RowsEvaluator:
    parquet.write_table(arrow.Table.from_pylist(rows), folder / "evaluations.parquet")
    return RowsEvaluator(task_in(folder), WORLD, load_prices())


def plain_rows(count: int = 6) -> list[dict]:
    """No more columns than are needed."""
    return [
        {
            "composition": json.dumps(composition_to_json(trial.composition)),
            "score": 0.1 * number,
            "latency_ms_mean": 2.0,
        }
        for number, trial in enumerate(trials(count))
    ]


def test_rows__replay_what_a_search_wrote(tmp_path):
    found = trials(30)
    evaluator = written(tmp_path, [trial_row(trial, WORLD) for trial in found])
    for trial in found:
        told = evaluator.evaluate(trial.composition)
        assert vars(replace(told, evaluator="fake")) == vars(replace(trial.evaluation, deviation=None))
        assert reward_of(told) == trial.reward
    assert evaluator.optimum(reward_of) == max(trial.reward for trial in found)


def test_rows__a_search_keeps_to_them_and_finds_their_best(tmp_path):
    found = trials(30)
    evaluator = written(tmp_path, [trial_row(trial, WORLD) for trial in found])
    budget = Budget(evaluator, reward_of, 30)
    best = search(LocalSearch(), evaluator.task.space, budget, np.random.default_rng(1))
    known = {trial.composition.id for trial in found}
    assert {trial.composition.id for trial in budget.trials} <= known
    assert best.reward == evaluator.optimum(reward_of)
    space = evaluator.task.space
    for composition in (space.start, best.composition):
        assert {made.id for _, made in space.successors(composition)} <= known
    outside = [edit for edit, made in SPACE.successors(space.start) if made.id not in known]
    with pytest.raises(CompositionError, match="which the file does not hold"):
        space.apply(space.start, outside[0])


BUILDERS = {
    "ipa": IPA,
    "frugal": Frugal,
    "tpe": lambda: TPE(startup=4),
    "nevergrad": Nevergrad,
    "gnn_ts": lambda: recalling(GNNThompson(Gine(8, 1))),
}


@pytest.mark.parametrize("make", [parameter(name, make) for name, make in BUILDERS.items()])
def test_rows__agents_that_build_compositions_keep_to_them(make, tmp_path):
    found = trials(30)
    evaluator = written(tmp_path, [trial_row(trial, WORLD) for trial in found])
    budget = Budget(evaluator, reward_of, 20)
    search(make(), evaluator.task.space, budget, np.random.default_rng(1))
    assert {trial.composition.id for trial in budget.trials} <= {trial.composition.id for trial in found}
    assert len(budget.trials) > 1


def recalling(agent: GNNThompson) -> GNNThompson:
    """The agent with old trials, most of which the file does not hold."""
    agent.recall(trials(84))
    return agent


def test_rows__of_failures_fail_again(tmp_path):
    found = trials(30, failing="blur")
    failed = next(trial for trial in found if trial.failure)
    evaluator = written(tmp_path, [trial_row(trial, WORLD) for trial in found])
    with pytest.raises(EvaluationError, match='"blur" crashed'):
        evaluator.evaluate(failed.composition)
    assert evaluator.optimum(reward_of) == max(trial.reward for trial in found)


def test_rows__with_three_columns_do(tmp_path):
    evaluator = written(tmp_path, plain_rows())
    told = evaluator.evaluate(trials(6)[5].composition, "test")
    assert (told.score, told.metric, told.latency_ms_p50, told.cpu_ms) == (0.5, 0.5, 2.0, 2.0)
    assert told.cost_usd_per_million == load_prices().usd_per_million("cpu-1", 2.0, 0, 2.0)
    assert (told.latency_ms_p99, told.throughput_per_s) == (None, 500.0)


def test_rows__without_a_number_are_failures(tmp_path):
    first, second = plain_rows(2)
    evaluator = written(tmp_path, [first, second | {"score": float("nan")}])
    with pytest.raises(EvaluationError, match="has no score and latency of"):
        evaluator.evaluate(trials(2)[1].composition)
    assert evaluator.optimum(reward_of) == reward_of(evaluator.evaluate(trials(2)[0].composition))


def test_rows__may_know_no_latency(tmp_path):
    evaluator = written(tmp_path, [row | {"latency_ms_mean": 0} for row in plain_rows()])
    told = evaluator.evaluate(trials(1)[0].composition)
    assert (told.latency_ms_mean, told.throughput_per_s) == (0.0, 0.0)


def test_rows__of_a_world_and_a_split_are_told_apart(tmp_path, capsys):
    row, world = plain_rows(1)[0], {"condition": "clean", "resource": "cpu-1", "load": "single_stream"}
    noisy = json.dumps(world | {"condition": "noisy"})
    rows = [
        {**row, "score": score, "world": told, "split": split}
        for score, told, split in (
            (0.1, json.dumps(world), "validation"),
            (0.2, json.dumps(world), "test"),
            (0.3, noisy, "validation"),
            (0.4, noisy, "validation"),
        )
    ]
    clean = written(tmp_path, rows)
    start = clean.task.space.start
    assert (clean.evaluate(start).score, clean.evaluate(start, "test").score) == (0.1, 0.2)
    path = tmp_path / "evaluations.parquet"
    told = "1 of 4 rows contradict an earlier one of the same composition; the later ones count"
    assert capsys.readouterr().err == f"{path}: {told}\n"
    written(tmp_path, plain_rows() + plain_rows())
    assert capsys.readouterr().err == f"{path}: names no split, so test figures are those of validation\n"
    written(tmp_path, rows)
    noisy = RowsEvaluator(task_in(tmp_path), World("noisy"), load_prices())
    assert noisy.evaluate(start).score == 0.4, "the last of two rows counts"
    with pytest.raises(TableError, match=r"tells nothing of .* in condition=noisy .* on test; it tells of"):
        noisy.evaluate(start, "test")
    with pytest.raises(TableError, match=r"condition=dark: .* it has clean, noisy"):
        RowsEvaluator(task_in(tmp_path), World("dark"), load_prices())
    with pytest.raises(TableError, match=r"tells nothing of validation data in .*offline:8"):
        RowsEvaluator(task_in(tmp_path), World("clean", load="offline:8"), load_prices())


def test_rows__a_search_keeps_to_those_of_its_world(tmp_path):
    found, noisy = trials(12), World("noisy")
    rows = [trial_row(trial, WORLD if number % 2 else noisy) for number, trial in enumerate(found)]
    written(tmp_path, rows)
    evaluator = RowsEvaluator(task_in(tmp_path), noisy, load_prices())
    budget = Budget(evaluator, reward_of, 12)
    search(LocalSearch(), evaluator.task.space, budget, np.random.default_rng(0))
    assert {trial.composition for trial in budget.trials} <= {trial.composition for trial in found[::2]}
    assert evaluator.optimum(reward_of) == max(trial.reward for trial in found[::2])


def test_rows__begin_at_the_first_where_the_start_is_none_of_them(tmp_path):
    evaluator = written(tmp_path, plain_rows()[2:])
    assert evaluator.task.space.start == trials(3)[2].composition


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": ...}, "has no column score; it needs composition, score, latency_ms_mean"),
        ({"score": "good"}, "column score holds string, not numbers"),
        ({"composition": 3}, "column composition holds int64, not text"),
        ({"composition": "median(input)"}, "row 0: composition is no JSON"),
        ({"composition": "{}"}, "row 0: format: is missing"),
        ({"latency_ms_mean": -1.0}, "row 0: latency_ms_mean is -1; give a finite number from 0 up"),
        ({"score": float("-inf")}, "row 0: score is -inf; give a finite number"),
        ({"world": "clean"}, "row 0: world is clean; leave it out, or write it as"),
    ],
)
def test_rows__that_are_wrong_are_refused(change, message, tmp_path):
    row = {name: value for name, value in (plain_rows(1)[0] | change).items() if value is not ...}
    with pytest.raises((TableError, CompositionError), match=message):
        written(tmp_path, [row])


def test_rows__missing_or_damaged_files_are_told(tmp_path):
    with pytest.raises(TableError, match="there is no such file; give the path of a Parquet file"):
        RowsEvaluator(task_in(tmp_path), WORLD, load_prices())
    (tmp_path / "evaluations.parquet").write_bytes(b"PAR1")
    with pytest.raises(TableError, match="is no readable Parquet file"):
        RowsEvaluator(task_in(tmp_path), WORLD, load_prices())
    empty = arrow.Table.from_pylist(plain_rows(1)).slice(1)
    parquet.write_table(empty, tmp_path / "none.parquet")
    with pytest.raises(TableError, match="holds no rows"):
        RowsEvaluator(task_in(tmp_path), WORLD, load_prices(), path=str(tmp_path / "none.parquet"))
