"""A small table, really recorded, and what is replayed from it against real execution."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gnncompose.composition.edits import AddTransform, Place
from gnncompose.composition.tree import Composition
from gnncompose.errors import TableError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.evaluation import Budget
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.evaluation.recording.closed import ClosedRecording
from gnncompose.evaluation.recording.recipe import Recipe, part_of
from gnncompose.evaluation.recording.table import Table
from gnncompose.evaluation.recording.times import load_per_core
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.execution.latency import Effort
from gnncompose.execution.load import parse_load
from gnncompose.execution.work import rows_reached
from gnncompose.reward import WeightedSum
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task, World

ROOT = Path(__file__).resolve().parents[2]
CONDITIONS = ("clean", "low_contrast")
RECIPE = Recipe.model_validate(
    {
        "format": 1,
        "task": "digits",
        "limits": {"nodes": 5, "depth": 3, "branches": 3, "transforms": 1},
        "operators": {
            **{name: {} for name in ("tree", "mlp", "naive_bayes", "stretch", "mean", "vote", "most_confident")},
            "weighted": {"weights": {"default": 1.0, "values": [1.0, 2.0]}},
            "cascade": {"threshold": {"default": 0.9, "values": [0.7, 0.9]}},
        },
        "fit": 40,
        "check": 12,
        "memory": 6,
    }
)


@pytest.fixture(scope="module")
def task(digits_directory: Path) -> Task:
    return replace(load_task(digits_directory), conditions=CONDITIONS)


@pytest.fixture(scope="module")
def folder(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables") / "digits"
    ClosedRecording.of("small", RECIPE, task, folder, load_prices()).record("all")
    return folder


@pytest.fixture(scope="module")
def evaluator(task: Task, folder: Path) -> TableEvaluator:
    return TableEvaluator(task, World("low_contrast"), load_prices(), path=str(folder))


def sampled(evaluator: TableEvaluator, count: int) -> list[Composition]:
    rows = np.random.default_rng(1).choice(len(evaluator.table), count, replace=False)
    return [evaluator.table.space.composition(int(row)) for row in rows]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_table__tells_exactly_what_the_executor_scores(evaluator: TableEvaluator, task: Task, split: str) -> None:
    real = OnnxEvaluator(task, evaluator.world, load_prices(), rows=1, repeats=1, seconds=0.0, measure_memory=False)
    for composition in sampled(evaluator, 60):
        told, found = evaluator.evaluate(composition, split), real.evaluate(composition, split)
        assert (told.metric, told.score) == (found.metric, found.score), composition
        assert told.artifact_bytes == found.artifact_bytes


def test_table__counts_the_rows_that_the_executor_sends_on(evaluator: TableEvaluator, task: Task) -> None:
    split, table = task.split("low_contrast", "validation"), evaluator.table
    runner = OnnxEvaluator(task, evaluator.world, load_prices(), measure_memory=False).isolation.local
    requests = parse_load("single_stream").requests(len(split.x), Effort())
    shares = table.structure.shares(
        np.stack([table_columns(table)[f"reached_validation_{port}"] for port in (1, 2)], axis=1), len(requests)
    )
    cascades = [c for c in sampled(evaluator, 400) if c.root.operator.kind == "cascade"][:40]
    assert len(cascades) == 40
    for composition in cascades:
        counts = runner.call(rows_reached, composition, split, requests).mean(axis=0)
        runs = {node.id: share for node, share in zip(composition.nodes, counts, strict=True)}
        told = shares[table.row(composition)]
        assert [runs[branch.id] for branch in composition.root.inputs] == pytest.approx(
            told[: len(composition.root.inputs)].tolist()
        )


def table_columns(table: Table) -> dict[str, np.ndarray]:
    from gnncompose.evaluation.recording.files import read_columns, rows_file

    return read_columns(table.folder / rows_file("low_contrast"))


def test_table__is_closed_under_legal_edits(evaluator: TableEvaluator) -> None:
    for composition in sampled(evaluator, 40):
        for _, successor in evaluator.task.space.successors(composition):
            evaluator.table.row(successor)


def test_table__a_miss_names_the_limits(evaluator: TableEvaluator, task: Task) -> None:
    outside = task.space.apply(task.space.start, AddTransform("median", Place((0,))))
    with pytest.raises(TableError, match=r"does not hold .*median.* within nodes 5, depth 3"):
        evaluator.evaluate(outside)


def test_table__a_miss_ends_a_search_instead_of_counting_as_a_failure(evaluator: TableEvaluator, task: Task) -> None:
    outside = task.space.apply(task.space.start, AddTransform("median", Place((0,))))
    with pytest.raises(TableError):
        Budget(evaluator, lambda evaluation: evaluation.score, 5).evaluate(outside)


def test_table__tells_the_same_each_time(task: Task, folder: Path, evaluator: TableEvaluator) -> None:
    again = TableEvaluator(task, evaluator.world, load_prices(), path=str(folder))
    for composition in sampled(evaluator, 20):
        one, other = evaluator.evaluate(composition), again.evaluate(composition)
        assert (one.score, one.latency_ms_mean, one.cost_usd_per_million) == (
            other.score,
            other.latency_ms_mean,
            other.cost_usd_per_million,
        )


def test_table__knows_its_optimum(folder: Path, evaluator: TableEvaluator) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    optimum = manifest["conditions"]["low_contrast"]["optimum"]
    reward = WeightedSum().bind(evaluator.task.catalog, load_prices(), evaluator.world)
    rewards = evaluator.rewards(reward)
    assert rewards.max() == pytest.approx(optimum["reward"])
    best = evaluator.table.space.composition(int(rewards.argmax()))
    assert best.id == optimum["id"]
    assert reward(evaluator.evaluate(best)) == pytest.approx(optimum["reward"])


def test_table__checks_itself_against_what_was_measured(folder: Path) -> None:
    check = json.loads((folder / "manifest.json").read_text())["check"]
    assert (check["compositions"], check["fitted_to"], check["scores_compared"]) == (12, 40, 52)
    assert check["scores_differing"] == 0
    assert check["latency"]["mape"] > 0
    assert load_per_core() >= 0


def test_recording__goes_on_where_it_was_stopped(task: Task, folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet") if path.name != "measured.parquet"}
    ClosedRecording.of("small", RECIPE, task, folder, load_prices()).record("all")
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_recording__closure_holds(task: Task, folder: Path) -> None:
    ClosedRecording.of("small", RECIPE, task, folder, load_prices()).record("closure")
    assert json.loads((folder / "closure.json").read_text())["compositions"] == len(Table(folder))


def test_recording__refuses_a_folder_of_another_recipe(task: Task, folder: Path) -> None:
    fewer = RECIPE.model_copy(update={"operators": {n: g for n, g in RECIPE.operators.items() if n != "vote"}})
    with pytest.raises(TableError, match="another catalog"):
        ClosedRecording.of("small", fewer, task, folder, load_prices())


def test_recipe__names_what_does_not_fit(task: Task) -> None:
    for grids, message in (
        ({"nothing": {"default": 1, "values": [1]}}, "no parameter"),
        (
            {"threshold": {"default": 2.0, "values": [2.0]}},
            "outside",
        ),
    ):
        operators = {**RECIPE.operators, "cascade": grids}
        recipe = Recipe.model_validate({**RECIPE.model_dump(), "operators": operators})
        with pytest.raises(TableError, match=message):
            part_of(task, recipe)


@pytest.mark.parametrize(
    ("world", "message"),
    [
        (World("clean", "cpu-2"), "recorded with resource=cpu-1"),
        (World("clean", "cpu-1", "offline:8"), "recorded with load=single_stream"),
        (World("inverted"), "has none such"),
    ],
)
def test_table__refuses_other_worlds(task: Task, folder: Path, world: World, message: str) -> None:
    with pytest.raises(TableError, match=message):
        TableEvaluator(task, world, load_prices(), path=str(folder))


def test_table__refuses_another_task(task: Task, folder: Path) -> None:
    with pytest.raises(TableError, match="was recorded of"):
        TableEvaluator(replace(task, name="mine"), World(), load_prices(), path=str(folder))


def test_recorded_task__needs_no_bundle(folder: Path, task: Task) -> None:
    recorded = recorded_task("digits", str(folder))
    evaluator = TableEvaluator(recorded, World("clean"), load_prices(), path=str(folder))
    assert evaluator.task.limits.nesting == 1
    assert evaluator.evaluate(evaluator.task.space.start).score > 0.5


@pytest.mark.parametrize("with_bundle", [True, False])
def test_search__replays_a_table(folder: Path, tmp_path: Path, digits_directory: Path, with_bundle: bool) -> None:
    chosen = ["task=bundle", f"task.path={digits_directory}"] if with_bundle else ["task=recorded", "task.name=digits"]
    chosen += [] if with_bundle else [f"task.path={folder}"]
    command = [sys.executable, str(ROOT / "experiments" / "search.py"), *chosen, "agent=local_search", "budget=80"]
    command += ["evaluator=table", f"evaluator.path={folder}", "condition=low_contrast", "tracker=files"]
    done = subprocess.run([*command, f"hydra.run.dir={tmp_path}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["evaluations"] == 80
    assert run["summary"]["found"]["reward"] >= run["summary"]["best_single"]["reward"] - 1e-9
    assert (tmp_path / "best.onnx").exists() == with_bundle


def test_search__says_where_a_table_is_missing(tmp_path: Path, digits_directory: Path) -> None:
    command = [sys.executable, str(ROOT / "experiments" / "search.py"), "task=bundle", f"task.path={digits_directory}"]
    command += ["evaluator=table", f"evaluator.path={tmp_path}/none", f"hydra.run.dir={tmp_path}/run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "benchmarks/record.py" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
