"""Edits: the single changes that lead from one composition to another.

An edit never makes an ill-typed composition, and whatever an edit reaches can be left again: adding, swapping,
setting and reordering have an edit that undoes them; a removal is undone by adding and then mending what was added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import COMBINERS, Operator, PortType
from gnncompose.composition.chains import graft, shortest_chains, sources
from gnncompose.composition.tree import Composition, Expression, Input, Node, Value, make_node
from gnncompose.errors import CompositionError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a composition.

    Attributes:
        nodes: Distinct operator nodes.
        depth: Operators on the longest path.
        branches: Inputs of one combiner.
        transforms: Transforms on one path; None for as many as the depth leaves room for.
        nesting: Combiners on one path, one reading the other; None likewise.
    """

    nodes: int = 12
    depth: int = 6
    branches: int = 4
    transforms: int | None = None
    nesting: int | None = None

    def allow(self, composition: Composition) -> bool:
        """Whether the composition keeps within the bounds."""
        return (
            composition.depth <= self.depth
            and len(composition.nodes) <= self.nodes
            and composition.branches <= self.branches
            and (self.transforms is None or composition.most_on_a_path("transform") <= self.transforms)
            and (self.nesting is None or composition.most_on_a_path(*COMBINERS) <= self.nesting)
        )

    def __str__(self) -> str:
        bounds = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ", ".join(f"{name} {value}" for name, value in bounds if value is not None)


@dataclass(frozen=True, slots=True)
class Place:
    """One edge of the tree, or all uses of an output; the node that an edit speaks of is the place's source.

    Attributes:
        path: Ports from the output down to the edge; `()` is the edge that leaves the composition.
        output: Id of the output all of whose uses are meant; None for a single edge.
    """

    path: tuple[int, ...] = ()
    output: str | None = None

    def __str__(self) -> str:
        return f"all uses of {self.output[:8]}" if self.output else "/" + "/".join(map(str, self.path))


@dataclass(frozen=True, slots=True)
class AddModel:
    """Add a model: in series on an edge, in parallel to what stands there, or as a combiner's last branch."""

    operator: str
    place: Place


@dataclass(frozen=True, slots=True)
class RemoveModel:
    """Remove the model at the place, with what only it needed."""

    place: Place


@dataclass(frozen=True, slots=True)
class SwapModel:
    """Put another operator of the same signature in place of a model, or another combiner for a combiner."""

    operator: str
    place: Place


@dataclass(frozen=True, slots=True)
class AddTransform:
    """Put a transform on the place."""

    operator: str
    place: Place


@dataclass(frozen=True, slots=True)
class RemoveTransform:
    """Take away the transform at the place."""

    place: Place


@dataclass(frozen=True, slots=True)
class Reorder:
    """Exchange the transform at the place with the one it reads, or two stages of the cascade there.

    Attributes:
        place: Where the later transform, or the cascade, stands.
        stages: Numbers of the stages of a cascade; None for transforms.
    """

    place: Place
    stages: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class SetParameter:
    """Give a parameter of the node at the place a value of its grid; `weights.1` is the weight of port 1."""

    place: Place
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Stop:
    """End the episode; changes nothing."""


Edit = AddModel | RemoveModel | SwapModel | AddTransform | RemoveTransform | Reorder | SetParameter | Stop
OperatorEdit = AddModel | SwapModel | AddTransform  # those that bring an operator in
KINDS: tuple[type[Edit], ...] = (
    AddModel,
    RemoveModel,
    SwapModel,
    AddTransform,
    RemoveTransform,
    Reorder,
    SetParameter,
    Stop,
)


def apply(composition: Composition, edit: Edit, catalog: Catalog, limits: Limits) -> Composition:
    """Apply an edit.

    Raises:
        CompositionError: The edit is not legal here; the message says why.
        CatalogError: The edit names an operator that the catalog lacks.
    """
    result = rewritten(composition, edit, catalog)
    if not isinstance(edit, Stop) and not limits.allow(result):
        raise CompositionError(f"{edit}: the result is over the limits ({limits})")
    return result


def rewritten(composition: Composition, edit: Edit, catalog: Catalog) -> Composition:
    """What an edit makes, be it within limits or not; raises as `apply` does."""
    if isinstance(edit, Stop):
        return composition
    root = _rewrite(composition.root, edit.place, _change(edit, catalog))
    if not isinstance(root, Node) or root.type != composition.root.type:
        raise CompositionError(f"{edit}: the composition would no longer give {composition.root.type}")
    if root.id == composition.root.id:
        raise CompositionError(f"{edit}: changes nothing")
    return Composition(root, catalog.sha256)


Change = Callable[[Expression], Expression | None]


def _rewrite(expression: Expression, place: Place, change: Change) -> Expression | None:
    """The expression with the change made at the place; None where nothing is left of it."""
    if place.output is not None:
        if expression.id == place.output:
            return change(expression)
        if isinstance(expression, Input):
            return expression
        return _with_inputs(expression, [_rewrite(child, place, change) for child in expression.inputs])
    if not place.path:
        return change(expression)
    port, rest = place.path[0], Place(place.path[1:])
    if port >= len(expression.inputs) or isinstance(expression, Input):
        raise CompositionError(f"there is no place {place} in the composition")
    inputs: list[Expression | None] = list(expression.inputs)
    inputs[port] = _rewrite(expression.inputs[port], rest, change)
    return _with_inputs(expression, inputs)


def _with_inputs(node: Node, inputs: Sequence[Expression | None]) -> Expression | None:
    """The node on other inputs; a removed one (None) takes what only it needed along."""
    if all(new is old for new, old in zip(inputs, node.inputs, strict=True)):
        return node
    kept = [port for port, new in enumerate(inputs) if new is not None]
    remaining = [new for new in inputs if new is not None]
    parameters = dict(node.parameters)
    if len(kept) == len(inputs):
        return make_node(node.operator, remaining, parameters)
    if not node.operator.is_combiner:
        return None
    if node.operator.kind == "router":
        if 0 not in kept:
            raise CompositionError(f'router "{node.operator.name}" would lose the data it reads')
        if len(kept) > 2:
            raise CompositionError(
                f'router "{node.operator.name}" needs all its branches; swap it for an ensemble first'
            )
        return remaining[1] if len(kept) == 2 else None
    if len(kept) < 2:
        return remaining[0] if kept else None
    if isinstance(weights := parameters.get("weights"), tuple):
        parameters["weights"] = tuple(weights[port] for port in kept)
    return make_node(node.operator, remaining, parameters)


def _change(edit: Edit, catalog: Catalog) -> Change:
    """What the edit does to the expression at its place."""

    def change(here: Expression) -> Expression | None:
        match edit:
            case AddTransform():
                return _in_series(catalog.operator(edit.operator), here, catalog)
            case AddModel():
                return _add_model(catalog.operator(edit.operator), here, catalog)
            case RemoveTransform():
                return _node(here, edit, "transform").inputs[0]
            case RemoveModel():
                return _remove_model(_node(here, edit, "model"))
            case SwapModel():
                return _swap(_node(here, edit), catalog.operator(edit.operator), catalog)
            case Reorder():
                return _reorder(_node(here, edit, "transform", "cascade"), edit)
            case SetParameter():
                return _set_parameter(_node(here, edit), edit.name, edit.value)
            case Stop():
                return here

    return change


def _node(here: Expression, edit: Edit, *kinds: str) -> Node:
    if not isinstance(here, Node) or (kinds and here.operator.kind not in kinds):
        raise CompositionError(f"{edit}: there is no {' or '.join(kinds) or 'operator'} at that place")
    return here


def _in_series(operator: Operator, here: Expression, catalog: Catalog) -> Node:
    """The operator reading what stands here; further ports get the shortest chains from the task's input."""
    if operator.kind not in ("transform", "model"):
        raise CompositionError(f'"{operator.name}" is a {operator.kind}, which is made by AddModel and SwapModel')
    others: list[Expression] = []
    for port in operator.inputs[1:]:
        data = _nearest(port.type, sources(here)[-1], catalog)
        if data is None:
            raise CompositionError(f'nothing in the catalog gives {port.type} for port "{port.name}"')
        others.append(data)
    return make_node(operator, [here, *others])


def _nearest(wanted: PortType, source: Expression, catalog: Catalog) -> Expression | None:
    """The source itself, or the shortest chain from it, that gives the wanted type."""
    leaf = Input(source.type)
    chains = sorted(shortest_chains(catalog, source.type).values(), key=lambda chain: chain.depth)
    fitting = (chain for chain in (leaf, *chains) if wanted.accepts(chain.type, {}))
    return next((graft(chain, source) for chain in fitting), None)


def _add_model(operator: Operator, here: Expression, catalog: Catalog) -> Expression:
    if operator.kind != "model":
        raise CompositionError(f'"{operator.name}" is a {operator.kind}, not a model')
    if operator.inputs[0].type.accepts(here.type, {}):
        return _in_series(operator, here, catalog)
    if not isinstance(here, Node) or here.operator.kind == "router" or catalog.first_ensemble is None:
        raise CompositionError(f'"{operator.name}" fits neither in series nor in parallel here')
    branch = _new_branch(operator, here, catalog)
    if here.operator.kind in ("ensemble", "cascade"):
        parameters = dict(here.parameters)
        if isinstance(weights := parameters.get("weights"), tuple):
            parameters["weights"] = (*weights, here.operator.parameters["weights"].default)
        return make_node(here.operator, [*here.inputs, branch], parameters)
    return make_node(catalog.first_ensemble, [here, branch])


def _new_branch(operator: Operator, beside: Node, catalog: Catalog) -> Node:
    """The shortest typed chain to the operator from the nearest output that all of `beside` reads through."""
    for source in sources(beside)[1:]:
        chain = shortest_chains(catalog, source.type).get(operator.name)
        if chain is not None:
            grafted = graft(chain, source)
            assert isinstance(grafted, Node)
            return grafted
    raise CompositionError(f'no chain of operators leads to "{operator.name}"')


def _remove_model(node: Node) -> Expression | None:
    """What is left: the model's input where the model stood in series, else nothing."""
    below = node.inputs[0]
    return below if below.type == node.type else None


def _swap(node: Node, operator: Operator, catalog: Catalog) -> Node:
    if operator.name == node.operator.name:
        raise CompositionError(f'"{operator.name}" stands there already')
    if node.operator.kind == "model":
        if operator.kind != "model" or operator.signature != node.operator.signature:
            raise CompositionError(f'"{operator.name}" has another signature than "{node.operator.name}"')
        return make_node(operator, node.inputs)
    if not (node.operator.is_combiner and operator.is_combiner):
        raise CompositionError(f'"{node.operator.name}" cannot be swapped for "{operator.name}"')
    if operator.kind != "router":
        return make_node(operator, node.branches)
    for source in sources(node)[1:]:
        data = _nearest(operator.inputs[0].type, source, catalog)
        if data is not None:
            return make_node(operator, [data, *node.branches])
    raise CompositionError(f'no chain of operators gives {operator.inputs[0].type} to router "{operator.name}"')


def _reorder(node: Node, edit: Reorder) -> Node:
    if node.operator.kind == "cascade":
        if edit.stages is None or not all(0 <= stage < len(node.inputs) for stage in edit.stages):
            raise CompositionError(f"{edit}: name two stages of the cascade, 0 to {len(node.inputs) - 1}")
        inputs = list(node.inputs)
        first, second = edit.stages
        inputs[first], inputs[second] = inputs[second], inputs[first]
        return make_node(node.operator, inputs, dict(node.parameters))
    below = _node(node.inputs[0], edit, "transform")
    lower = make_node(node.operator, [below.inputs[0], *node.inputs[1:]], dict(node.parameters))
    return make_node(below.operator, [lower, *below.inputs[1:]], dict(below.parameters))


def _set_parameter(node: Node, name: str, value: float) -> Node:
    base, _, port = name.partition(".")
    new: Value = value
    parameters = dict(node.parameters)
    if port:
        weights = parameters.get(base)
        if not isinstance(weights, tuple) or not port.isdigit() or int(port) >= len(weights):
            raise CompositionError(f'"{node.operator.name}" has no parameter "{name}"')
        new = tuple(value if i == int(port) else w for i, w in enumerate(weights))
    return make_node(node.operator, node.inputs, {**parameters, base: new})
