"""From compositions to tensors: the only door.

A composition becomes the graph of its distinct operator nodes between an input node (row 0) and an output node
(last row), and its legal edits become flat arrays. An operator is described by what is known of it (kind, measured
profile, ports, and a fingerprint of its content), never by its name or its place in the catalog, so the same
weights serve catalogs never seen, of any size. Its traits leave the fingerprint out and compare it with the rest of
its catalog; they are what learning on some catalogs tells of others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.data import Data

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import CASCADES, ENSEMBLES, Operator
from gnncompose.composition.edits import KINDS, Edit, OperatorEdit, Place, Reorder, SetParameter, Stop
from gnncompose.composition.tree import INPUT_ID, Composition, Expression, Node, Value

OPERATOR_KINDS = ("transform", "model", "ensemble", "cascade", "router")
BUILTINS = (*ENSEMBLES, *CASCADES)
# Typical sizes: a logarithm relative to these lies around 0 for the operators of most catalogs.
PROFILE_SCALES = {
    "latency_ms": 0.1,
    "cpu_ms": 0.1,
    "peak_memory_bytes": 1e8,
    "artifact_bytes": 1e5,
    "weights": 1e4,
}
FINGERPRINT_BITS = 16
FAMILY_BITS = 12
OPERATOR_DIM = len(OPERATOR_KINDS) + len(BUILTINS) + 2 * len(PROFILE_SCALES) + 3 + 3 + FINGERPRINT_BITS
TRAIT_DIM = len(OPERATOR_KINDS) + len(BUILTINS) + 6 + 2 + FAMILY_BITS
NODE_DIM = 2 + OPERATOR_DIM + 3
TRAIT_NODE_DIM = 2 + TRAIT_DIM + 3
EDGE_DIM = 5
VALUE_DIM = 8
PLACE_VALUES = 2  # the first of an edit's values are those of its place
WIDE = 4.0


@dataclass(frozen=True, eq=False)
class CatalogFeatures:
    """A catalog's operators as tensors.

    Attributes:
        operators: Features of each operator; one row of zeros, for edits that bring none, is last.
        rows: Row of each operator by name.
    """

    operators: Float[Tensor, "operators dim"]
    rows: dict[str, int]

    @classmethod
    def of(cls, catalog: Catalog) -> CatalogFeatures:
        """The features of a catalog."""
        return cls._of(operator_features(catalog), catalog)

    @classmethod
    def traits_of(cls, catalog: Catalog) -> CatalogFeatures:
        """The traits of a catalog's operators, in place of their features."""
        return cls._of(operator_traits(catalog), catalog)

    @classmethod
    def _of(cls, features: Float[Tensor, "operator dim"], catalog: Catalog) -> CatalogFeatures:
        rows = {operator.name: row for row, operator in enumerate(catalog.operators)}
        return cls(torch.cat([features, torch.zeros(1, features.shape[1])]), rows)


def operator_features(catalog: Catalog) -> Float[Tensor, "operator dim"]:
    """What is known of each operator of a catalog, in catalog order."""
    return torch.tensor([_operator(operator) for operator in catalog.operators]).reshape(-1, OPERATOR_DIM)


def _operator(operator: Operator) -> list[float]:
    profile = operator.profile
    features = [float(operator.kind == kind) for kind in OPERATOR_KINDS]
    features += [float(operator.builtin == builtin) for builtin in BUILTINS]
    for name, scale in PROFILE_SCALES.items():
        value = getattr(profile, name)
        features += [0.0, 1.0] if value is None else [0.5 * math.log(max(value, 1e-3 * scale) / scale), 0.0]
    # Errors of .02 and .01 differ as much as .2 and .1 do, hence the logarithm beside the score.
    error = 0.0 if profile.score is None else -0.5 * math.log(max(1.0 - profile.score, 1e-3))
    features += [profile.score or 0.0, error, float(profile.score is None)]
    keeps_type = len({str(port.type) for port in (*operator.inputs, *operator.outputs)}) == 1
    features += [len(operator.inputs) / WIDE, len(operator.parameters) / WIDE, float(keeps_type)]
    # Two blurs may share every figure above; bits of the content hash let a learner tell them apart.
    return features + _bits(operator.identity, FINGERPRINT_BITS)


def _bits(text: str, count: int) -> list[float]:
    """Numbers that equal texts share and others do not."""
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return [0.5 if digest >> bit & 1 else -0.5 for bit in range(count)]


def operator_traits(catalog: Catalog) -> Float[Tensor, "operator trait_dim"]:
    """What an operator is among those of its catalog, in catalog order.

    Kind and builtin; of a model its clean score as a share of the best one's, the logarithm of its error, its rank,
    and whether it has a score; latency against the slowest model's; ports and parameters; a code of its family.
    """
    scores = [model.profile.score for model in catalog.models if model.profile.score is not None]
    slowest_ms = max((model.profile.latency_ms or 0.0 for model in catalog.models), default=0.0) or 1.0
    return torch.tensor([_traits(o, scores, slowest_ms) for o in catalog.operators]).reshape(-1, TRAIT_DIM)


def _traits(operator: Operator, scores: Sequence[float], slowest_ms: float) -> list[float]:
    profile, known = operator.profile, [0.0, 0.0, 0.0, 0.0]
    traits = [float(operator.kind == kind) for kind in OPERATOR_KINDS]
    traits += [float(operator.builtin == builtin) for builtin in BUILTINS]
    if operator.kind == "model" and profile.score is not None:
        rank = sum(score < profile.score for score in scores) / len(scores)
        error = -math.log(max(1.0 - profile.score, 1e-3)) / 3.0
        known = [profile.score / max(scores) if max(scores) > 0 else 0.0, error, rank, 1.0]
    latency_ms = profile.latency_ms
    relative = 0.0 if not latency_ms else 0.3 * math.log(max(latency_ms, 1e-3 * slowest_ms) / slowest_ms)
    keeps_type = len({str(port.type) for port in (*operator.inputs, *operator.outputs)}) == 1
    traits += [*known, relative, float(latency_ms is None), float(keeps_type), float(bool(operator.parameters))]
    return traits + (_bits(operator.family, FAMILY_BITS) if operator.family else [0.0] * FAMILY_BITS)


def encode(composition: Composition, edits: Sequence[Edit], catalog: CatalogFeatures) -> Data:
    """Encode a composition and its legal edits.

    Args:
        composition: What to encode.
        edits: Its legal edits, in any order; `Stop` may be among them.
        catalog: Features of the catalog that it is made from.

    Returns:
        Data with `x` float[node, NODE_DIM], or TRAIT_NODE_DIM with a catalog's traits, `edge_index` int[2, edge],
        `edge_attr` float[edge, EDGE_DIM], and of each edit its `edit_kind` int[edit], `edit_source` and
        `edit_consumer` int[edit] (node rows of its place), `edit_operator` int[edit] (row of `catalog.operators`)
        and `edit_values` float[edit, VALUE_DIM].
    """
    rows = {INPUT_ID: 0} | {node.id: row for row, node in enumerate(composition.nodes, start=1)}
    at = dict(composition.occurrences())
    described = [_edit(edit, rows, at, catalog) for edit in edits]
    numbers = torch.tensor([numbers for numbers, _ in described], dtype=torch.long).reshape(-1, 4)
    graph = encode_all([composition], catalog)
    return Data(
        x=graph.x,
        edge_index=graph.edge_index,
        edge_attr=graph.edge_attr,
        edit_kind=numbers[:, 0],
        edit_source=numbers[:, 1],
        edit_consumer=numbers[:, 2],
        edit_operator=numbers[:, 3],
        edit_values=torch.tensor([values for _, values in described]).reshape(-1, VALUE_DIM),
    )


class Graphs(NamedTuple):
    """Several encoded compositions as one graph, without their edits.

    Attributes:
        x: Node features.
        edge_index: Node rows that each edge joins.
        edge_attr: Edge features.
        graph: Graph of each node.
        output: Row of each graph's output node.
    """

    x: Float[Tensor, "node node_dim"]
    edge_index: Int[Tensor, "2 edge"]
    edge_attr: Float[Tensor, "edge edge_dim"]
    graph: Int[Tensor, " node"]
    output: Int[Tensor, " graph"]


def encode_all(compositions: Sequence[Composition], catalog: CatalogFeatures) -> Graphs:
    """Encode compositions of a catalog as one graph, without their edits.

    Args:
        compositions: What to encode, at least one.
        catalog: Features of the catalog that they are made from.
    """
    none = len(catalog.operators) - 1
    operators: list[int] = []
    own: list[tuple[float, float, float]] = []
    inputs: list[int] = []
    outputs: list[int] = []
    sources: list[int] = []
    targets: list[int] = []
    ports: list[int] = []
    weights: list[float] = []
    for composition in compositions:
        inputs.append(len(operators))
        rows = {INPUT_ID: len(operators)}
        operators.append(none)
        own.append((0.0, 0.0, 0.0))
        for node in composition.nodes:
            row = rows[node.id] = len(operators)
            operators.append(catalog.rows[node.operator.name])
            own.append((setting_of(node), len(node.inputs) / WIDE, node.depth / WIDE))
            sources += [rows[child.id] for child in node.inputs]
            targets += [row] * len(node.inputs)
            ports += range(len(node.inputs))
            weights += shares_of(node)
        outputs.append(len(operators))
        sources.append(rows[composition.id])
        targets.append(len(operators))
        ports.append(0)
        weights.append(1.0)
        operators.append(none)
        own.append((0.0, 0.0, 0.0))
    width, output = catalog.operators.shape[1], torch.tensor(outputs)
    x = torch.zeros(len(operators), 2 + width + 3)
    x[inputs, 0] = x[output, 1] = 1.0
    x[:, 2 : 2 + width] = catalog.operators[operators]
    x[:, 2 + width :] = torch.tensor(own)
    along = torch.tensor([sources, targets])
    port = torch.tensor(ports)
    told = torch.stack([port / WIDE, (port == 0).float(), torch.tensor(weights)], dim=1)
    direction = torch.eye(2).repeat_interleave(len(ports), dim=0)
    return Graphs(
        x=x,
        edge_index=torch.cat([along, along.flip(0)], dim=1),
        edge_attr=torch.cat([direction, told.repeat(2, 1)], dim=1),
        graph=torch.arange(len(outputs)).repeat_interleave(output - torch.tensor(inputs) + 1),
        output=output,
    )


def setting_of(node: Node) -> float:
    """Where the node's first single-valued parameter stands in its range, -1 to 1; 0 where it has none."""
    for name, value in node.parameters:
        if not isinstance(value, tuple):
            return _in_range(node.operator, name, value)
    return 0.0


def _in_range(operator: Operator, name: str, value: float) -> float:
    parameter = operator.parameters[name]
    return 2.0 * (value - parameter.low) / max(parameter.high - parameter.low, 1e-9) - 1.0


def shares_of(node: Node) -> list[float]:
    """How much of a weighted mean each port has; 1 for other operators."""
    weights: Value = dict(node.parameters).get("weights", 1.0)
    return [w / sum(weights) for w in weights] if isinstance(weights, tuple) else [1.0] * len(node.inputs)


def _edit(
    edit: Edit, rows: dict[str, int], at: dict[tuple[int, ...], Expression], catalog: CatalogFeatures
) -> tuple[list[int], list[float]]:
    """Kind, place and operator of an edit as row numbers, and its values."""
    kind, output_row, none = KINDS.index(type(edit)), len(rows), len(catalog.operators) - 1
    if isinstance(edit, Stop):
        return [kind, output_row, output_row, none], [0.0] * VALUE_DIM
    place = edit.place
    if place.output is not None:
        source_row, consumer_row, port = rows[place.output], output_row, 0
    else:
        source_row = rows[at[place.path].id]
        consumer_row = rows[at[place.path[:-1]].id] if place.path else output_row
        port = place.path[-1] if place.path else 0
    operator_row = catalog.rows[edit.operator] if isinstance(edit, OperatorEdit) else none
    settings = [0.0] * (VALUE_DIM - 2)
    if isinstance(edit, SetParameter):
        settings = parameter_settings(edit, _node_at(place, at))
    elif isinstance(edit, Reorder) and edit.stages is not None:
        settings[4:] = [stage / WIDE for stage in edit.stages]
    return [kind, source_row, consumer_row, operator_row], [float(place.output is not None), port / WIDE, *settings]


def _node_at(place: Place, at: dict[tuple[int, ...], Expression]) -> Node:
    here = at[place.path] if place.output is None else next(e for e in at.values() if e.id == place.output)
    assert isinstance(here, Node)
    return here


def parameter_settings(edit: SetParameter, node: Node) -> list[float]:
    """The new value, the change, and, for one of several weights, whose it is."""
    name, _, port = edit.name.partition(".")
    old = node.parameter(name)
    before = old[int(port)] if isinstance(old, tuple) else old
    new, was = _in_range(node.operator, name, edit.value), _in_range(node.operator, name, before)
    return [new, new - was, float(bool(port)), int(port or 0) / WIDE, 0.0, 0.0]


def join(graphs: Sequence[Data]) -> Graphs:
    """Join encoded compositions, of whatever catalogs, into one graph.

    Args:
        graphs: From `encode`, at least one.
    """
    nodes = torch.tensor([len(graph["x"]) for graph in graphs])
    ends = nodes.cumsum(0)
    offsets = (ends - nodes).tolist()
    return Graphs(
        x=torch.cat([graph["x"] for graph in graphs]),
        edge_index=torch.cat([g["edge_index"] + o for g, o in zip(graphs, offsets, strict=True)], dim=1),
        edge_attr=torch.cat([graph["edge_attr"] for graph in graphs]),
        graph=torch.arange(len(graphs)).repeat_interleave(nodes),
        output=ends - 1,
    )
