"""The smallest of the series tasks, built whole: composing pays on it, and it can be built again."""

from pathlib import Path

import numpy as np
import pytest

from gnncompose.composition.chains import shortest_chains
from gnncompose.tasks.bundle import check_bundle, load_task
from gnncompose.tasks.factory.artifact import session
from gnncompose.tasks.task import Task
from gnncompose.tasks.zoo import build_task, shipped_tasks

pytestmark = pytest.mark.builds
NAME = "series_gun_point"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    directory = tmp_path_factory.mktemp("bundles") / NAME
    build_task(NAME, directory)
    return load_task(directory)


def accuracy(task: Task, condition: str, *chain: str) -> float:
    split = task.split(condition, "validation")
    rows = split.x
    for name in chain:
        operator = task.catalog.operator(name)
        scalars = {k: np.array(p.default, np.float32) for k, p in operator.parameters.items()}
        opened = session(task.catalog.artifact_path(operator).read_bytes())
        rows = opened.run([operator.outputs[0].name], {operator.inputs[0].name: rows, **scalars})[0]
    return float((rows.argmax(axis=1) == split.y).mean())


def test_series__offers_a_task_for_each_of_the_eight_sets() -> None:
    assert len([name for name in shipped_tasks() if name.startswith("series_")]) == 8


def test_series__passes_the_whole_check(task: Task) -> None:
    report = check_bundle(task.directory)
    assert max(report.row_deviation.values()) < 1e-4


def test_series__has_models_on_series_and_on_features_of_each_extractor(task: Task) -> None:
    chains = shortest_chains(task.catalog, task.input.type)
    read = {chains[model.name].inputs[0].type.domain for model in task.catalog.models}
    assert read == {"series", "features"}
    assert len(task.catalog.models) >= 8
    assert len(task.catalog.transforms) >= 4
    extractors = [t for t in task.catalog.transforms if t.outputs[0].type.domain == "features"]
    assert len({str(extractor.outputs[0].type) for extractor in extractors}) == len(extractors) == 4
    assert str(task.space.start) == "linear(input)"


def test_series__the_right_transform_mends_its_condition(task: Task) -> None:
    model = ("rocket_l", "ridge_rocket_l")
    clean = accuracy(task, "clean", *model)
    for condition, mend in {"spikes": "median", "missing": "fill", "wander": "detrend"}.items():
        assert accuracy(task, condition, *model) < clean - 0.15
        assert accuracy(task, condition, mend, *model) > accuracy(task, condition, *model) + 0.1


def test_series__the_wrong_transform_hurts(task: Task) -> None:
    model = ("rocket_l", "ridge_rocket_l")
    assert accuracy(task, "clean", "baseline", *model) < accuracy(task, "clean", *model) - 0.3


def test_series__order_matters_where_gaps_meet_a_wandering_baseline(task: Task) -> None:
    model = ("rocket_l", "ridge_rocket_l")
    right = accuracy(task, "missing_wander", "fill", "detrend", *model)
    wrong = accuracy(task, "missing_wander", "detrend", "fill", *model)
    assert right > wrong + 0.1


def test_series__same_seed_gives_the_same_bundle(task: Task, tmp_path: Path) -> None:
    build_task(NAME, tmp_path / NAME)
    again = load_task(tmp_path / NAME)
    assert again.catalog.sha256 == task.catalog.sha256
    for condition in task.conditions:
        assert again.split(condition, "test").sha256 == task.split(condition, "test").sha256
