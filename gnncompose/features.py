"""A composition as a flat vector of numbers between 0 and 1, for surrogates that are no graph networks.

The vector is laid out by the catalog, so it holds on one catalog only. It says what the ways from the task's input to
the output pass through: a way counts as much as its share of the branches of every combiner, or its weight there.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.tree import Composition, Expression, Input, Node

GROUPS = ("operator", "order", "lead", "setting")
REMEMBERED = 4096
LONG = 4.0  # a way, or a combiner, of this size counts as 1


class Way(NamedTuple):
    """One way from the task's input to the output.

    Attributes:
        operators: Names of the operators on it but combiners, the input's side first.
        share: How much it counts; the ways of a composition sum up to 1.
        leads: Whether it comes first in every combiner that heeds the order of its branches.
    """

    operators: tuple[str, ...]
    share: float
    leads: bool


def ways(composition: Composition) -> list[Way]:
    """Every way through a composition; what a router or a further port reads counts like a branch."""

    def below(expression: Expression) -> list[Way]:
        if isinstance(expression, Input):
            return [Way((), 1.0, True)]
        found: list[Way] = []
        ordered = expression.operator.is_combiner and not expression.operator.is_sorted
        own = () if expression.operator.is_combiner else (expression.operator.name,)
        weights = weights_of(expression)
        for port, (child, weight) in enumerate(zip(expression.inputs, weights, strict=True)):
            for way in below(child):
                leads = way.leads and (port == 0 or not ordered)
                found.append(Way((*way.operators, *own), way.share * (weight / sum(weights)), leads))
        return found

    return below(composition.root)


def weights_of(node: Node) -> tuple[float, ...]:
    """How much each input of a node counts, beside the others."""
    weights = dict(node.parameters).get("weights")
    return weights if isinstance(weights, tuple) else (1.0,) * len(node.inputs)


class CompositionFeatures:
    """Lays out and fills the vectors of one catalog.

    Attributes:
        groups: Of each column, what it tells, one of `GROUPS`: `operator` (share of ways through it), `order` (share
            of ways on which one transform comes before another), `lead` (whether it is on the leading way) or
            `setting`.
        column: The number of each column, by what it tells.
    """

    def __init__(self, catalog: Catalog) -> None:
        """Lay out the columns.

        Args:
            catalog: Whose compositions are described.
        """
        names = [operator.name for operator in catalog.operators]
        transforms = [operator.name for operator in catalog.transforms]
        settings = [(operator.name, name) for operator in catalog.operators for name in operator.parameters]
        columns = [("operator", name) for name in names]
        columns += [("order", first, second) for first in transforms for second in transforms]
        columns += [("lead", operator.name) for operator in catalog.of_kind("transform", "model")]
        columns += [("setting", *setting) for setting in settings if setting[1] != "weights"]
        columns += [("setting", "branches"), ("setting", "length")]
        self.column = {column: number for number, column in enumerate(columns)}
        self.groups = tuple(column[0] for column in columns)
        # Candidates of one decision are candidates of the next.
        self._remembered = lru_cache(REMEMBERED)(self._row)

    def __call__(self, compositions: Iterable[Composition]) -> Float[np.ndarray, "composition column"]:
        """The vectors of compositions."""
        rows = [self._remembered(composition) for composition in compositions]
        return np.array(rows).reshape(-1, len(self.column))

    def _row(self, composition: Composition) -> Float[np.ndarray, " column"]:
        row = np.zeros(len(self.column))
        found = ways(composition)
        for way in found:
            for name in set(way.operators):
                row[self.column["operator", name]] += way.share
                if way.leads:
                    row[self.column["lead", name]] = 1.0
            for first, second in set(combinations(way.operators, 2)):
                column = self.column.get(("order", first, second))
                if column is not None:
                    row[column] += way.share
        for node in composition.nodes:
            for column, value in self.told_by(node):
                row[column] = value
        row[self.column["setting", "branches"]] = min((len(found) - 1) / LONG, 1.0)
        row[self.column["setting", "length"]] = min(sum(w.share * len(w.operators) for w in found) / LONG, 1.0)
        return row

    def told_by(self, node: Node) -> list[tuple[int, float]]:
        """Columns that a node sets, whatever stands around it: that a combiner is there, and parameters.

        Of a parameter its rank in the grid counts, since grids are rarely even.
        """
        found = [(self.column["operator", node.operator.name], 1.0)] if node.operator.is_combiner else []
        for name, value in node.parameters:
            if not isinstance(value, tuple):
                grid = sorted({*node.operator.parameters[name].values, value})
                found.append((self.column["setting", node.operator.name, name], (1 + grid.index(value)) / len(grid)))
        return found
