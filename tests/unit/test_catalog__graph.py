"""Features of ONNX graphs against counts done by hand."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from gnncompose.catalog.graph import graph_features, group_of
from gnncompose.errors import CatalogError


def constant(name: str, *shape: int, dtype: type = np.float32):
    return numpy_helper.from_array(np.ones(shape, dtype=dtype), name)


def model(nodes, inputs, outputs, constants=()) -> bytes:
    def values(named):
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in named.items()]

    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), list(constants))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def test_graph_features__of_a_dense_network() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    constants = [constant("w", 8, 4), constant("b", 8), constant("v", 8, 3)]
    found = graph_features(model(nodes, {"x": ("N", 4)}, {"y": ("N", 3)}, constants))
    assert found.nodes == 3
    assert found.counts == {"matmul": 2, "arithmetic": 1}
    assert found.flops == 2 * 8 * 4 + 8 + 2 * 3 * 8
    assert found.weight_bytes == 4 * (8 * 4 + 8 + 8 * 3)
    assert found.moved_bytes == 4 * ((4 + 8) + (8 + 8) + (8 + 3))
    assert found.tree_nodes == 0


def test_graph_features__of_a_convolution_count_each_output_pixel() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["h"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    found = graph_features(model(nodes, {"x": ("N", 2, 6, 6)}, {"y": ("N", 45)}, [constant("w", 5, 2, 3, 3)]))
    convolved, pooled = 5 * 6 * 6, 5 * 3 * 3
    assert found.flops == 2 * convolved * 2 * 9 + pooled * 4
    assert found.counts == {"convolution": 1, "pool": 1, "free": 1}
    assert found.moved_bytes == 4 * ((2 * 36 + convolved) + (convolved + pooled))


def test_graph_features__of_trees() -> None:
    tree = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        nodes_treeids=[0, 0, 0, 1, 1, 1],
        nodes_nodeids=[0, 1, 2, 0, 1, 2],
        nodes_featureids=[0] * 6,
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * 2,
        nodes_values=[0.5] * 6,
        nodes_truenodeids=[1, 0, 0] * 2,
        nodes_falsenodeids=[2, 0, 0] * 2,
        target_treeids=[0, 0, 1, 1],
        target_nodeids=[1, 2, 1, 2],
        target_ids=[0] * 4,
        target_weights=[1.0] * 4,
        n_targets=1,
    )
    found = graph_features(model([tree], {"x": ("N", 3)}, {"y": ("N", 1)}))
    assert found.tree_nodes == 6
    assert found.counts == {"tree": 1}
    assert found.flops == pytest.approx(2 * np.log2(2 + 3))


def test_graph_features__leave_out_what_is_computed_once() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    constants = [constant("q", 4, 4, dtype=np.int8), numpy_helper.from_array(np.float32(0.1), "scale")]
    found = graph_features(model(nodes, {"x": ("N", 4)}, {"y": ("N", 4)}, constants))
    assert found.counts == {"matmul": 1}
    assert found.weight_bytes == 4 * 4 + 4
    assert found.moved_bytes == 4 * (4 + 4)


def test_graph_features__look_into_branches() -> None:
    def branch(name: str, kind: str):
        node = helper.make_node(kind, ["x"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("a", "Exp"), else_branch=branch("b", "Relu"))
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    assert graph_features(content).counts == {"control": 1, "transcendental": 1, "arithmetic": 1}


def test_graph_features__bound_what_a_stranger_claims() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    found = graph_features(model([node], {"x": (2**40, 2**40)}, {"y": (2**40, 2**40)}))
    assert found.flops == found.moved_bytes == 1e18


def test_graph_features__refuse_what_is_no_model() -> None:
    with pytest.raises(CatalogError, match="export or fetch it again"):
        graph_features(b"\x08\x09not a model")


def test_group__of_unknown_kinds() -> None:
    assert group_of("ReduceMax") == "reduce"
    assert group_of("FancyNewOp") == "other"
