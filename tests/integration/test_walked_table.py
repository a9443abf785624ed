"""A small table of a walked space, really recorded: it must tell what the table of the same, closed space tells."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gnncompose.errors import TableError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.recording.closed import ClosedRecording
from gnncompose.evaluation.recording.recipe import Recipe
from gnncompose.evaluation.recording.walked import WalkedRecording
from gnncompose.evaluation.rows import RowsEvaluator
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.tasks.bundle import load_task, read_description
from gnncompose.tasks.task import Task, World

CONDITIONS = ("clean", "low_contrast")
RECIPE = Recipe.model_validate(
    {
        "format": 1,
        "task": "digits",
        "walked": True,
        "limits": {"nodes": 4, "depth": 3, "branches": 2, "transforms": 1},
        "operators": {
            **{name: {} for name in ("tree", "mlp", "naive_bayes", "stretch", "most_confident")},
            "cascade": {"threshold": {"default": 0.9, "values": [0.7, 0.9]}},
        },
        "fit": 30,
        "check": 12,
        "memory": 6,
        "repeats": 1,
    }
)


@pytest.fixture(scope="module")
def task(digits_directory: Path) -> Task:
    return replace(load_task(digits_directory), conditions=CONDITIONS)


@pytest.fixture(scope="module")
def folder(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walked")
    WalkedRecording.of("small", RECIPE, task, folder, load_prices()).record("all")
    return folder


@pytest.fixture(scope="module")
def evaluator(folder: Path) -> RowsEvaluator:
    return RowsEvaluator(read_description(folder), World("low_contrast"), load_prices())


@pytest.mark.parametrize("split", ["validation", "test"])
def test_walked_table__tells_what_the_closed_one_tells(
    task: Task, evaluator: RowsEvaluator, tmp_path_factory: pytest.TempPathFactory, split: str
) -> None:
    closed = tmp_path_factory.getbasetemp() / "closed"
    recording = ClosedRecording.of("small", RECIPE.model_copy(update={"walked": False}), task, closed, load_prices())
    recording.record("all")
    table = TableEvaluator(task, World("low_contrast"), load_prices(), path=str(closed))
    space = table.table.space
    assert len(space) == len(evaluator.task.space.members)
    latencies_ms = []
    for composition in map(space.composition, range(len(space))):
        told, same = evaluator.evaluate(composition, split), table.evaluate(composition, split)
        assert (told.metric, told.score) == (same.metric, same.score)
        assert told.artifact_bytes == same.artifact_bytes
        latencies_ms.append((told.latency_ms_mean, same.latency_ms_mean))
    assert np.corrcoef(np.log(latencies_ms).T)[0, 1] > 0.9


def test_walked_table__says_what_it_is(folder: Path, evaluator: RowsEvaluator) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["compositions"] == manifest["closure"]["compositions"] == len(evaluator.task.space.members)
    assert (manifest["check"]["compositions"], manifest["check"]["scores_compared"]) == (12, 42)
    assert manifest["check"]["scores_differing"] == 0
    optimum = manifest["conditions"]["low_contrast"]["optimum"]
    assert optimum["reward"] >= manifest["conditions"]["low_contrast"]["best_single"]
    assert optimum["id"] in evaluator.task.space.members


def test_walked_table__says_that_it_is_no_closed_one(folder: Path) -> None:
    with pytest.raises(
        TableError, match=r"holds evaluations of some compositions, .* evaluator=rows; give the name of"
    ):
        recorded_task("small", str(folder))


def test_walked_table__is_closed_under_legal_edits(folder: Path, evaluator: RowsEvaluator) -> None:
    edits = json.loads((folder / "closure.json").read_text())["edits"]
    space = evaluator.task.space
    assert sum(len(space.successors(composition)) for composition in space.members.values()) == edits


def test_recording__goes_on_where_it_was_stopped(task: Task, folder: Path) -> None:
    kept = [path for path in folder.rglob("*.parquet") if path.parent.name == "rows" or "comp" in path.name]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert len(before) == 3
    WalkedRecording.of("small", RECIPE, task, folder, load_prices()).record("all")
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_recording__closure_holds(task: Task, folder: Path) -> None:
    WalkedRecording.of("small", RECIPE, task, folder, load_prices()).record("closure")


def test_recording__refuses_routers(task: Task, tmp_path: Path) -> None:
    routed = replace(task, catalog=replace(task.catalog, operators=(*task.catalog.operators, _router(task))))
    recipe = RECIPE.model_copy(update={"operators": {**RECIPE.operators, "route": {}}})
    with pytest.raises(TableError, match='"route" is a router'):
        WalkedRecording.of("small", recipe, routed, tmp_path, load_prices()).record("space")


def _router(task: Task):
    model = task.catalog.operator("tree")
    return model.model_copy(update={"name": "route", "kind": "router"})
