"""Artifacts as parts of a larger graph: brought to one opset, stripped to what is needed, renamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import onnx
from onnx import inliner, version_converter

from gnncompose.catalog.operator import Operator
from gnncompose.errors import CatalogError
from gnncompose.execution.sessions import first_line

ONNX_DOMAINS = ("", "ai.onnx")
Rename = Callable[[str], str]


@dataclass(frozen=True, eq=False)
class Part:
    """What an artifact needs to give one output.

    Attributes:
        nodes: Its nodes, in order; names as in the artifact.
        initializers: Its weights.
        sparse_initializers: Its sparse weights.
        output: Name of the output.
    """

    nodes: list[onnx.NodeProto]
    initializers: list[onnx.TensorProto]
    sparse_initializers: list[onnx.SparseTensorProto]
    output: str


def read_model(operator: Operator, content: bytes) -> onnx.ModelProto:
    """Parse an artifact and inline its functions.

    Raises:
        CatalogError: It is no ONNX model.
    """
    try:
        model = onnx.load_model_from_string(content)
        return inliner.inline_local_functions(model) if model.functions else model
    except Exception as problem:  # protobuf and onnx raise several own types
        raise CatalogError(
            f'catalog.yaml: operator "{operator.name}": {operator.artifact} is no ONNX model ({first_line(problem)}); '
            f"export it again"
        ) from None


def opsets(model: onnx.ModelProto) -> dict[str, int]:
    """Version of each operator domain of a model; `ai.onnx` counts as the empty domain."""
    return {"" if entry.domain in ONNX_DOMAINS else entry.domain: entry.version for entry in model.opset_import}


def extract(operator: Operator, model: onnx.ModelProto, opset: int) -> Part:
    """The part of an artifact that gives the operator's output, at an opset.

    Raises:
        CatalogError: The artifact cannot be brought to that opset.
    """
    if opsets(model).get("", opset) != opset:
        try:
            model = version_converter.convert_version(model, opset)
        except Exception as problem:  # the converter raises several own types
            raise CatalogError(
                f'operator "{operator.name}": its artifact does not convert from opset {opsets(model)[""]} to {opset} '
                f"({first_line(problem)}); export it at opset {opset}"
            ) from None
    output = operator.outputs[0].name
    needed, nodes = {output}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(_names_read(node))
    return Part(
        nodes[::-1],
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
        [tensor for tensor in model.graph.sparse_initializer if tensor.values.name in needed],
        output,
    )


def _names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Everything a node reads, what its subgraphs read included."""
    yield from (name for name in node.input if name)
    for graph in _subgraphs(node):
        yield from (output.name for output in graph.output)
        for inner in graph.node:
            yield from _names_read(inner)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def renamed(nodes: Iterable[onnx.NodeProto], rename: Rename) -> list[onnx.NodeProto]:
    """Copies of nodes with every tensor and node renamed, in subgraphs too."""
    copies: list[onnx.NodeProto] = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        _rename(copy, rename)
        copies.append(copy)
    return copies


def _rename(node: onnx.NodeProto, rename: Rename) -> None:
    node.doc_string = ""
    del node.metadata_props[:]
    if node.name:
        node.name = rename(node.name)
    for names in (node.input, node.output):
        for i, name in enumerate(names):
            names[i] = rename(name) if name else ""  # an empty name stands for an optional tensor left out
    for graph in _subgraphs(node):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            value.name = rename(value.name)
        for tensor in graph.initializer:
            tensor.name = rename(tensor.name)
        for sparse in graph.sparse_initializer:
            sparse.values.name = rename(sparse.values.name)
        for inner in graph.node:
            _rename(inner, rename)
