"""Compositions that share parts, as one forest of distinct nodes, ready to be embedded bottom-up.

Beside what the encoder reads, every node has a sketch of its structure that needs no training: random vectors stand
for operators with their parameters, sums for bags of them, and products for what stands upon what (holographic
reduced representations: Plate, IEEE Transactions on Neural Networks, 1995). Inner products of sketches count what
two compositions share, so a catalog that no network has seen is still told apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

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
from gnncompose.evaluation.cost_model.growing import GrowingArray

USE_DIM = 6
INPUT_ROW = 0
SKETCH_LENGTH = 192
SKETCHES = 3
SKETCH_DIM = SKETCHES * SKETCH_LENGTH


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
        self._x = GrowingArray((NODE_DIM,), np.float32)
        self._x.append(np.zeros((1, NODE_DIM)))
        self._depth: list[int] = [0]
        self._uses: list[list[int]] = [[]]
        self._ways: list[list[list[float]]] = [[]]
        self._sketches: list[_Sketch] = [_Sketch.of_input()]

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
        self._x.append(np.array([[*self._operators[identity], *parameter_features(node)]]))
        self._depth.append(node.depth)
        self._uses.append([self.rows[child.id] for child in node.inputs])
        ways = [_way(node, port) for port in range(len(node.inputs))]
        self._ways.append(ways)
        below = [self._sketches[row] for row in self._uses[-1]]
        self._sketches.append(_Sketch.of_node(node, below, [way[0] for way in ways]))

    def sketches(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """float64[rows, SKETCH_DIM]: sketches of unit length of the structure of some nodes."""
        return np.stack([self._sketches[row].unit for row in rows])

    def inputs(self, rows: Iterable[int]) -> Iterator[int]:
        """Rows that some rows read."""
        return (source for row in rows for source in self._uses[row])

    def levels(self, rows: Sequence[int] | np.ndarray, places: np.ndarray | None = None) -> list[Level]:
        """The nodes of some rows, shallowest first.

        Args:
            rows: Which nodes; what they use must be among them or be embedded already.
            places: [forest] where the embedding of each row is to lie; None for its row in the forest.
        """
        wanted = np.unique(np.asarray(rows, dtype=np.int64))
        depths = np.array([self._depth[row] for row in wanted])
        x, found = self._x.rows, list[Level]()
        for level in np.unique(depths):
            here = wanted[depths == level]
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


@dataclass(frozen=True, eq=False)
class _Sketch:
    """Vectors that add up what a node consists of.

    Attributes:
        bag: Which operators, each by its share of the paths to the input.
        order: Which operator stands above which.
        path: The whole paths to the input.
        flow: All that the data go through, from the input up to each node.
    """

    bag: np.ndarray
    order: np.ndarray
    path: np.ndarray
    flow: np.ndarray

    @classmethod
    def of_input(cls) -> _Sketch:
        nothing = np.zeros(SKETCH_LENGTH)
        return cls(nothing, nothing, np.ones(SKETCH_LENGTH), nothing)

    @classmethod
    def of_node(cls, node: Node, below: Sequence[_Sketch], weights: Sequence[float]) -> _Sketch:
        one, two, three = _signs(node)
        parts = [(sketch.bag, sketch.order, sketch.path, sketch.flow) for sketch in below]
        bag, order, path, flow = (
            sum(weight * part for weight, part in zip(weights, column, strict=True))
            for column in zip(*parts, strict=True)
        )
        path = three * path
        return cls(one + bag, order + two * bag, path, flow + path)

    @cached_property
    def unit(self) -> np.ndarray:
        """The three of them side by side, of unit length together."""
        parts = [part / max(float(np.linalg.norm(part)), 1e-9) for part in (self.bag, self.order, self.flow)]
        return np.concatenate(parts) / np.sqrt(SKETCHES)


def _signs(node: Node) -> np.ndarray:
    """Three random vectors of signs for an operator with its single parameters, the same everywhere and always."""
    single = [(name, value) for name, value in node.parameters if not isinstance(value, tuple)]
    digest = hashlib.sha256(f"{node.operator.identity}{single}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return generator.choice((-1.0, 1.0), size=(SKETCHES, SKETCH_LENGTH))


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
