"""The embedded task is what its description says, and composing pays on it."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from gnncompose.tasks.bundle import check_bundle, load_task
from gnncompose.tasks.factory.artifact import session
from gnncompose.tasks.task import Task
from gnncompose.tasks.zoo import build_task, shipped_tasks


@pytest.fixture(scope="module")
def task(digits_directory: Path) -> Task:
    return load_task(digits_directory)


def accuracy(task: Task, condition: str, *chain: str) -> float:
    """Of operators in series, `name=value` sets the one parameter of a transform."""
    split = task.split(condition, "validation")
    rows = split.x
    for step in chain:
        name, _, value = step.partition("=")
        operator = task.catalog.operator(name)
        scalars = {k: np.array(float(value or p.default), np.float32) for k, p in operator.parameters.items()}
        opened = session(task.catalog.artifact_path(operator).read_bytes())
        rows = opened.run([operator.outputs[0].name], {operator.inputs[0].name: rows, **scalars})[0]
    return float((rows.argmax(axis=1) == split.y).mean())


def test_shipped_tasks__are_named_like_their_modules() -> None:
    tasks = shipped_tasks()
    assert {"digits", "fashion"} <= tasks.keys()
    assert all(task.description and task.licence for task in tasks.values())


def test_digits__passes_the_whole_check(digits_directory: Path) -> None:
    report = check_bundle(digits_directory)
    assert max(report.row_deviation.values()) < 1e-5


def test_digits__has_models_of_many_families_transforms_and_conditions(task: Task) -> None:
    assert len({model.family for model in task.catalog.models}) >= 8
    assert len(task.catalog.transforms) >= 5
    assert any(transform.parameters for transform in task.catalog.transforms)
    assert len(task.conditions) >= 6
    assert [e.builtin for e in task.catalog.combiners] == [
        "mean", "weighted_mean", "vote", "max_confidence", "confidence",
    ]  # fmt: skip
    assert str(task.space.start) == "logistic(input)"


def test_digits__splits_share_no_rows(task: Task) -> None:
    rows = [{x.tobytes() for x in task.split("clean", name).x} for name in ("train", "validation", "test")]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]


def test_digits__every_model_answers_clean_data(task: Task) -> None:
    for model in task.catalog.models:
        assert accuracy(task, "clean", model.name) > 0.75, model.name


def test_digits__the_order_of_transforms_decides_in_fog_with_impulses(task: Task) -> None:
    alone = max(accuracy(task, "low_contrast_impulse", model.name) for model in task.catalog.models)
    right = accuracy(task, "low_contrast_impulse", "despeckle=0.2", "stretch", "svm")
    wrong = accuracy(task, "low_contrast_impulse", "stretch", "despeckle=0.2", "svm")
    assert right > 0.8
    assert right > alone + 0.3
    assert right > wrong + 0.3


def test_digits__the_right_transform_undoes_its_condition(task: Task) -> None:
    clean = accuracy(task, "clean", "cnn")
    for condition, transform in {"low_contrast": "stretch", "inverted": "invert", "rotated": "rotate_180"}.items():
        assert accuracy(task, condition, "cnn") < clean - 0.3
        assert accuracy(task, condition, transform, "cnn") == pytest.approx(clean, abs=0.01)
    assert accuracy(task, "clean", "invert", "cnn") < clean - 0.3


def test_digits__artifacts_share_versions_and_carry_no_traces(task: Task) -> None:
    for operator in task.catalog.operators:
        if operator.artifact:
            model = onnx.load(task.catalog.artifact_path(operator))
            assert {o.domain: o.version for o in model.opset_import}.items() <= {"": 18, "ai.onnx.ml": 3}.items()
            assert model.ir_version == 10
            assert not model.producer_name
            assert not model.doc_string
            assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


@pytest.mark.slow
def test_digits__same_seed_gives_the_same_bundle(tmp_path: Path, task: Task) -> None:
    build_task("digits", tmp_path / "digits", seed=0)
    again = load_task(tmp_path / "digits")
    assert again.catalog.sha256 == task.catalog.sha256
    for condition in task.conditions:
        assert again.split(condition, "test").sha256 == task.split(condition, "test").sha256
