"""Text that carries its confidence: layout, metric, and combiners that decide by it."""

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import Operator, PortType
from gnncompose.catalog.text import read_text, text_confidence, write_text
from gnncompose.composition.tree import Composition, Input, Node, make_node
from gnncompose.errors import CompositionError
from gnncompose.evaluation.metrics import find_metric
from gnncompose.execution.merge import merge
from gnncompose.execution.outputs import OutputCache, whole_split_output
from gnncompose.execution.plan import Plan
from gnncompose.execution.sessions import SessionPool
from gnncompose.tasks.task import Split

TABLE, TEXT = "table float32[N,4]", "text float32[N,4,2]"
TEXTS = st.lists(
    st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=12), min_size=1, max_size=6
)
CER = find_metric("cer")
COMBINERS = {
    name: Operator.model_validate({"name": name, "kind": kind, "builtin": name})
    for name, kind in (("confidence", "cascade"), ("max_confidence", "ensemble"), ("vote", "ensemble"))
}


@given(TEXTS)
def test_text__is_read_as_it_was_written(texts: list[str]) -> None:
    assert read_text(write_text(texts, 12)) == texts


def test_text__skips_places_where_nothing_stands() -> None:
    row = np.array([[[0, 0.9], [72, 0.5], [0, 0], [105, 0.7], [-3, 1], [2e6, 1]]], np.float32)
    assert read_text(row) == ["Hi"]
    assert text_confidence(row[:, :5])[0] == pytest.approx(0.6)
    assert text_confidence(np.zeros((2, 3, 2), np.float32)).tolist() == [0, 0]


def distance(one: str, other: str) -> int:
    """Levenshtein's distance, by the textbook's recursion."""
    before = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        now = [i]
        for j, b in enumerate(other, start=1):
            now.append(min(before[j] + 1, now[-1] + 1, before[j - 1] + (a != b)))
        before = now
    return before[-1]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.text("abc \n", max_size=8), st.text("abc \n", max_size=8)), min_size=1, max_size=5))
def test_cer__is_edits_per_character_of_the_labels(pairs: list[tuple[str, str]]) -> None:
    texts, labels = ([pair[side] for pair in pairs] for side in (0, 1))
    expected = sum(distance(*pair) for pair in pairs) / max(1, sum(map(len, labels)))
    found = CER.compute(write_text(texts, 8), np.array(labels))
    assert found == pytest.approx(expected)
    assert CER.score(found) == pytest.approx(max(0, 1 - expected))


def reader(seed: int) -> bytes:
    """A linear map of the table to four symbols, most of them standing, and their probabilities."""
    weights = np.random.default_rng(seed).standard_normal((4, 8)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["table", "w"], ["h"]),
        helper.make_node("Reshape", ["h", "shape"], ["pairs"]),
        helper.make_node("Split", ["pairs"], ["symbols", "sure"], axis=2, num_outputs=2),
        helper.make_node("Relu", ["symbols"], ["standing"]),
        helper.make_node("Ceil", ["standing"], ["codes"]),
        helper.make_node("Sigmoid", ["sure"], ["probability"]),
        helper.make_node("Concat", ["codes", "probability"], ["text"], axis=2),
    ]
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([-1, 4, 2]), "shape")]
    table = helper.make_tensor_value_info("table", TensorProto.FLOAT, ["N", 4])
    text = helper.make_tensor_value_info("text", TensorProto.FLOAT, ["N", 4, 2])
    graph = helper.make_graph(nodes, "reader", [table], [text], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


@pytest.fixture
def readers(tmp_path: Path) -> tuple[Catalog, list[Node]]:
    operators = []
    for seed in range(3):
        content = reader(seed)
        (tmp_path / f"r{seed}.onnx").write_bytes(content)
        entry = {
            "name": f"r{seed}",
            "kind": "model",
            "artifact": f"r{seed}.onnx",
            "sha256": hashlib.sha256(content).hexdigest(),
            "inputs": [{"name": "table", "type": TABLE}],
            "outputs": [{"name": "text", "type": TEXT}],
        }
        operators.append(Operator.model_validate(entry))
    return Catalog("readers", tuple(operators), tmp_path), [
        make_node(operator, [Input(PortType.parse(TABLE))]) for operator in operators
    ]


@pytest.mark.parametrize("name", ["confidence", "max_confidence"])
def test_combiner__goes_by_the_confidence_of_text(name: str, readers: tuple[Catalog, list[Node]]) -> None:
    catalog, nodes = readers
    parameters = {"threshold": 0.6} if name == "confidence" else {}
    composition = Composition(make_node(COMBINERS[name], nodes, parameters))
    rows = np.random.default_rng(5).standard_normal((60, 4)).astype(np.float32)
    sessions = SessionPool(catalog)
    stack = np.stack([Plan(Composition(node), sessions).run(rows) for node in nodes])
    sure = np.stack([text_confidence(output) for output in stack])
    choice = sure.argmax(axis=0) if name == "max_confidence" else np.where(sure[:2] >= 0.6, [[0], [1]], 2).min(axis=0)
    assert len(set(choice.tolist())) == 3
    expected = stack[choice, np.arange(60)]
    plan = Plan(composition, sessions)
    np.testing.assert_array_equal(plan.run(rows), expected)
    np.testing.assert_array_equal(np.concatenate([plan.run(rows[i : i + 1]) for i in range(60)]), expected)
    cached = whole_split_output(composition, Split(rows, np.zeros(60)), sessions, OutputCache())
    np.testing.assert_array_equal(cached, expected)
    merged = ort.InferenceSession(merge(composition, catalog).SerializeToString())
    np.testing.assert_allclose(merged.run(["output"], {"input": rows})[0], expected, atol=1e-5)
    np.testing.assert_allclose(merged.run(["output"], {"input": rows[3:4]})[0], expected[3:4], atol=1e-5)


def test_combiner__joins_no_text_without_confidence(readers: tuple[Catalog, list[Node]]) -> None:
    _, nodes = readers
    with pytest.raises(CompositionError, match="does not join text"):
        make_node(COMBINERS["vote"], nodes)
    bare = [
        make_node(
            Operator.model_validate(
                node.operator.model_dump() | {"outputs": [{"name": "text", "type": "text str[N]"}]}
            ),
            node.inputs,
        )
        for node in nodes
    ]
    with pytest.raises(CompositionError, match="does not join text"):
        make_node(COMBINERS["confidence"], bare)
