"""Compositions that share parts, as one forest of distinct nodes, ready to be embedded bottom-up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnncompose.composition.tree import INPUT_ID, Composition, Node
from gnncompose.evaluation.cost_model.features import (
    NODE_DIM,
    WIDE,
    operator_features,
    parameter_features,
)

USE_DIM = 6
INPUT_ROW = 0


@dataclass(frozen=True, eq=False)
class Level:
    """Nodes none of which is an input of another, to be embedded at once.

    Attributes:
        rows: Where their embeddings go.
        x: Features of each node.
        source: Row of each input's embedding.
        target: Which node of the level uses it, as its number here.
        use: How it is used: its weight, first or last stage, number of the stage, router's data, router's branch.
    """

    rows: Int[Tensor, " node"]
    x: Float[Tensor, "node dim"]
    source: Int[Tensor, " use"]
    target: Int[Tensor, " use"]
    use: Float[Tensor, "use use_dim"]


class Forest:
    """Distinct nodes of compositions; row 0 is the task's input, and every node stands after its inputs."""

    def __init__(self) -> None:
        """Begin with the input alone."""
        self.rows: dict[str, int] = {INPUT_ID: INPUT_ROW}
        self._operators: dict[str, list[float]] = {}
        self._x: list[list[float]] = [[0.0] * NODE_DIM]
        self._depth: list[int] = [0]
        self._uses: list[list[int]] = [[]]
        self._ways: list[list[list[float]]] = [[]]
        self._whole: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self._depth)

    def add(self, compositions: Iterable[Composition]) -> None:
        """Take in what is new in the compositions."""
        for composition in compositions:
            if composition.id not in self.rows:
                for node in composition.nodes:
                    if node.id not in self.rows:
                        self._add(node)

    def _add(self, node: Node) -> None:
        identity = node.operator.identity
        if identity not in self._operators:
            self._operators[identity] = operator_features(node.operator)
        self.rows[node.id] = len(self._depth)
        self._x.append([*self._operators[identity], *parameter_features(node)])
        self._depth.append(node.depth)
        self._uses.append([self.rows[child.id] for child in node.inputs])
        self._ways.append([_way(node, port) for port in range(len(node.inputs))])
        self._whole = None

    def levels(self, rows: Sequence[int] | np.ndarray, places: np.ndarray | None = None) -> list[Level]:
        """The nodes of some rows, shallowest first.

        Args:
            rows: Which nodes; what they use must be among them or be embedded already.
            places: [forest] where the embedding of each row is to lie; None for its row in the forest.
        """
        if self._whole is None:
            self._whole = np.array(self._x, dtype=np.float32), np.array(self._depth)
        x, depth = self._whole
        wanted = np.unique(np.asarray(rows, dtype=np.int64))
        found: list[Level] = []
        for level in np.unique(depth[wanted]):
            here = wanted[depth[wanted] == level]
            if level == 0:
                continue
            source = np.array([child for row in here for child in self._uses[row]])
            target = np.repeat(np.arange(len(here)), [len(self._uses[row]) for row in here])
            use = np.array([way for row in here for way in self._ways[row]], dtype=np.float32)
            out = here
            if places is not None:
                source, out = places[source], places[here]
            found.append(Level(*(torch.from_numpy(part) for part in (out, x[here], source, target, use))))
        return found


def _way(node: Node, port: int) -> list[float]:
    """How a node uses one of its inputs."""
    count, kind = len(node.inputs), node.operator.kind
    weights = dict(node.parameters).get("weights")
    weight = weights[port] / sum(weights) if isinstance(weights, tuple) else 1.0 / count
    cascade, router = kind == "cascade", kind == "router"
    return [
        weight,
        float(cascade and port == 0),
        float(cascade and port == count - 1),
        port / WIDE if cascade else 0.0,
        float(router and port == 0),
        float(router and port > 0),
    ]
