"""Execution on small operators made here: regions, routers, opsets, damaged artifacts, bounds."""

import gc
import hashlib
import weakref
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import Operator, PortType
from gnncompose.composition.tree import Composition, Expression, Input, Node, make_node
from gnncompose.errors import CatalogError, EvaluationError
from gnncompose.execution.merge import merge
from gnncompose.execution.outputs import OutputCache, whole_split_output
from gnncompose.execution.plan import Plan
from gnncompose.execution.sessions import SessionPool
from gnncompose.tasks.task import Split

TABLE, PROBS = "table float32[N,4]", "probs float32[N,3]"
CASCADE = Operator.model_validate({"name": "cascade", "kind": "cascade", "builtin": "confidence"})
ENSEMBLES = [
    Operator.model_validate({"name": name, "kind": "ensemble", "builtin": name})
    for name in ("mean", "weighted_mean", "vote", "max_confidence")
]


def linear(seed: int, opset: int = 17, ir_version: int = 8, subgraph: bool = False) -> bytes:
    """Softmax of a random linear map; with `subgraph`, inside both branches of an `If`."""
    weights = np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32) * 2
    nodes = [
        helper.make_node("MatMul", ["table", "w"], ["h"], name="same_name"),
        helper.make_node("Softmax", ["h"], ["probs"], axis=1),
    ]
    initializers = [numpy_helper.from_array(weights, "w")]
    if subgraph:
        info = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
        body = helper.make_graph([helper.make_node("MatMul", ["table", "w"], ["inner"])], "body", [], [info])
        initializers.append(numpy_helper.from_array(np.array(True), "yes"))
        nodes[0] = helper.make_node("If", ["yes"], ["h"], then_branch=body, else_branch=body)
    return serialized(nodes, initializers, ["table"], opset, ir_version)


def scaled() -> bytes:
    """The table times the parameter `factor`."""
    nodes = [helper.make_node("Mul", ["table", "factor"], ["out"])]
    return serialized(nodes, [], ["table", "factor"], 17, 8, output="out", columns=4)


def serialized(nodes, initializers, inputs, opset, ir_version, output="probs", columns=3) -> bytes:
    shapes = {"table": ["N", 4], "factor": []}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", columns])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    return model.SerializeToString()


def write(folder: Path, name: str, content: bytes, kind: str = "model", **changes) -> Operator:
    (folder / f"{name}.onnx").write_bytes(content)
    entry = {
        "name": name,
        "kind": kind,
        "artifact": f"{name}.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "inputs": [{"name": "table", "type": TABLE}],
        "outputs": [{"name": "probs", "type": PROBS}],
    }
    return Operator.model_validate(entry | changes)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    operators = [
        write(tmp_path, "a", linear(1)),
        write(tmp_path, "b", linear(2, opset=13, ir_version=7)),
        write(tmp_path, "c", linear(3, opset=18, ir_version=9)),
        write(tmp_path, "d", linear(4, subgraph=True)),
        write(tmp_path, "route", linear(5), kind="router"),
        write(
            tmp_path,
            "scale",
            scaled(),
            kind="transform",
            outputs=[{"name": "out", "type": TABLE}],
            parameters={"factor": {"default": 1.0, "low": 0.0, "high": 4.0}},
        ),
        CASCADE,
        *ENSEMBLES,
    ]
    return Catalog("small", tuple(operators), tmp_path)


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)


X = Input(PortType.parse(TABLE))


def node(catalog: Catalog, name: str, *inputs: Expression, **parameters) -> Node:
    return make_node(catalog.operator(name), inputs or (X,), parameters)


def check_all_forms(catalog: Catalog, root: Node, rows: np.ndarray, expected: np.ndarray | None = None) -> Plan:
    """Plan, merged model and whole-split output give the same, for many rows and for one."""
    composition = Composition(root)
    plan = Plan(composition, SessionPool(catalog))
    session = ort.InferenceSession(merge(composition, catalog).SerializeToString())
    found = plan.run(rows)
    split = Split(rows, np.zeros(len(rows)))
    np.testing.assert_allclose(
        whole_split_output(composition, split, SessionPool(catalog), OutputCache()), found, atol=1e-5
    )
    if expected is not None:
        np.testing.assert_allclose(found, expected, atol=1e-5)
    for some in (rows, rows[:1], rows[7:8]):
        np.testing.assert_allclose(session.run(["output"], {"input": some})[0], plan.run(some), atol=1e-5)
    return plan


def test_plan__runs_later_stages_on_escalated_rows_only(catalog: Catalog, rows: np.ndarray) -> None:
    stages = [node(catalog, name) for name in "abc"]
    root = node(catalog, "cascade", *stages, threshold=0.7)
    plan = check_all_forms(catalog, root, rows)
    first, second = (
        Plan(Composition(stage), SessionPool(catalog)).run(rows).max(axis=1) >= 0.7 for stage in stages[:2]
    )
    counts = plan.row_counts(rows)
    assert [counts[stage.id] for stage in stages] == [50, (~first).sum(), (~first & ~second).sum()]


def test_plan__runs_a_node_shared_by_two_stages_where_both_need_it(catalog: Catalog, rows: np.ndarray) -> None:
    shared, later = node(catalog, "scale", factor=2.0), node(catalog, "scale", factor=3.0)
    stages = [
        node(catalog, "a", shared),
        node(catalog, "b", shared),
        node(catalog, "c", later),
        node(catalog, "b", later),
    ]
    root = node(catalog, "cascade", *stages, threshold=0.95)
    counts = check_all_forms(catalog, root, rows).row_counts(rows)
    assert counts[shared.id] == 50
    assert counts[later.id] == counts[stages[2].id] < counts[stages[1].id] < 50
    assert counts[stages[3].id] < counts[stages[2].id]


@pytest.mark.parametrize(("threshold", "share"), [(0.5, "none"), (0.999, "all")])
def test_plan__cascade_with_no_or_all_rows_escalated(catalog: Catalog, rows: np.ndarray, threshold, share) -> None:
    sharp = rows * (50 if share == "none" else 0.01)
    first, second = node(catalog, "a"), node(catalog, "b")
    plan = check_all_forms(catalog, node(catalog, "cascade", first, second, threshold=threshold), sharp)
    kept = Plan(Composition(first), SessionPool(catalog)).run(sharp).max(axis=1) >= threshold
    assert plan.row_counts(sharp)[second.id] == (~kept).sum()
    assert kept.mean() > 0.9 if share == "none" else not kept.any()


def test_plan__nested_cascades_in_ensembles_and_ensembles_in_cascades(catalog: Catalog, rows: np.ndarray) -> None:
    a, b, c, d = (node(catalog, name) for name in "abcd")
    inner = node(catalog, "cascade", a, node(catalog, "vote", b, c), threshold=0.8)
    mixed = node(catalog, "max_confidence", inner, d)
    outer = node(catalog, "cascade", mixed, node(catalog, "weighted_mean", c, inner, weights=(1.0, 3.0)), threshold=0.9)
    check_all_forms(catalog, outer, rows)
    check_all_forms(catalog, node(catalog, "mean", outer, b), rows)


def test_plan__router_sends_each_row_to_its_branch(catalog: Catalog, rows: np.ndarray) -> None:
    a, b, d = (node(catalog, name) for name in "abd")
    late = node(catalog, "cascade", b, node(catalog, "c"), threshold=0.8)
    root = make_node(catalog.operator("route"), [node(catalog, "scale", factor=2.0), a, late, d])
    sessions = SessionPool(catalog)
    choice = sessions.session(catalog.operator("route")).run(None, {"table": rows * 2})[0].argmax(axis=1)
    outputs = np.stack([Plan(Composition(branch), sessions).run(rows) for branch in (a, late, d)])
    counts = check_all_forms(catalog, root, rows, outputs[choice, np.arange(50)]).row_counts(rows)
    assert [counts[a.id], counts[late.id], counts[d.id]] == list(np.bincount(choice, minlength=3))


@pytest.mark.parametrize("name", ["mean", "weighted_mean", "vote", "max_confidence"])
def test_combiner__agrees_with_its_definition(catalog: Catalog, rows: np.ndarray, name: str) -> None:
    root = node(catalog, name, *(node(catalog, model) for model in "abc"))
    stack = np.stack([Plan(Composition(child), SessionPool(catalog)).run(rows) for child in root.inputs])
    best = stack.max(axis=2).argmax(axis=0)
    expected = {
        "mean": stack.mean(axis=0),
        "weighted_mean": stack.mean(axis=0),
        "vote": np.eye(3)[stack.argmax(axis=2)].mean(axis=0),
        "max_confidence": stack[best, np.arange(50)],
    }
    check_all_forms(catalog, root, rows, expected[name])


def test_plan__feeds_parameters(catalog: Catalog, rows: np.ndarray) -> None:
    one, three = (
        Plan(Composition(node(catalog, "a", node(catalog, "scale", factor=f))), SessionPool(catalog))
        for f in (1.0, 3.0)
    )
    np.testing.assert_allclose(three.run(rows), one.run(rows * 3), atol=1e-5)


def test_plan__refuses_no_rows(catalog: Catalog, rows: np.ndarray) -> None:
    with pytest.raises(EvaluationError, match="no rows"):
        Plan(Composition(node(catalog, "a")), SessionPool(catalog)).run(rows[:0])


def test_merge__shares_weights_and_keeps_names_apart(catalog: Catalog) -> None:
    uses = [node(catalog, "a", node(catalog, "scale", factor=f)) for f in (0.5, 1.0, 2.0)]
    model = merge(Composition(node(catalog, "mean", *uses)), catalog, "table", "answer")
    assert sum(tensor.dims == [4, 3] for tensor in model.graph.initializer) == 1
    assert [model.graph.input[0].name, model.graph.output[0].name] == ["table", "answer"]
    onnx.checker.check_model(model, full_check=True)


def test_session__truncated_artifact_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    cut = write(tmp_path, "cut", linear(1)[:60])
    with pytest.raises(CatalogError, match=r'"cut": cut\.onnx does not load'):
        SessionPool(catalog).session(cut)
    with pytest.raises(EvaluationError, match="cut"):
        Plan(Composition(make_node(cut, [X])), SessionPool(catalog))


def test_session__altered_or_missing_artifact_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(linear(9))
    with pytest.raises(CatalogError, match="has sha256"):
        SessionPool(catalog).session(catalog.operator("a"))
    with pytest.raises(CatalogError, match="has sha256"):
        merge(Composition(node(catalog, "a")), catalog)
    (tmp_path / "b.onnx").unlink()
    with pytest.raises(CatalogError, match="No such file"):
        SessionPool(catalog).session(catalog.operator("b"))


def test_session_pool__is_bounded(catalog: Catalog) -> None:
    pool = SessionPool(catalog, limit=2)
    kept = [pool.session(catalog.operator(name)) for name in "abc"]
    assert len(pool) == 2
    assert pool.session(catalog.operator("c")) is kept[2]
    assert pool.session(catalog.operator("a")) is not kept[0]


def test_output_cache__never_exceeds_its_bytes(catalog: Catalog, rows: np.ndarray) -> None:
    cache, sessions = OutputCache(limit_bytes=rows.nbytes * 3), SessionPool(catalog)
    for factor in np.linspace(0.1, 3.0, 30):
        root = node(catalog, "a", node(catalog, "scale", factor=float(factor)))
        whole_split_output(Composition(root), Split(rows, rows[:, 0]), sessions, cache)
        assert cache.bytes <= cache.limit_bytes
    assert 0 < len(cache) < 8


def test_whole_split_output__leaves_no_array_to_the_garbage_collector(catalog: Catalog, rows: np.ndarray) -> None:
    cache, split = OutputCache(), Split(rows, rows[:, 0])
    inner = node(catalog, "a")
    gc.disable()
    try:
        whole_split_output(
            Composition(node(catalog, "mean", inner, node(catalog, "b"))), split, SessionPool(catalog), cache
        )
        kept = cache.get(inner.id, split.sha256)
        assert kept is not None
        alive = weakref.ref(kept)
        del kept, cache
        assert alive() is None
    finally:
        gc.enable()


def test_output_cache__runs_only_what_is_new(catalog: Catalog, rows: np.ndarray) -> None:
    cache, sessions, split = OutputCache(), SessionPool(catalog), Split(rows, rows[:, 0])
    a, b = node(catalog, "a"), node(catalog, "b")
    whole_split_output(Composition(node(catalog, "mean", a, b)), split, sessions, cache)
    misses = cache.misses
    whole_split_output(Composition(node(catalog, "cascade", a, b)), split, sessions, cache)
    assert cache.misses == misses + 1
    whole_split_output(Composition(a), Split(rows + 1, rows[:, 0]), sessions, cache)
    assert cache.misses == misses + 2
