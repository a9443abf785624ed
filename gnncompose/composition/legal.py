"""Which edits are legal: exactly those whose result is another well-typed composition within the limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import Operator, PortType
from gnncompose.composition.edits import (
    AddModel,
    AddTransform,
    Edit,
    Limits,
    Place,
    RemoveModel,
    RemoveTransform,
    Reorder,
    SetParameter,
    Stop,
    SwapModel,
    rewritten,
)
from gnncompose.composition.tree import Composition, Expression, Node
from gnncompose.errors import CompositionError

CASES = 1024  # pairs of types between which what fits is remembered


def legal_edits(composition: Composition, catalog: Catalog, limits: Limits) -> list[Edit]:
    """Exactly the edits whose result is another well-typed composition within the limits, and `Stop`, last."""
    return [edit for edit, _ in successors(composition, catalog, limits)] + [Stop()]


def successors(composition: Composition, catalog: Catalog, limits: Limits) -> list[tuple[Edit, Composition]]:
    """Every legal edit but `Stop`, with the composition it leads to."""
    found: list[tuple[Edit, Composition]] = []
    for edit in candidate_edits(composition, catalog):
        try:
            result = rewritten(composition, edit, catalog)
        except CompositionError:
            continue
        if limits.allow(result):
            found.append((edit, result))
    return found


def places(composition: Composition) -> list[tuple[Place, Expression]]:
    """Every place with its source: the edges of the tree, then the outputs that are used more than once."""
    occurrences = list(composition.occurrences())
    uses = Counter(expression.id for _, expression in occurrences)
    distinct = {expression.id: expression for _, expression in occurrences}
    edges = [(Place(path), expression) for path, expression in occurrences]
    return edges + [(Place(output=key), distinct[key]) for key, count in uses.items() if count > 1]


def candidate_edits(composition: Composition, catalog: Catalog) -> Iterator[Edit]:
    """Edits that may be legal; the legal ones are those that `apply` takes."""
    at = dict(composition.occurrences())
    for place, source in places(composition):
        reader = at[place.path[:-1]] if place.output is None and place.path else None
        fitting = _in_series(catalog, source.type, _taken(reader, place), place.output is not None)
        for operator in catalog.transforms:
            if operator.name in fitting:
                yield AddTransform(operator.name, place)
        for operator in catalog.models:
            if operator.name in fitting or _fits_parallel(operator, source):
                yield AddModel(operator.name, place)
        if isinstance(source, Node):
            yield from _node_edits(place, source, catalog)


def _taken(reader: Expression | None, place: Place) -> PortType | None:
    """What a place's reader declares to take there; None where it takes what it is given now."""
    if not isinstance(reader, Node) or place.path[-1] >= len(reader.operator.inputs):
        return None
    return reader.operator.inputs[place.path[-1]].type


@lru_cache(maxsize=CASES)
def _in_series(catalog: Catalog, source: PortType, taken: PortType | None, anywhere: bool) -> frozenset[str]:
    """Transforms and models that the types may allow after a source; spares `apply` the many that cannot stand there.

    Args:
        catalog: Whose operators.
        source: What there is.
        taken: What the reader takes, beside the type of the source itself.
        anywhere: Whether readers are left to `apply`.
    """
    found: set[str] = set()
    for operator in (*catalog.transforms, *catalog.models):
        sizes: dict[str, int | str] = {}
        if operator.inputs[0].type.accepts(source, sizes):
            given = operator.outputs[0].type.bound(sizes)
            if anywhere or given == source or (taken is not None and taken.accepts(given, {})):
                found.add(operator.name)
    return frozenset(found)


def _fits_parallel(operator: Operator, source: Expression) -> bool:
    ends = operator.outputs[0].type
    return isinstance(source, Node) and (ends.domain, ends.dtype) == (source.type.domain, source.type.dtype)


def _node_edits(place: Place, node: Node, catalog: Catalog) -> Iterator[Edit]:
    """Candidate edits that change or take away the node itself."""
    below = node.inputs[0]
    if node.operator.kind == "transform":
        yield RemoveTransform(place)
        if isinstance(below, Node) and below.operator.kind == "transform":
            yield Reorder(place)
    elif node.operator.kind == "model":
        yield RemoveModel(place)
        alike = (o for o in catalog.models if o.signature == node.operator.signature)
        yield from (SwapModel(o.name, place) for o in alike if o.name != node.operator.name)
    else:
        yield from (SwapModel(o.name, place) for o in catalog.combiners if o.name != node.operator.name)
    if node.operator.kind == "cascade":
        yield from (Reorder(place, stages) for stages in combinations(range(len(node.inputs)), 2))
    yield from _parameter_edits(place, node)


def _parameter_edits(place: Place, node: Node) -> Iterator[Edit]:
    for name, value in node.parameters:
        grid = node.operator.parameters[name].values
        if isinstance(value, tuple):
            for port, weight in enumerate(value):
                yield from (SetParameter(place, f"{name}.{port}", new) for new in grid if new != weight)
        else:
            yield from (SetParameter(place, name, new) for new in grid if new != value)
