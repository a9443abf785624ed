"""Merging: one ONNX file for a whole composition, cascades and routers included.

A cascade becomes `If(every row is confident) {the first stage's output} else {NonZero → Gather → later stages →
ScatterND}`; a router one such `If` per branch. Regions inside regions become `If`s inside `If`s, and what is
used outside a region is computed outside it. No stage ever runs on 0 rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gnncompose import __version__
from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import PortType
from gnncompose.catalog.reading import read_artifact
from gnncompose.catalog.text import CODE, PROBABILITY
from gnncompose.composition.tree import INPUT_ID, Composition, Node
from gnncompose.errors import CatalogError, CompositionError
from gnncompose.execution.combiners import normalised_weights, threshold_of
from gnncompose.execution.inline import Part, extract, opsets, read_model, renamed
from gnncompose.execution.regions import ROOT, Region, find_regions, gathered, use_region
from gnncompose.execution.sessions import first_line

OLDEST_OPSET = 13
OLDEST_IR = 8
AXES_AS_INPUT = 18
Attributes = Mapping[str, int | list[int] | onnx.GraphProto]


def merge(
    composition: Composition, catalog: Catalog, input_name: str = "input", output_name: str = "output"
) -> onnx.ModelProto:
    """Make one ONNX model of a composition, reading its artifacts; see `merge_contents`."""
    return merge_contents(composition, read_contents(composition, catalog), input_name, output_name)


def read_contents(composition: Composition, catalog: Catalog) -> dict[str, bytes]:
    """The artifacts of a composition by their SHA-256.

    Raises:
        CatalogError: An artifact is missing or altered.
        CompositionError: Host operators keep it from being merged.
    """
    _refuse_host_operators(composition)
    artifacts = {n.operator.sha256: n.operator for n in composition.nodes if n.operator.artifact}
    return {str(sha): read_artifact(catalog, operator) for sha, operator in artifacts.items()}


def merge_contents(
    composition: Composition, contents: Mapping[str, bytes], input_name: str = "input", output_name: str = "output"
) -> onnx.ModelProto:
    """Make one ONNX model of a composition; it answers any number of rows, at least one.

    Args:
        composition: What to merge.
        contents: Its artifacts by their SHA-256.
        input_name: What to call the model's input.
        output_name: What to call the model's output.

    Raises:
        CatalogError: An artifact cannot be brought to the others' opset.
        CompositionError: A router joins outputs whose size is not known beforehand, or host operators are in it.
    """
    _refuse_host_operators(composition)
    builder = _Builder(composition, contents, input_name)
    graph = builder.scopes[ROOT]
    builder.fill(ROOT)
    graph.add("Identity", [builder.value(composition.id, ROOT)], output=output_name)
    proto = helper.make_graph(
        graph.nodes,
        "composition",
        [_value_info(input_name, composition.input.type)],
        [_value_info(output_name, composition.root.type)],
        graph.initializers,
        sparse_initializer=graph.sparse_initializers,
    )
    model = helper.make_model(
        proto,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in builder.opsets.items()],
        ir_version=builder.ir_version,
        producer_name="gnncompose",
        producer_version=__version__,
    )
    helper.set_model_props(model, {"composition": composition.id})
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as problem:
        raise CatalogError(
            f"the merged model is not valid: {first_line(problem)}; export its operators again"
        ) from None
    return model


def _refuse_host_operators(composition: Composition) -> None:
    names = sorted({node.operator.name for node in composition.nodes if node.operator.host is not None})
    if names:
        raise CompositionError(
            f"host operators do not merge, and {', '.join(names)} run as Python code of an installed package; run the "
            f"composition as it is"
        )


@dataclass(eq=False)
class _Scope:
    """A graph in the making."""

    prefix: str
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    sparse_initializers: list[onnx.SparseTensorProto] = field(default_factory=list)

    def name(self, kind: str) -> str:
        """A name that no other tensor has: scopes differ in prefix, and a scope only grows."""
        return f"{self.prefix}{kind}.{len(self.nodes) + len(self.initializers)}"

    def add(
        self, kind: str, inputs: Sequence[str], attributes: Attributes | None = None, output: str | None = None
    ) -> str:
        """Add a node of one output; returns the output's name."""
        output = output or self.name(kind)
        node = helper.make_node(kind, list(inputs), [output], name=output)
        node.attribute.extend(helper.make_attribute(name, value) for name, value in (attributes or {}).items())
        self.nodes.append(node)
        return output

    def constant(self, value: np.ndarray) -> str:
        """Add a constant; returns its name."""
        name = self.name("constant")
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def reduce(self, kind: str, source: str, axes: Sequence[int], keepdims: int) -> str:
        """Add a reduction, whose axes were an attribute once and are an input now."""
        if self.opset >= AXES_AS_INPUT:
            return self.add(kind, [source, self.constant(np.array(axes, dtype=np.int64))], {"keepdims": keepdims})
        return self.add(kind, [source], {"axes": list(axes), "keepdims": keepdims})

    def graph(self, result: str, kind: PortType) -> onnx.GraphProto:
        """The finished graph of one output."""
        output = self.add("Identity", [result])
        info = helper.make_tensor_value_info(output, _element_type(kind), None)
        return helper.make_graph(
            self.nodes, self.prefix, [], [info], self.initializers, sparse_initializer=self.sparse_initializers
        )


class _Builder:
    """Fills a scope per region with the nodes that run there."""

    def __init__(self, composition: Composition, contents: Mapping[str, bytes], input_name: str) -> None:
        self.composition = composition
        self.regions = find_regions(composition)
        self.numbers = {node.id: number for number, node in enumerate(composition.nodes, start=1)}
        artifacts = {n.operator.sha256: n.operator for n in composition.nodes if n.operator.artifact}
        self.models = {sha: read_model(operator, contents[str(sha)]) for sha, operator in artifacts.items()}
        self.uses = Counter(node.operator.sha256 for node in composition.nodes)
        self.opsets: dict[str, int] = {"": OLDEST_OPSET}
        for model in self.models.values():
            for domain, version in opsets(model).items():
                self.opsets[domain] = max(version, self.opsets.get(domain, 0))
        self.ir_version = max([OLDEST_IR, *(model.ir_version for model in self.models.values())])
        self.scopes: dict[Region, _Scope] = {ROOT: _Scope("", self.opsets[""])}
        self._values: dict[tuple[str, Region], str] = {(INPUT_ID, ROOT): input_name}
        self._shared: set[str] = set()

    def value(self, key: str, region: Region) -> str:
        """Name of the tensor that holds a node's output in a region."""
        return self._values[key, region]

    def fill(self, region: Region) -> None:
        """Add the nodes that run in a region."""
        for node in self.composition.nodes:
            if self.regions[node.id] == region:
                self._values[node.id, region] = self._node(node, region)

    def _node(self, node: Node, region: Region) -> str:
        if node.operator.kind == "cascade":
            return self._cascade(node, region, 0)
        if node.operator.kind == "router":
            return self._router(node, region)
        sources = [self.value(child.id, region) for child in node.inputs]
        if node.operator.builtin:
            return _combine(node, sources, self.scopes[region])
        return self._artifact(node, sources, self.scopes[region])

    def _artifact(self, node: Node, sources: list[str], scope: _Scope) -> str:
        """Inline an operator's artifact; weights that several nodes use stand once, in the outermost graph."""
        operator, sha = node.operator, node.operator.sha256
        assert sha is not None
        part = extract(operator, self.models[sha], self.opsets[""])
        prefix = f"{self.numbers[node.id]}.{operator.name}/"
        shared = self.uses[sha] > 1
        weights_prefix, weights_scope = (f"{sha[:16]}/", self.scopes[ROOT]) if shared else (prefix, scope)
        names = {port.name: source for port, source in zip(operator.inputs, sources, strict=True)}
        for parameter, value in node.parameters:
            names[parameter] = scope.constant(np.array(value, dtype=np.float32))
        for name in [t.name for t in part.initializers] + [t.values.name for t in part.sparse_initializers]:
            if name not in names:
                names[name] = weights_prefix + name
                if names[name] not in self._shared:
                    self._shared.add(names[name])
                    _copy_weights(part, name, names[name], weights_scope)

        def rename(name: str) -> str:
            return names.get(name) or prefix + name

        scope.nodes += renamed(part.nodes, rename)
        return rename(part.output)

    def _open(self, node: Node, port: int, region: Region, rows: str) -> Region:
        """Start a region inside another with some of its rows."""
        inner = (*region, (node.id, port))
        outer = self.scopes[region]
        scope = self.scopes[inner] = _Scope(f"{outer.prefix}{self.numbers[node.id]}.{port}/", outer.opset)
        for key in gathered(self.composition, self.regions, inner):
            self._values[key, inner] = scope.add("Gather", [self.value(key, region), rows], {"axis": 0})
        return inner

    def _region_if(self, node: Node, port: int, region: Region, condition: str, mask: str, base: str) -> str:
        """`If(condition)` keep `base`, else overwrite its rows where `mask` holds by what the region gives."""
        outer = self.scopes[region]
        prefix = f"{outer.prefix}{self.numbers[node.id]}.{port}"
        keep = _Scope(f"{prefix}.keep/", outer.opset)
        select = _Scope(f"{prefix}.rows/", outer.opset)
        axis = select.constant(np.array([0], dtype=np.int64))
        rows = select.add("Squeeze", [select.add("NonZero", [mask]), axis])
        inner = self._open(node, port, region, rows)
        scope = self.scopes[inner]
        scope.nodes = select.nodes + scope.nodes
        scope.initializers += select.initializers
        self.fill(inner)
        last = node.operator.kind == "router" or port + 1 == len(node.inputs)
        result = self.value(node.inputs[port].id, inner) if last else self._cascade(node, inner, port)
        index = scope.add("Unsqueeze", [rows, scope.constant(np.array([1], dtype=np.int64))])
        changed = scope.add("ScatterND", [base, index, result])
        branches: Attributes = {
            "then_branch": keep.graph(base, node.type),
            "else_branch": scope.graph(changed, node.type),
        }
        return outer.add("If", [condition], branches)

    def _cascade(self, node: Node, region: Region, stage: int) -> str:
        """The cascade from `stage` on, which runs in `region`."""
        scope = self.scopes[region]
        first = self.value(node.inputs[stage].id, region)
        threshold = scope.constant(np.array(threshold_of(node)))
        confidence = _confidence(first, node.type, scope, 0)
        lowest = scope.reduce("ReduceMin", confidence, [0], 0)
        everyone = scope.add("GreaterOrEqual", [lowest, threshold])
        goes_on = scope.add("Not", [scope.add("GreaterOrEqual", [confidence, threshold])])
        return self._region_if(node, stage + 1, region, everyone, goes_on, first)

    def _router(self, node: Node, region: Region) -> str:
        scope = self.scopes[region]
        route = self._artifact(node, [self.value(node.inputs[0].id, region)], scope)
        choice = scope.add("ArgMax", [route], {"axis": 1, "keepdims": 0})
        output = _blank(node, choice, scope)
        for port in range(1, len(node.inputs)):
            here = scope.add("Equal", [choice, scope.constant(np.array(port - 1, dtype=np.int64))])
            count = scope.reduce("ReduceMax", scope.add("Cast", [here], {"to": TensorProto.INT32}), [0], 0)
            nobody = scope.add("Not", [scope.add("Cast", [count], {"to": TensorProto.BOOL})])
            assert use_region(region, node, port) == (*region, (node.id, port))
            output = self._region_if(node, port, region, nobody, here, output)
        return output


def _copy_weights(part: Part, name: str, new_name: str, scope: _Scope) -> None:
    """Add one weight of a part to a scope under another name."""
    for tensor in part.initializers:
        if tensor.name == name:
            copy = TensorProto()
            copy.CopyFrom(tensor)
            copy.name = new_name
            scope.initializers.append(copy)
    for sparse in part.sparse_initializers:
        if sparse.values.name == name:
            sparse_copy = onnx.SparseTensorProto()
            sparse_copy.CopyFrom(sparse)
            sparse_copy.values.name = new_name
            scope.sparse_initializers.append(sparse_copy)


def _combine(node: Node, sources: list[str], scope: _Scope) -> str:
    """An ensemble in plain operators."""
    match node.operator.builtin:
        case "mean":
            return scope.add("Mean", sources)
        case "weighted_mean":
            weights = [scope.constant(weight) for weight in normalised_weights(node)]
            return scope.add("Sum", [scope.add("Mul", list(pair)) for pair in zip(sources, weights, strict=True)])
        case "vote":
            return scope.add("Mean", [_one_hot(source, node.type, scope) for source in sources])
        case "max_confidence":
            best = sources[0]
            most = _confidence(best, node.type, scope, 1)
            for source in sources[1:]:
                here = _confidence(source, node.type, scope, 1)
                better = scope.add("Greater", [here, most])
                best, most = scope.add("Where", [better, source, best]), scope.add("Max", [here, most])
            return best
        case other:
            raise AssertionError(f"no ensemble {other}")


def _confidence(source: str, kind: PortType, scope: _Scope, keepdims: int) -> str:
    """Confidence of each row: the maximum, or of text the mean probability of its symbols."""
    if kind.domain != "text":
        return scope.reduce("ReduceMax", source, _row_axes(kind), keepdims)
    axes = scope.constant(np.array(_row_axes(kind), dtype=np.int64))
    code, probability = (
        scope.add("Gather", [source, scope.constant(np.array([column], dtype=np.int64))], {"axis": 2})
        for column in (CODE, PROBABILITY)
    )
    nothing, one = scope.constant(np.array(0, dtype=np.float32)), scope.constant(np.array(1, dtype=np.float32))
    stands = scope.add("Greater", [code, nothing])
    counted = scope.add("Cast", [stands], {"to": TensorProto.FLOAT})
    kept = scope.add("Where", [stands, probability, nothing])
    total, count = (scope.add("ReduceSum", [part, axes], {"keepdims": keepdims}) for part in (kept, counted))
    return scope.add("Div", [total, scope.add("Max", [count, one])])


def _one_hot(source: str, kind: PortType, scope: _Scope) -> str:
    """1 at the argmax of each row, the lowest index on a tie, and 0 elsewhere."""
    if isinstance(kind.axes[1], int):
        depth = scope.constant(np.array([kind.axes[1]], dtype=np.int64))
    else:
        second = scope.constant(np.array([1], dtype=np.int64))
        depth = scope.add("Gather", [scope.add("Shape", [source]), second], {"axis": 0})
    chosen = scope.add("ArgMax", [source], {"axis": 1, "keepdims": 0})
    return scope.add("OneHot", [chosen, depth, scope.constant(np.array([0, 1], dtype=kind.dtype))], {"axis": 1})


def _blank(node: Node, rows_like: str, scope: _Scope) -> str:
    """A tensor of a router's output type with as many rows as `rows_like` has."""
    sizes = node.type.axes[1:]
    if not all(isinstance(size, int) for size in sizes):
        raise CompositionError(
            f'router "{node.operator.name}" joins {node.type}, whose size is not known beforehand, so it does not '
            f"merge; give its branches a fixed size"
        )
    tail = scope.constant(np.array(sizes, dtype=np.int64))
    shape = scope.add("Concat", [scope.add("Shape", [rows_like]), tail], {"axis": 0})
    empty = np.array([""], dtype=object) if node.type.dtype == "string" else np.zeros(1, dtype=node.type.dtype)
    return scope.add("Expand", [scope.constant(empty.reshape((1,) * len(node.type.axes))), shape])


def _row_axes(kind: PortType) -> list[int]:
    return list(range(1, len(kind.axes)))


def _element_type(kind: PortType) -> int:
    if kind.dtype == "string":
        return TensorProto.STRING
    return helper.np_dtype_to_tensor_dtype(np.dtype(kind.dtype))


def _value_info(name: str, kind: PortType) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _element_type(kind), list(kind.axes))
