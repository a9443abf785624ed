"""What the cost model reads of an operator: kind, profile and graph, never name or place in the catalog.

What a bundle does not tell (a profile of an older version, a builtin, which has no artifact) is 0, with a flag that
says so.
"""

from __future__ import annotations

import math

from gnncompose.catalog.graph import GROUPS
from gnncompose.catalog.operator import CASCADES, ENSEMBLES, GraphFeatures, Operator
from gnncompose.composition.tree import Node
from gnncompose.errors import EvaluationError

OPERATOR_KINDS = ("transform", "model", "ensemble", "cascade", "router")
BUILTINS = (*ENSEMBLES, *CASCADES)
# Where the logarithm of each figure is about 0, and how far it spreads.
SCALES = {
    "latency_ms": (0.02, 1.5),
    "latency_ms_batch8": (0.05, 1.5),
    "latency_ms_batch64": (0.2, 2.0),
    "peak_memory_bytes": (6e7, 0.2),
    "artifact_bytes": (1e5, 3.0),
    "weights": (1e4, 3.0),
}
GRAPH_SCALES = {
    "nodes": (5.0, 1.5),
    "flops": (1e5, 4.0),
    "moved_bytes": (1e4, 3.0),
    "weight_bytes": (1e4, 4.0),
    "tree_nodes": (1e2, 4.0),
}
OPERATOR_DIM = len(OPERATOR_KINDS) + len(BUILTINS) + 2 * len(SCALES) + 3 + 1 + len(GRAPH_SCALES) + len(GROUPS)
NODE_DIM = OPERATOR_DIM + 3
WIDE = 4.0
SMALLEST = 1e-3


def operator_features(operator: Operator) -> list[float]:
    """float[OPERATOR_DIM] of one operator."""
    profile = operator.profile
    features = [float(operator.kind == kind) for kind in OPERATOR_KINDS]
    features += [float(operator.builtin == builtin) for builtin in BUILTINS]
    for name, scale in SCALES.items():
        features += _scaled(getattr(profile, name), scale)
    # errors of .02 and .01 differ as much as .2 and .1 do, hence the logarithm beside the score
    error = 0.0 if profile.score is None else -0.5 * math.log(max(1.0 - profile.score, 1e-3))
    features += [profile.score or 0.0, error, float(profile.score is None)]
    return features + _graph_features(profile.graph)


def _graph_features(graph: GraphFeatures | None) -> list[float]:
    if graph is None:
        return [1.0] + [0.0] * (len(GRAPH_SCALES) + len(GROUPS))
    figures = [_scaled(getattr(graph, name), scale)[0] for name, scale in GRAPH_SCALES.items()]
    return [0.0, *figures, *(0.5 * math.log1p(graph.counts.get(group, 0)) for group in GROUPS)]


def _scaled(value: float | None, scale: tuple[float, float]) -> list[float]:
    """Logarithm of a figure around 0, and whether it is missing."""
    if value is None:
        return [0.0, 1.0]
    middle, spread = scale
    return [math.log(max(value / middle, SMALLEST)) / spread, 0.0]


def parameter_features(node: Node) -> list[float]:
    """Where the node's first single parameter stands in its range, its logarithm, and how many inputs there are."""
    for name, value in node.parameters:
        if not isinstance(value, tuple):
            parameter = node.operator.parameters[name]
            place = 2.0 * (value - parameter.low) / max(parameter.high - parameter.low, 1e-9) - 1.0
            return [place, 0.5 * math.log(max(abs(value), SMALLEST)), len(node.inputs) / WIDE]
    return [0.0, 0.0, len(node.inputs) / WIDE]


def alone_ms(operator: Operator, rows: float) -> float:
    """Time of an operator alone on a request of some rows, from its profile.

    Args:
        operator: Which; 0 for a builtin, whose time is learned.
        rows: Rows of the request, 1 or more; need not be whole.

    Raises:
        EvaluationError: The operator was not profiled.
    """
    if operator.builtin:
        return 0.0
    found = operator.profile.request_ms(rows)
    if found is None:
        raise EvaluationError(
            f'catalog.yaml: operator "{operator.name}": profile is empty, so nothing can be predicted; '
            f"run gnncompose catalog profile"
        )
    return found


def has_branches(operator: Operator) -> bool:
    """Whether what the operator does depends on the data, so that its time does, too."""
    graph = operator.profile.graph
    return graph is not None and (graph.tree_nodes > 0 or graph.counts.get("control", 0) > 0)
