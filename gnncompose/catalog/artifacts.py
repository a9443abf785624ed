"""What an artifact may be: one ONNX file of known operator domains whose tensors are what its entry says.

Nothing is run here, but a file is parsed: for a stranger's one this is called in the sandbox only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from gnncompose.catalog.operator import Operator, Port
from gnncompose.errors import CatalogError

LARGEST_INITIALIZER_BYTES = 1 << 30
DEEPEST_NESTING = 16
ALLOWED_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
# Operators of allowed domains that read a file of their own choice.
REFUSED_OPERATORS = ("EPContext",)
_DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
    TensorProto.BOOL: "bool",
    TensorProto.STRING: "str",
}


def check_artifact(content: bytes, operator: Operator, where: str) -> None:
    """Check an artifact against its catalog entry without running it.

    Args:
        content: The file's bytes.
        operator: Its entry.
        where: How messages name the entry.

    Raises:
        CatalogError: It is no whole ONNX model in one file, uses other domains, or its tensors differ.
    """
    where = f"{where}: {operator.artifact}"
    try:
        model = onnx.load_model_from_string(content)
        _check_content(model, where)  # before onnx looks for weights in other files
        onnx.checker.check_model(model)  # pyright: ignore[reportUnknownMemberType]
    except DecodeError:
        raise CatalogError(f"{where} is no ONNX model, or a cut-off one; export or fetch it again") from None
    except RecursionError:
        raise CatalogError(f"{where} nests too deep; flatten it and export it again") from None
    except (onnx.checker.ValidationError, ValueError) as problem:
        reason = next(iter(str(problem).splitlines()), "invalid")
        raise CatalogError(f"{where} is not a valid ONNX model ({reason}); export it again") from None
    if not model.graph.node:
        raise CatalogError(f"{where} holds an empty graph; export it again")
    _check_ports(model, operator, where)


def _check_content(model: onnx.ModelProto, where: str) -> None:
    if model.functions:
        raise CatalogError(f"{where} defines functions of its own; inline them (onnx.inliner) and export again")
    if model.training_info:
        raise CatalogError(f"{where} carries training graphs; export it for inference")
    total = 0
    for graph in _graphs(model.graph, where):
        for node in graph.node:
            if node.domain not in ALLOWED_DOMAINS or node.op_type in REFUSED_OPERATORS:
                raise CatalogError(
                    f'{where} uses {node.op_type} of domain "{node.domain}"; use operators of ai.onnx, ai.onnx.ml and '
                    f"com.microsoft only, and none that reads files"
                )
        for tensor in _tensors(graph):
            if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
                raise CatalogError(f"{where} keeps weights in another file; save it as one file")
            total += _declared_bytes(tensor, tensor.dims)
        total += sum(_declared_bytes(sparse.values, sparse.dims) for sparse in _sparse_tensors(graph))
    if total > LARGEST_INITIALIZER_BYTES:
        raise CatalogError(f"{where} declares {total} bytes of weights, above {LARGEST_INITIALIZER_BYTES}; shrink it")


def _declared_bytes(tensor: onnx.TensorProto, dims: Sequence[int]) -> int:
    """What a tensor of these dimensions takes in memory by its own words; onnx refuses negative ones later."""
    try:
        size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError, ValueError):
        size = 1
    return max(size * abs(math.prod(dims)), len(tensor.raw_data))


def _graphs(graph: onnx.GraphProto, where: str, depth: int = 0) -> Iterator[onnx.GraphProto]:
    """The graph and all graphs in its nodes' attributes."""
    if depth > DEEPEST_NESTING:
        raise CatalogError(f"{where} nests graphs more than {DEEPEST_NESTING} deep; flatten it and export it again")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner, where, depth + 1)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph's own: weights, those in attributes, and the parts of sparse ones."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
    for sparse in _sparse_tensors(graph):
        yield from (sparse.values, sparse.indices)


def _sparse_tensors(graph: onnx.GraphProto) -> Iterator[onnx.SparseTensorProto]:
    yield from graph.sparse_initializer
    for node in graph.node:
        for attribute in node.attribute:
            held = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            yield from (*held, *attribute.sparse_tensors)


def _check_ports(model: onnx.ModelProto, operator: Operator, where: str) -> None:
    """Every port and parameter is a tensor of the artifact with that type, and no input is left over."""
    optional = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in optional}
    outputs = {value.name: value for value in model.graph.output}
    for ports, values, kind in ((operator.inputs, inputs, "input"), (operator.outputs, outputs, "output")):
        for port in ports:
            if port.name not in values:
                raise CatalogError(f'{where} has no {kind} "{port.name}" but {", ".join(values)}; correct the name')
            _check_type(port, values[port.name], f"{where}: {kind}")
    for name in operator.parameters:
        kind = inputs[name].type.tensor_type if name in inputs else None
        if kind is None or kind.elem_type != TensorProto.FLOAT or len(kind.shape.dim):
            raise CatalogError(
                f'{where} has no float32 scalar input "{name}" for that parameter; drop it or export again'
            )
    spare = sorted(inputs.keys() - {port.name for port in operator.inputs} - operator.parameters.keys())
    if spare:
        raise CatalogError(f'{where} also needs input "{spare[0]}"; add it to inputs or parameters')


def _check_type(port: Port, value: onnx.ValueInfoProto, where: str) -> None:
    if not value.type.HasField("tensor_type"):
        kind = str(value.type.WhichOneof("value")).removesuffix("_type")
        raise CatalogError(
            f'{where} "{port.name}" is a {kind} in the file, not a tensor; export again, with zipmap off where the '
            f"model comes from scikit-learn"
        )
    tensor = value.type.tensor_type
    dtype = _DTYPES.get(tensor.elem_type, f"type {tensor.elem_type}")
    axes = [d.dim_value if d.HasField("dim_value") else (d.dim_param or "?") for d in tensor.shape.dim]
    fits = port.type.dtype == dtype and (
        not tensor.HasField("shape")
        or (
            len(axes) == len(port.type.axes)
            # A fixed size of the artifact must be the port's; what the artifact leaves open the port may fix.
            and all(
                theirs == mine or isinstance(theirs, str) for mine, theirs in zip(port.type.axes, axes, strict=True)
            )
        )
    )
    if not fits:
        shape = ",".join(map(str, axes))
        raise CatalogError(
            f'{where} "{port.name}" is {port.type.dtype}[{",".join(map(str, port.type.axes))}] in the entry but '
            f"{dtype}[{shape}] in the file; fix the entry or export the model again"
        )
