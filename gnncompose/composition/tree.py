"""Compositions: immutable typed expression trees whose equal subtrees share an id.

Constructing a node type-checks it and puts it in canonical form, so an ill-typed composition cannot exist,
and two compositions have equal ids exactly when their canonical forms are equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import pairwise

from gnncompose.catalog.operator import Operator, PortType
from gnncompose.catalog.text import is_text
from gnncompose.errors import CompositionError

INPUT_ID = "input"
ID_LENGTH = 32
ROWS_LENGTH = 12
PREDICTIONS = {
    "mean": ("probs", "values"),
    "weighted_mean": ("probs", "values"),
    "max_confidence": ("probs", "text"),
    "confidence": ("probs", "text"),
}

Value = float | tuple[float, ...]
Parameters = tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Input:
    """The task's one input, the leaf of every composition."""

    type: PortType

    @property
    def id(self) -> str:
        """The same for every task."""
        return INPUT_ID

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """None: it is a leaf."""
        return ()

    @property
    def depth(self) -> int:
        """No operator lies on the way."""
        return 0


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Node:
    """An operator applied to its inputs; made by `make_node` only.

    Attributes:
        operator: What is applied.
        parameters: Name and value of every parameter, defaults included; `weights` holds a value per input.
        inputs: One expression per port, in canonical order.
        type: Type of the output.
        id: Hash of what it computes: equal ids give equal outputs.
        depth: Operators on the longest path to the task's input.
    """

    operator: Operator
    parameters: Parameters
    inputs: tuple[Expression, ...]
    type: PortType
    id: str
    depth: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return describe(self)

    def parameter(self, name: str) -> Value:
        """Value of a parameter."""
        return dict(self.parameters)[name]

    @property
    def branches(self) -> tuple[Expression, ...]:
        """The predictions that a combiner joins: its inputs, without the data that a router reads."""
        return self.inputs[1:] if self.operator.kind == "router" else self.inputs


Expression = Input | Node


def make_node(operator: Operator, inputs: Sequence[Expression], parameters: Mapping[str, Value] | None = None) -> Node:
    """Apply an operator: type-check, fill in default parameters, bring into canonical form.

    Args:
        operator: What to apply.
        inputs: One expression per port.
        parameters: Values that differ from the defaults; `weights` in the order of `inputs`.

    Raises:
        CompositionError: The types do not fit, a parameter is unknown or outside its range, or a combiner
            has two equal inputs.
    """
    output = _output_type(operator, inputs)
    if operator.is_sorted and any(a.id > b.id for a, b in pairwise(inputs)):
        order = sorted(range(len(inputs)), key=lambda port: inputs[port].id)
        inputs = [inputs[port] for port in order]
        if parameters and isinstance(weights := parameters.get("weights"), tuple) and len(weights) == len(order):
            parameters = {**parameters, "weights": tuple(weights[port] for port in order)}
    values = _full_parameters(operator, len(inputs), parameters or {})
    text = ",".join(f"{name}={_canonical(value)}" for name, value in values)
    identity = f"{operator.identity}({text})[{','.join(child.id for child in inputs)}]"
    node_id = hashlib.sha256(identity.encode()).hexdigest()[:ID_LENGTH]
    if operator.makes_rows:
        # Rows that were made in two ways are never taken for each other: no type fits both.
        output = output.with_rows(f"{output.axes[0]}_{node_id[:ROWS_LENGTH]}")
    return Node(operator, values, tuple(inputs), output, node_id, 1 + max(child.depth for child in inputs))


def _output_type(operator: Operator, inputs: Sequence[Expression]) -> PortType:
    """Type of the output of an operator on these inputs; raises where they do not fit."""
    if operator.is_combiner:
        return _combined_type(operator, inputs)
    if len(inputs) != len(operator.inputs):
        raise CompositionError(f'"{operator.name}" has {len(operator.inputs)} input ports, not {len(inputs)}')
    sizes: dict[str, int | str] = {}
    for port, source in zip(operator.inputs, inputs, strict=True):
        if not port.type.accepts(source.type, sizes):
            raise CompositionError(
                f'"{operator.name}" takes {port.type} on port "{port.name}", not {source.type}; '
                f"put a transform between that gives it"
            )
    return operator.outputs[0].type.bound(sizes)


def _combined_type(operator: Operator, inputs: Sequence[Expression]) -> PortType:
    """Type of what a combiner gives: that of each of its branches."""
    name, branches = operator.name, inputs
    if operator.kind == "router":
        branches, wanted = inputs[1:], operator.outputs[0].type.axes[-1]
        if not inputs or not operator.inputs[0].type.accepts(inputs[0].type, {}):
            raise CompositionError(f'router "{name}" takes {operator.inputs[0].type} on port 0; put such data there')
        if len(branches) != wanted:
            raise CompositionError(f'router "{name}" has {wanted} branches, not {len(branches)}')
        if inputs[0].type.axes[0] != branches[0].type.axes[0]:
            raise CompositionError(f'router "{name}" reads other rows than its branches give; put the same rows there')
    if len(branches) < 2:
        raise CompositionError(f'"{name}" joins two inputs or more, not {len(branches)}')
    first = branches[0].type
    for branch in branches[1:]:
        if branch.type != first:
            raise CompositionError(f'"{name}" joins inputs of one type, not {first} and {branch.type}')
    if len({branch.id for branch in branches}) < len(branches):
        raise CompositionError(f'"{name}" has two equal inputs; drop one')
    if (
        not all(isinstance(branch, Node) for branch in branches)
        or (operator.builtin and first.domain not in PREDICTIONS.get(operator.builtin, ("probs",)))
        or (operator.builtin and first.domain == "text" and not is_text(first))
    ):
        raise CompositionError(f'"{name}" does not join {first.domain}; give it predictions')
    return first


def _full_parameters(operator: Operator, count: int, given: Mapping[str, Value]) -> Parameters:
    """Every parameter with its value; raises where one is unknown or out of range."""
    if not operator.parameters and not given:
        return ()
    unknown = given.keys() - operator.parameters.keys()
    if unknown:
        known = ", ".join(operator.parameters) or "none"
        raise CompositionError(f'"{operator.name}" has no parameter "{sorted(unknown)[0]}"; it has: {known}')
    values: list[tuple[str, Value]] = []
    for name, parameter in sorted(operator.parameters.items()):
        if name == "weights":
            value: Value = given.get(name, (parameter.default,) * count)
            if not isinstance(value, tuple) or len(value) != count or sum(value) <= 0:
                raise CompositionError(f'"{operator.name}": weights needs {count} numbers with a sum above 0')
        else:
            value = given.get(name, parameter.default)
            if isinstance(value, tuple):
                raise CompositionError(f'"{operator.name}": parameter "{name}" is one number')
        for number in value if isinstance(value, tuple) else (value,):
            if not parameter.low <= number <= parameter.high:
                raise CompositionError(
                    f'"{operator.name}": parameter "{name}" = {number} lies outside '
                    f"{parameter.low} to {parameter.high}; choose a value within"
                )
        values.append((name, value))
    return tuple(values)


def _canonical(value: Value) -> str:
    """A number as its shortest decimal, so that 0.80 and 0.8 are one."""
    if isinstance(value, tuple):
        return "/".join(_canonical(number) for number in value)
    return format(Decimal(repr(float(value))).normalize(), "f")


@dataclass(frozen=True, eq=False)
class Composition:
    """A whole composition: from the task's input to its output.

    Attributes:
        root: The expression that gives the output.
        catalog_sha256: The catalog that it was made from, where known.
    """

    root: Node
    catalog_sha256: str | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Composition) and self.root.id == other.root.id

    def __hash__(self) -> int:
        return hash(self.root.id)

    @cached_property
    def id(self) -> str:
        """Id of the root: equal ids give equal outputs."""
        return self.root.id

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Distinct operator nodes, every one after its inputs: the directed acyclic graph that runs."""
        found: dict[str, Node] = {}

        def visit(expression: Expression) -> None:
            if isinstance(expression, Node) and expression.id not in found:
                for child in expression.inputs:
                    visit(child)
                found[expression.id] = expression

        visit(self.root)
        return tuple(found.values())

    @cached_property
    def input(self) -> Input:
        """The task's input."""
        expression: Expression = self.root
        while isinstance(expression, Node):
            expression = expression.inputs[0]
        return expression

    @property
    def depth(self) -> int:
        """Operators on the longest path."""
        return self.root.depth

    @property
    def branches(self) -> int:
        """Inputs of the widest combiner; 1 where there is none."""
        return max((len(node.branches) for node in self.nodes if node.operator.is_combiner), default=1)

    def most_on_a_path(self, *kinds: str) -> int:
        """Most operators of these kinds on one path from the task's input to the output."""
        most = {INPUT_ID: 0}
        for node in self.nodes:
            most[node.id] = max(most[child.id] for child in node.inputs) + (node.operator.kind in kinds)
        return most[self.id]

    def edges(self) -> Iterator[tuple[str, str, int]]:
        """Edges of the graph: id of the source (or `input`), id of the node, number of the port."""
        for node in self.nodes:
            for port, child in enumerate(node.inputs):
                yield child.id, node.id, port

    def occurrences(self) -> Iterator[tuple[tuple[int, ...], Expression]]:
        """Every place of the tree as the ports from the output down to it, and what stands there."""

        def visit(path: tuple[int, ...], expression: Expression) -> Iterator[tuple[tuple[int, ...], Expression]]:
            yield path, expression
            for port, child in enumerate(expression.inputs):
                yield from visit((*path, port), child)

        return visit((), self.root)

    def __str__(self) -> str:
        return describe(self.root)


def describe(expression: Expression) -> str:
    """An expression as one line, as in `cascade[threshold=0.9](mlp_s(input), cnn_m(median(input)))`."""
    if isinstance(expression, Input):
        return INPUT_ID
    shown = [f"{name}={_canonical(value)}" for name, value in expression.parameters]
    inner = ", ".join(describe(child) for child in expression.inputs)
    return f"{expression.operator.name}{'[' + ', '.join(shown) + ']' if shown else ''}({inner})"
