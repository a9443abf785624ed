"""What the real evaluator tells the store about evaluations that failed."""

import hashlib
import shutil
from pathlib import Path

import onnx
import pytest
import sqlalchemy as sql
import yaml
from onnx import TensorProto, helper

from gnncompose.errors import EvaluationError, StoreError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.evaluation.store import EvaluationStore
from gnncompose.evaluation.store.schema import EVALUATIONS
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task, World


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/evaluations.db"


@pytest.fixture
def task(tmp_path: Path, digits_directory: Path) -> Task:
    """Digits, where the model `logistic` loads but breaks off as soon as it runs."""
    bundle = tmp_path / "bundle"
    shutil.copytree(digits_directory, bundle)
    nodes = [
        helper.make_node("Constant", [], ["far"], value=helper.make_tensor("v", TensorProto.INT64, [1], [99])),
        helper.make_node("Gather", ["image", "far"], ["picked"], axis=2),
        helper.make_node("ReduceMean", ["picked"], ["probs"], axes=[2, 3], keepdims=0),
    ]
    ports = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8]),
        helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["N", 10]),
    ]
    graph = helper.make_graph(nodes, "broken", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, bundle / "operators" / "logistic.onnx")
    catalog = yaml.safe_load((bundle / "catalog.yaml").read_text())
    entry = next(operator for operator in catalog["operators"] if operator["name"] == "logistic")
    entry["sha256"] = hashlib.sha256((bundle / "operators" / "logistic.onnx").read_bytes()).hexdigest()
    (bundle / "catalog.yaml").write_text(yaml.safe_dump(catalog, sort_keys=False))
    return load_task(bundle)


def evaluator(task: Task, url: str) -> OnnxEvaluator:
    return OnnxEvaluator(task, World(), load_prices(), rows=2, repeats=2, store=url, measure_memory=False)


def test_evaluator__failure_is_in_the_store_and_is_not_run_again(task: Task, url: str) -> None:
    broken = next(single for single in task.space.single_models() if single.root.operator.name == "logistic")
    with pytest.raises(EvaluationError, match=r"failed: .*out of data bounds") as first:
        evaluator(task, url).evaluate(broken)
    with EvaluationStore(url) as store:
        with store.engine.connect() as connection:
            (row,) = connection.execute(sql.select(EVALUATIONS)).mappings()
        assert row["failure"] == str(first.value)
        assert row["wall_s"] > 0
        task.catalog.artifact_path(broken.root.operator).unlink()  # so a new run would fail otherwise
        with pytest.raises(EvaluationError, match=r"out of data bounds.*says the evaluation store.*prune .* --failed"):
            evaluator(task, url).evaluate(broken)
        assert store.prune(failed=True) == 1
    with pytest.raises(EvaluationError, match="No such file"):
        evaluator(task, url).evaluate(broken)


def test_evaluator__missing_artifact_is_no_failure_of_the_composition(task: Task, url: str) -> None:
    single = next(single for single in task.space.single_models() if single.root.operator.name == "tree")
    path = task.catalog.artifact_path(single.root.operator)
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(EvaluationError, match="No such file"):
        evaluator(task, url).evaluate(single)
    path.write_bytes(content)
    assert evaluator(task, url).evaluate(single).score > 0.5


def test_evaluator__lost_store_ends_a_run(task: Task, url: str) -> None:
    ours = evaluator(task, url)
    with EvaluationStore(url) as store, store.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE evaluations")
    with pytest.raises(StoreError, match="the evaluation store cannot be read"):
        ours.evaluate(task.space.start)
