"""What profiles tell of the latency and cost of compositions, before any was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import Operator
from gnncompose.composition.space import Space
from gnncompose.composition.transitions import ClosedSearchSpace
from gnncompose.composition.tree import Composition, Node

MANY = 4.0  # nodes that count as 1
SKIPS = ("cascade", "router")
Loads = Float[np.ndarray, "composition 4"]  # 1, the profiled latency, the number of nodes, whether rows may skip some


def loads_of(space: Space) -> Callable[[Sequence[Composition]], Loads]:
    """What tells the loads of compositions of a space, latency over the slowest model's."""
    slowest_ms = _slowest_ms(space.catalog)
    if isinstance(space, ClosedSearchSpace):
        return _closed_loads(space, slowest_ms)
    return lambda compositions: np.array([_load(composition, slowest_ms) for composition in compositions])


def _slowest_ms(catalog: Catalog) -> float:
    return max((_latency_ms(model) for model in catalog.models), default=0.0) or 1.0


def _latency_ms(operator: Operator) -> float:
    return operator.profile.latency_ms or 0.0


def _load(composition: Composition, slowest_ms: float) -> list[float]:
    latencies_ms = [_latency_ms(node.operator) for node in composition.nodes]
    skips = any(node.operator.kind in SKIPS for node in composition.nodes)
    return [1.0, sum(latencies_ms) / slowest_ms, len(latencies_ms) / MANY, float(skips)]


def _closed_loads(space: ClosedSearchSpace, slowest_ms: float) -> Callable[[Sequence[Composition]], Loads]:
    closed = space.closed
    nodes_ms = np.array([_latency_ms(e.operator) if isinstance(e, Node) else 0.0 for e in closed.expressions.all])
    ways_ms = np.array([0.0 if way is None else _latency_ms(way.operator) for way in closed.ways])
    skips = np.array([way is not None and way.operator.kind in SKIPS for way in closed.ways])

    def loads(compositions: Sequence[Composition]) -> Loads:
        rows = space.rows_of(compositions)
        laid, way = closed.layout.at(rows), closed.way[rows]
        total_ms = np.zeros(len(rows))
        for entry, first in zip(laid.entries.T, laid.first.T, strict=True):
            total_ms += np.where(first, nodes_ms[entry], 0.0)
        total_ms += ways_ms[way]
        count = laid.output - 1
        return np.stack([np.ones(len(rows)), total_ms / slowest_ms, count / MANY, skips[way]], axis=1)

    return loads
