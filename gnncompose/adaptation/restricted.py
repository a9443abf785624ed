"""The part of a closed space that does without some operators."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.enumeration import ClosedSpace, Expressions
from gnncompose.composition.transitions import ClosedSearchSpace
from gnncompose.composition.tree import Composition, Node
from gnncompose.errors import CompositionError


def restricted(space: ClosedSearchSpace, catalog: Catalog) -> ClosedSearchSpace:
    """What is left of a space with a part of its catalog.

    Args:
        space: With the whole catalog.
        catalog: The part.

    Raises:
        CompositionError: Nothing is left.
    """
    gone = space.catalog.by_name.keys() - catalog.by_name.keys()
    rows = np.flatnonzero(does_without(space.closed, gone))
    if not len(rows):
        raise CompositionError(f"there is no composition without {', '.join(sorted(gone))}; leave one of them in")
    number = np.full(len(space.closed), -1)
    number[rows] = np.arange(len(rows))

    def row_of(composition: Composition) -> int:
        found = int(number[space.row_of(composition)])
        if found < 0:
            raise CompositionError(f"{composition} needs an operator that is not there: {', '.join(sorted(gone))}")
        return found

    closed = replace(_part(space.closed, rows, gone), catalog_sha256=catalog.sha256)
    types = space.input_type, space.output_type
    return ClosedSearchSpace(catalog, space.limits, *types, closed=closed, row_of=row_of)


def does_without(space: ClosedSpace, names: Collection[str]) -> Bool[np.ndarray, " row"]:
    """Whether each row has none of the operators of these names."""
    there, ways = _left(space, names)
    return ways[space.way] & there[space.route] & there[space.branches].all(axis=1)


def _left(space: ClosedSpace, names: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
    """bool[expressions] and bool[ways]: which of them have no operator of these names."""
    below = space.expressions
    there = np.ones(len(below.all), dtype=bool)
    for number, expression in enumerate(below.all):
        if isinstance(expression, Node):
            there[number] = expression.operator.name not in names and there[below.parents[number]]
    ways = np.array([way is None or way.operator.name not in names for way in space.ways])
    return there, ways


def _part(space: ClosedSpace, rows: np.ndarray, names: Collection[str]) -> ClosedSpace:
    """Some rows, expressions and ways without those operators, numbered anew."""
    there, ways = _left(space, names)
    below, number, way = space.expressions, np.cumsum(there) - 1, np.cumsum(ways) - 1
    routes = {
        router: tuple(int(number[old]) for old in olds if there[old])
        for router, olds in below.routes.items()
        if router not in names
    }
    expressions = Expressions(
        all=tuple(expression for expression, left in zip(below.all, there, strict=True) if left),
        parents=number[below.parents[there]],
        chains=tuple(int(number[old]) for old in below.chains if there[old]),
        routes=routes,
    )
    return replace(
        space,
        expressions=expressions,
        ways=tuple(one for one, left in zip(space.ways, ways, strict=True) if left),
        way=way[space.way[rows]],
        route=number[space.route[rows]],
        branches=number[space.branches[rows]],
    )
