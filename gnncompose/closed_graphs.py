"""Compositions of a closed space as graphs, from the arrays that they are kept in: none is made as an object.

The tensors are those of `encoding.encode_all`, bit for bit, at a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Int

from gnncompose.composition.enumeration import ClosedSpace
from gnncompose.composition.layout import Layout
from gnncompose.composition.space import Space
from gnncompose.composition.transitions import ClosedSearchSpace
from gnncompose.composition.tree import Composition, Node
from gnncompose.encoding import WIDE, CatalogFeatures, Graphs, encode_all, setting_of, shares_of


class ClosedGraphs:
    """Encodes rows of a closed space."""

    def __init__(self, space: ClosedSpace, catalog: CatalogFeatures) -> None:
        """Note what expressions and combiners look like.

        Args:
            space: Whose rows.
            catalog: Features, or traits, of the catalog that it was enumerated from.
        """
        self.space = space
        self.catalog = catalog
        below, none = space.expressions, len(catalog.operators) - 1
        nodes = [expression if isinstance(expression, Node) else None for expression in below.all]
        self.depth = np.array([0 if node is None else node.depth for node in nodes])
        self._operator = np.array([none if node is None else catalog.rows[node.operator.name] for node in nodes])
        self._setting = np.array([0.0 if node is None else setting_of(node) for node in nodes])
        self.levels = below.paths.shape[1]
        self.joins = space.joins
        ways, ports = len(space.ways), space.branches.shape[1]
        self._way_operator = np.full(ways, none)
        self._way_setting = np.zeros(ways)
        self._way_shares = np.ones((ways, ports))
        for number, row in zip(*np.unique(space.way, return_index=True), strict=True):
            if self.joins[number]:
                root = space.composition(int(row)).root
                self._way_operator[number] = catalog.rows[root.operator.name]
                self._way_setting[number] = setting_of(root)
                shares = shares_of(root)[int(space.route[row] > 0) :]
                self._way_shares[number, : len(shares)] = shares

    def layout(self, rows: Int[np.ndarray, " row"]) -> Layout:
        """Where the nodes of rows stand."""
        return self.space.layout.at(rows)

    def __call__(self, rows: Int[np.ndarray, " row"]) -> Graphs:
        """Encode rows as one graph."""
        space, laid = self.space, self.layout(rows)
        count, way, joins = len(rows), space.way[rows], self.joins[space.way[rows]]
        routed = space.route[rows] > 0
        reads = np.column_stack([routed, laid.chains[:, 1:] > 0]) & joins[:, None]
        sizes = laid.output + 1
        begin = np.cumsum(sizes) - sizes
        # nodes: the input, the chains', the combiner, the output
        there = np.column_stack([np.ones(count, dtype=bool), laid.first, joins, np.ones(count, dtype=bool)])
        none = np.full(count, len(self.catalog.operators) - 1)
        operators = np.column_stack([none, self._operator[laid.entries], self._way_operator[way], none])[there]
        zeros = np.zeros(count)
        own = (
            np.column_stack([zeros, self._setting[laid.entries], self._way_setting[way], zeros]),
            np.column_stack([zeros, np.ones(laid.entries.shape), reads.sum(axis=1), zeros]) / WIDE,
            np.column_stack([zeros, self.depth[laid.entries], self.depth[laid.chains].max(axis=1) + 1, zeros]) / WIDE,
        )
        width, last = self.catalog.operators.shape[1], begin + laid.output
        x = torch.zeros(len(operators), 2 + width + 3)
        x[begin, 0] = x[last, 1] = 1.0
        x[:, 2 : 2 + width] = self.catalog.operators[torch.from_numpy(operators)]
        x[:, 2 + width :] = torch.from_numpy(np.stack([part[there] for part in own], axis=1)).float()
        # edges: into each chain's nodes, into the combiner port by port, into the output
        alone = np.ones((count, 1), dtype=bool)
        joined = np.column_stack([laid.first, reads, alone])
        below = np.column_stack([np.zeros(count, dtype=np.int64), laid.node[:, :-1]])
        below[:, :: self.levels] = 0
        tops = laid.node[:, self.levels - 1 :: self.levels]
        source = np.column_stack([below, tops, laid.combiner]) + begin[:, None]
        into = np.repeat(laid.combiner[:, None], reads.shape[1], axis=1)
        target = np.column_stack([laid.node, into, laid.output]) + begin[:, None]
        ports = np.arange(reads.shape[1]) - ~routed[:, None]
        port = np.column_stack([np.zeros(laid.entries.shape, dtype=np.int64), ports, zeros])[joined]
        shares = np.column_stack([np.ones(laid.entries.shape), np.ones(count), self._way_shares[way], np.ones(count)])
        along = torch.from_numpy(np.stack([source[joined], target[joined]]))
        told = np.stack([port / WIDE, port == 0, shares[joined]], axis=1)
        direction = torch.eye(2).repeat_interleave(along.shape[1], dim=0)
        return Graphs(
            x=x,
            edge_index=torch.cat([along, along.flip(0)], dim=1),
            edge_attr=torch.cat([direction, torch.from_numpy(told).float().repeat(2, 1)], dim=1),
            graph=torch.arange(count).repeat_interleave(torch.from_numpy(sizes)),
            output=torch.from_numpy(last),
        )


def graphs_of(space: Space, catalog: CatalogFeatures) -> Callable[[Sequence[Composition]], Graphs]:
    """What encodes compositions of a space, by the quickest way that there is."""
    if not isinstance(space, ClosedSearchSpace):
        return lambda compositions: encode_all(compositions, catalog)
    closed = ClosedGraphs(space.closed, catalog)
    return lambda compositions: closed(space.rows_of(compositions))
