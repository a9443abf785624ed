"""What an artifact's ONNX graph tells of its speed before anything is run: how much it computes, moves and holds.

Features of this kind predict latency across devices in nn-Meter (Zhang et al., MobiSys 2021) and NNLQP (Liu et al.,
ICPP 2022). A pure function of the file's bytes: nothing is executed, and no tensor is allocated.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from gnncompose.catalog.operator import GraphFeatures
from gnncompose.errors import CatalogError

Shapes = Mapping[str, tuple[int, ...]]
Flops = Callable[[onnx.NodeProto, Shapes], float]
_GROUPS: dict[str, tuple[str, ...]] = {
    "convolution": ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv"),
    "matmul": ("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul", "QGemm", "Einsum", "Attention"),
    "linear": ("LinearClassifier", "LinearRegressor"),
    "tree": ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble"),
    "kernel": ("SVMClassifier", "SVMRegressor"),
    "recurrent": ("LSTM", "GRU", "RNN"),
    "pool": ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool"),
    "sort": ("TopK", "NonZero", "Unique", "NonMaxSuppression", "ArgMax", "ArgMin"),
    "normalise": ("Softmax", "LogSoftmax", "Normalizer", "BatchNormalization", "LayerNormalization", "Scaler"),
    "transcendental": ("Exp", "Log", "Pow", "Sqrt", "Tanh", "Sigmoid", "Erf", "Gelu", "Softplus", "Sin", "Cos"),
    "quantise": ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    "move": ("Slice", "Concat", "Gather", "GatherElements", "Pad", "Transpose", "Split", "Tile", "Resize", "Where"),
    "text": ("TfIdfVectorizer", "StringNormalizer", "Tokenizer", "LabelEncoder", "StringSplit", "StringConcat"),
    "control": ("If", "Loop", "Scan"),
    "free": ("Flatten", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Shape", "Constant", "Cast"),
    "arithmetic": ("Add", "Sub", "Mul", "Div", "Min", "Max", "Neg", "Abs", "Relu", "Clip", "Greater", "Less", "Equal"),
}
GROUPS = (*_GROUPS, "reduce", "other")
_GROUP_OF = {kind: group for group, kinds in _GROUPS.items() for kind in kinds}
_BYTES: dict[int, int] = {
    TensorProto.DOUBLE: 8,
    TensorProto.INT64: 8,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.BOOL: 1,
}
_MOST = 1e18  # a stranger's file may claim any shape


def graph_features(content: bytes) -> GraphFeatures:
    """Features of an artifact's graph, for one row.

    Loops count once, since how often they run is decided by data.

    Args:
        content: The file's bytes.

    Raises:
        CatalogError: The bytes are no ONNX model.
    """
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise CatalogError("the artifact is no ONNX model, or a cut-off one; export or fetch it again") from None
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
    # where this fails, the shapes that the file names itself must do
    with contextlib.suppress(onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        model = onnx.shape_inference.infer_shapes(model)  # pyright: ignore[reportUnknownMemberType]
    shapes, sizes = _shapes(model.graph), _constant_bytes(model.graph)
    counts: Counter[str] = Counter()
    flops = moved = weights = 0.0
    trees = nodes = 0
    constant = set(sizes)
    for node in _nodes(model.graph):
        group = group_of(node.op_type)
        if node.input and constant.issuperset(filter(None, node.input)):
            constant.update(node.output)  # computed once when the session opens, as dequantised weights are
            weights += sum(sizes.get(name, 0) for name in node.input)
            continue
        counts[group] += 1
        nodes += 1
        flops += _flops(node, group, shapes)
        weights += sum(sizes.get(name, 0) for name in node.input) + _attribute_bytes(node)
        trees += _tree_nodes(node)
        if group != "free":
            moved += sum(_elements(shapes, name) * 4 for name in (*node.input, *node.output) if name not in constant)
    return GraphFeatures(
        nodes=nodes,
        flops=min(flops, _MOST),
        moved_bytes=min(moved, _MOST),
        weight_bytes=int(min(weights, _MOST)),
        tree_nodes=trees,
        counts={group: counts[group] for group in GROUPS if counts[group]},
    )


def group_of(kind: str) -> str:
    """The group that an ONNX operator type is counted in."""
    if kind in _GROUP_OF:
        return _GROUP_OF[kind]
    return "reduce" if kind.startswith("Reduce") else "other"


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of graphs in attributes too."""
    waiting = [graph]
    while waiting:
        for node in waiting.pop().node:
            yield node
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else list(attribute.graphs)


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Shape by tensor name; an axis that is not known counts as 1."""
    found: dict[str, tuple[int, ...]] = {}
    for value in (*graph.input, *graph.output, *graph.value_info):
        found[value.name] = tuple(max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim)
    for tensor in _constants(graph):
        found[tensor.name] = tuple(tensor.dims)
    return found


def _constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    tensor = onnx.TensorProto()
                    tensor.dims.extend(attribute.t.dims)
                    tensor.data_type, tensor.name = attribute.t.data_type, node.output[0]
                    yield tensor


def _constant_bytes(graph: onnx.GraphProto) -> dict[str, int]:
    return {tensor.name: math.prod(tensor.dims) * _BYTES.get(tensor.data_type, 4) for tensor in _constants(graph)}


def _elements(shapes: Shapes, name: str) -> float:
    return float(math.prod(shapes.get(name, ()))) if name else 0.0


def _flops(node: onnx.NodeProto, group: str, shapes: Shapes) -> float:
    """Arithmetic of one node for one row; two for a multiplication with addition."""
    given = max((_elements(shapes, name) for name in node.output), default=0.0)
    taken = _elements(shapes, node.input[0]) if node.input else 0.0
    match group:
        case "convolution" | "matmul":
            weights = [shapes.get(name, ()) for name in node.input[1:] if len(shapes.get(name, ())) >= 2]
            if not weights:
                return 2 * given
            # of a convolution's [out, in, …] each output needs one row; of a matrix [k, n], k numbers
            kernel = math.prod(weights[0][1:]) if group == "convolution" else _inner(node, weights[0])
            return 2.0 * given * kernel
        case "recurrent":
            steps = shapes.get(node.input[0], (1,))[0]
            return 2.0 * steps * sum(_elements(shapes, name) for name in node.input[1:3])
        case "linear" | "kernel":
            return 2.0 * sum(len(a.floats) for a in node.attribute if a.name in ("coefficients", "support_vectors"))
        case "tree":
            return _tree_count(node) * math.log2(2 + _tree_nodes(node) / max(_tree_count(node), 1))
        case "pool":
            kernel = next((math.prod(a.ints) for a in node.attribute if a.name == "kernel_shape"), 0)
            return given * kernel if kernel else taken
        case "sort":
            return taken * math.log2(2 + taken)
        case "free" | "control":
            return 0.0
        case _:
            return max(given, taken)


def _inner(node: onnx.NodeProto, matrix: tuple[int, ...]) -> int:
    """The axis that a product sums over."""
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return matrix[-1] if transposed else matrix[-2]


def _attribute_bytes(node: onnx.NodeProto) -> int:
    """Bytes of the lists of numbers that classical models carry in attributes."""
    return sum(4 * len(a.floats) + 8 * len(a.ints) for a in node.attribute) if node.domain == "ai.onnx.ml" else 0


def _tree_nodes(node: onnx.NodeProto) -> int:
    lists = {a.name: len(a.ints) for a in node.attribute if a.name in ("nodes_treeids", "nodes_featureids")}
    return max(lists.values(), default=0)


def _tree_count(node: onnx.NodeProto) -> int:
    return max((len(set(a.ints)) for a in node.attribute if a.name in ("nodes_treeids", "tree_roots")), default=0)
