"""Compositions of a closed space as vectors, from the arrays that they are kept in: those of `features.py`, quicker."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from gnncompose.composition.space import Space
from gnncompose.composition.transitions import ClosedSearchSpace
from gnncompose.composition.tree import Composition, Node
from gnncompose.features import LONG, CompositionFeatures, weights_of

Told = list[tuple[int, float]]


class ClosedFeatures(CompositionFeatures):
    """Fills the vectors of the compositions of one closed space."""

    def __init__(self, space: ClosedSearchSpace) -> None:
        """Note what each chain and each combiner tells.

        Args:
            space: Whose compositions.
        """
        super().__init__(space.catalog)
        self._space = space
        below, columns = space.closed.expressions, len(self.groups)
        decides = {number for routes in below.routes.values() for number in routes}
        nodes = [e if isinstance(e, Node) and number not in decides else None for number, e in enumerate(below.all)]
        self._told = np.stack([np.zeros(columns) if e is None else self._row(Composition(e)) for e in nodes])
        self._sets = self._padded([[] if e is None else self.told_by(e) for e in nodes])
        self._length = (below.paths > 0).sum(axis=1)
        self._shared, self._lead = (np.isin(self.groups, group) for group in (("operator", "order"), ("lead",)))
        self._note_combiners()

    def _note_combiners(self) -> None:
        closed = self._space.closed
        told: list[Told] = [[] for _ in closed.ways]
        self._weights = np.ones((len(closed.ways), 1 + closed.branches.shape[1]))
        self._leads = np.zeros(self._weights.shape)
        self._leads[:, 1] = 1.0
        for way, row in zip(*np.unique(closed.way, return_index=True), strict=True):
            if closed.joins[way]:
                root, first = closed.composition(int(row)).root, int(closed.route[row] == 0)
                told[way] = self.told_by(root)
                weights = weights_of(root)
                self._weights[way, first : first + len(weights)] = weights
                self._leads[way] = root.operator.is_sorted
                self._leads[way, first] = 1.0
        self._way_sets = self._padded(told)

    def _padded(self, told: list[Told]) -> list[tuple[np.ndarray, np.ndarray]]:
        """First columns and values, second ones, and so on; a column beyond the last stands for none."""
        most, none = max(map(len, told)), (len(self.groups), 0.0)
        filled = np.array([[*some, *[none] * (most - len(some))] for some in told]).reshape(len(told), most, 2)
        return [(column.astype(np.int64), value) for column, value in filled.transpose(1, 2, 0)]

    def __call__(self, compositions: Iterable[Composition]) -> Float[np.ndarray, "composition column"]:
        """See `CompositionFeatures`."""
        closed, rows = self._space.closed, self._space.rows_of(compositions)
        laid, way, every = closed.layout.at(rows), closed.way[rows], np.arange(len(rows))
        shared, lead = np.zeros((len(rows), self._shared.sum())), np.zeros((len(rows), self._lead.sum()))
        length = np.zeros(len(rows))
        reads = np.column_stack([closed.route[rows] > 0, laid.chains[:, 1:] > 0])
        weights = self._weights[way] * reads
        shares = weights / weights.sum(axis=1, keepdims=True)
        for chain, share, leads in zip(laid.chains.T, shares.T, self._leads[way].T, strict=True):
            told = self._told[chain]
            shared += share[:, None] * told[:, self._shared]
            lead = np.maximum(lead, leads[:, None] * told[:, self._lead])
            length += share * self._length[chain]
        found = np.zeros((len(rows), len(self.groups) + 1))
        found[:, :-1][:, self._shared], found[:, :-1][:, self._lead] = shared, lead
        for entry, first in zip(laid.entries.T, laid.first.T, strict=True):
            for column, value in self._sets:
                found[every, np.where(first, column[entry], len(self.groups))] = value[entry]
        for column, value in self._way_sets:
            found[every, column[way]] = value[way]
        found[:, self.column["setting", "branches"]] = np.minimum((reads.sum(axis=1) - 1) / LONG, 1.0)
        found[:, self.column["setting", "length"]] = np.minimum(length / LONG, 1.0)
        return found[:, :-1]


def features_of(space: Space) -> CompositionFeatures:
    """What describes compositions of a space, by the quickest way that there is."""
    return ClosedFeatures(space) if isinstance(space, ClosedSearchSpace) else CompositionFeatures(space.catalog)
