"""The tables of the repository: whole, closed, and as good as they say."""

import json
from pathlib import Path

import numpy as np
import pytest
from overview import text_of_all
from recorded import recorded

from gnncompose.composition.tree import Composition
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.recording.files import file_sha256, tables_directory
from gnncompose.evaluation.rows import RowsEvaluator
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.reward import WeightedSum
from gnncompose.tasks.bundle import read_description
from gnncompose.tasks.task import World

TABLES = sorted(path.parent for path in tables_directory().glob("*/manifest.json"))


@pytest.fixture(params=TABLES, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


@pytest.mark.parametrize("table", [pytest.param(name, marks=recorded(name)) for name in ("digits", "fashion")])
def test_table__is_there(table: str) -> None:
    assert table in {folder.name for folder in TABLES}


def test_table__files_are_those_of_the_manifest(folder: Path, manifest: dict) -> None:
    assert {name: file_sha256(folder / name) for name in manifest["sha256"]} == manifest["sha256"]


def test_table__was_checked(manifest: dict) -> None:
    assert 5_000 <= manifest["compositions"] <= 100_000
    assert manifest["closure"]["compositions"] == manifest["compositions"]
    assert manifest["check"]["compositions"] >= 500
    assert manifest["check"]["scores_compared"] >= 500
    assert manifest["check"]["scores_differing"] == 0


def test_table__is_closed_under_legal_edits(folder: Path, manifest: dict) -> None:
    task = read_description(folder) if manifest["recipe"].get("walked", False) else recorded_task(folder.name)
    evaluator = opened(folder, manifest, "clean")
    compositions = all_of(evaluator)
    assert len(compositions) == manifest["compositions"]
    ids = {composition.id for composition in compositions}
    for row in np.random.default_rng(4).choice(len(compositions), 20, replace=False):
        assert {c.id for _, c in task.space.successors(compositions[int(row)])} <= ids


def test_table__optimum_is_the_best_of_all_rows(folder: Path, manifest: dict) -> None:
    condition = manifest["task"]["conditions"][-1]
    evaluator = opened(folder, manifest, condition)
    reward = WeightedSum().bind(evaluator.task.catalog, load_prices(), evaluator.world)
    rewards = {composition.id: reward(evaluator.evaluate(composition)) for composition in all_of(evaluator)}
    optimum = manifest["conditions"][condition]["optimum"]
    assert max(rewards.values()) == pytest.approx(optimum["reward"], rel=1e-9)
    assert rewards[optimum["id"]] == max(rewards.values())


def opened(folder: Path, manifest: dict, condition: str) -> TableEvaluator | RowsEvaluator:
    if manifest["recipe"].get("walked", False):
        return RowsEvaluator(read_description(folder), World(condition), load_prices())
    return TableEvaluator(recorded_task(folder.name), World(condition), load_prices())


def all_of(evaluator: TableEvaluator | RowsEvaluator) -> list[Composition]:
    if isinstance(evaluator, RowsEvaluator):
        return list(evaluator.task.space.members.values())
    return [evaluator.table.space.composition(row) for row in range(len(evaluator.table))]


def test_tables__are_told_as_they_are() -> None:
    told = (tables_directory() / "README.md").read_text(encoding="utf-8")
    assert told == text_of_all(), "run python benchmarks/overview.py"
