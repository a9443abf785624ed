"""Latency and CPU time: the operators' isolated times, corrected by a graph network for running together.

    latency = intercept + Σ_nodes runs · (alone(rows) · exp(δ) + hop)

`alone` is the operator's profile at the rows that reach it, `runs` the share of requests in which any do, and δ and
the hop come from a network that passes messages along the data and along the order of execution, since what ran
just before decides what is left in the caches. A builtin has no profile, its hop is all it takes. The loss compares
logarithms, so a microsecond counts where it matters. Several networks, each blind to a fold of the training data,
tell by how far they differ where they were not trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnncompose.composition.tree import INPUT_ID, Composition, Node, Parameters
from gnncompose.evaluation.cost_model.behaviour import OUTCOMES
from gnncompose.evaluation.cost_model.features import (
    NODE_DIM,
    alone_ms,
    operator_features,
    parameter_features,
)
from gnncompose.ranges import above_zero, at_least, counts

DYNAMIC_DIM = 8 + OUTCOMES + 1
LATENCY_DIM = NODE_DIM + DYNAMIC_DIM
EDGE_DIM = 5
HOP_MS = 0.001
BUILTIN_MS = 0.005
INTERCEPT_MS = 0.0015


def _nothing() -> dict[str, tuple[float, ...]]:
    return {}


@dataclass(frozen=True, eq=False)
class Usage:
    """How a composition is asked and which nodes take part.

    Attributes:
        batch: Rows of a request.
        threads: Threads of every session.
        runs: Share of the requests in which each node runs, in the order of `Composition.nodes`.
        rows: Mean rows that each node runs on, over all requests.
        told: By id of a node whose operator branches as the data say: its linked behaviour in this world, which tells
            much of what its branches meet.
    """

    batch: int
    threads: int
    runs: tuple[float, ...]
    rows: tuple[float, ...]
    told: Mapping[str, tuple[float, ...]] = field(default_factory=_nothing)


@dataclass(frozen=True, eq=False)
class TimedGraphs:
    """Compositions under their usage, as one graph.

    Attributes:
        x: Features of each node.
        alone: Milliseconds that each node's operator takes alone on the rows that reach it.
        runs: Share of the requests in which each node runs.
        builtin: 1 where the node is a builtin.
        edge_index: Node rows that each edge joins.
        edge_attr: Along or against the data, along or against the order of execution, first port.
        graph: Number of the composition of each node.
        count: How many compositions there are.
    """

    x: Float[Tensor, "node dim"]
    alone: Float[Tensor, " node"]
    runs: Float[Tensor, " node"]
    builtin: Float[Tensor, " node"]
    edge_index: Int[Tensor, "2 edge"]
    edge_attr: Float[Tensor, "edge edge_dim"]
    graph: Int[Tensor, " node"]
    count: int

    def part(self, graphs: Int[Tensor, " pick"]) -> TimedGraphs:
        """Some of the compositions, in the order given."""
        nodes = torch.bincount(self.graph, minlength=self.count)
        edges = torch.bincount(self.graph[self.edge_index[0]], minlength=self.count)
        rows, links = _ranges(nodes, graphs), _ranges(edges, graphs)
        renumbered = torch.empty(len(self.x), dtype=torch.long)
        renumbered[rows] = torch.arange(len(rows))
        return TimedGraphs(
            x=self.x[rows],
            alone=self.alone[rows],
            runs=self.runs[rows],
            builtin=self.builtin[rows],
            edge_index=renumbered[self.edge_index[:, links]],
            edge_attr=self.edge_attr[links],
            graph=torch.arange(len(graphs)).repeat_interleave(nodes[graphs]),
            count=len(graphs),
        )


def _ranges(counts: Int[Tensor, " graph"], picked: Int[Tensor, " pick"]) -> Int[Tensor, " row"]:
    """Row numbers of the picked graphs, where graph g has `counts[g]` rows in a run."""
    starts, sizes = (counts.cumsum(0) - counts)[picked], counts[picked]
    return torch.repeat_interleave(starts - (sizes.cumsum(0) - sizes), sizes) + torch.arange(int(sizes.sum()))


class GraphBuilder:
    """Packs compositions; remembers each operator's features."""

    def __init__(self) -> None:
        self._operators: dict[tuple[str, Parameters], list[float]] = {}

    def pack(self, compositions: Sequence[Composition], usages: Sequence[Usage]) -> TimedGraphs:
        """One graph of all compositions under their usages.

        Raises:
            EvaluationError: An operator was not profiled.
        """
        x: list[list[float]] = []
        figures: list[tuple[float, float, float]] = []
        edges: list[tuple[int, int]] = []
        kinds: list[list[float]] = []
        for composition, usage in zip(compositions, usages, strict=True):
            self._add(composition, usage, x, figures, edges, kinds)
        numbers = torch.tensor(figures, dtype=torch.float32).reshape(-1, 3)
        sizes = torch.tensor([len(composition.nodes) for composition in compositions], dtype=torch.long)
        return TimedGraphs(
            x=torch.from_numpy(np.array(x, dtype=np.float32).reshape(-1, LATENCY_DIM)),
            alone=numbers[:, 0],
            runs=numbers[:, 1],
            builtin=numbers[:, 2],
            edge_index=torch.from_numpy(np.array(edges, dtype=np.int64).reshape(-1, 2).T.copy()),
            edge_attr=torch.from_numpy(np.array(kinds, dtype=np.float32).reshape(-1, EDGE_DIM)),
            graph=torch.arange(len(compositions)).repeat_interleave(sizes),
            count=len(compositions),
        )

    def _add(
        self,
        composition: Composition,
        usage: Usage,
        x: list[list[float]],
        figures: list[tuple[float, float, float]],
        edges: list[tuple[int, int]],
        kinds: list[list[float]],
    ) -> None:
        first, nodes = len(x), composition.nodes
        rows_of = {INPUT_ID: -1}
        times: list[float] = []
        for node, runs, rows in zip(nodes, usage.runs, usage.rows, strict=True):
            rows_of[node.id] = first + len(times)
            times.append(alone_ms(node.operator, max(rows / runs, 1.0) if runs > 0 else 1.0))
        whole = sum(time * runs for time, runs in zip(times, usage.runs, strict=True))
        shared = [math.log(usage.batch) / 3, math.log2(usage.threads), len(nodes) / 8]
        for number, (node, time, runs, rows) in enumerate(zip(nodes, times, usage.runs, usage.rows, strict=True)):
            here, builtin = first + number, float(node.operator.builtin is not None)
            reached = math.log(max(rows / runs, 1.0)) / 3 if runs > 0 else 0.0
            own = math.log(time / 0.05) / 2 if time > 0 else 0.0
            of_all = time * runs / whole if whole > 0 else 0.0
            told = usage.told.get(node.id)
            behaviour = [0.0] * (OUTCOMES + 1) if told is None else [*told, 1.0]
            x.append([*self._features(node), own, reached, runs, of_all, *shared, number / 8, *behaviour])
            figures.append((time, runs, builtin))
            for port, child in enumerate(node.inputs):
                source = rows_of[child.id]
                if source >= 0:
                    edges += [(source, here), (here, source)]
                    kinds += [[1.0, 0.0, 0.0, 0.0, float(port == 0)], [0.0, 1.0, 0.0, 0.0, float(port == 0)]]
            if number:
                edges += [(here - 1, here), (here, here - 1)]
                kinds += [[0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0]]

    def _features(self, node: Node) -> list[float]:
        key = node.operator.identity, node.parameters
        found = self._operators.get(key)
        if found is None:
            found = self._operators[key] = operator_features(node.operator) + parameter_features(node)
        return found


class LatencyNet(nn.Module):
    """Milliseconds that each node takes where it stands."""

    def __init__(self, width: int = 48, layers: int = 2, dropout: float = 0.1) -> None:
        """Begin with no correction: what it gives untrained is the isolated times and typical hops.

        Args:
            width: Width of every layer.
            layers: Steps of message passing.
            dropout: Share of the features that are hidden while training.
        """
        super().__init__()
        self.settings = {"width": width, "layers": layers, "dropout": dropout}
        self.hide = nn.Dropout(dropout)
        self.enter = nn.Sequential(nn.Linear(LATENCY_DIM, width), nn.SiLU())
        self.message = nn.ModuleList(nn.Linear(width + EDGE_DIM, width) for _ in range(layers))
        self.update = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(layers)
        )
        self.leave = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 3))
        self.intercept = nn.Parameter(torch.zeros(2))
        nn.init.zeros_(self.leave[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.leave[-1].bias)  # type: ignore[arg-type]

    def forward(self, graphs: TimedGraphs) -> tuple[Float[Tensor, "node 2"], Float[Tensor, " 2"]]:
        """Latency and CPU time that each node adds, and those of a request beside its nodes."""
        h = self.enter(self.hide(graphs.x))
        source, target = graphs.edge_index
        for message, update in zip(self.message, self.update, strict=True):
            sent = torch.relu(message(torch.cat([h[source], graphs.edge_attr], dim=1)))
            h = h + update(torch.cat([h, torch.zeros_like(h).index_add(0, target, sent)], dim=1))
        own, hop, cpu = self.leave(self.hide(h)).unbind(1)
        typical = torch.where(graphs.builtin > 0, BUILTIN_MS, HOP_MS)
        latency = graphs.runs * (graphs.alone * own.exp() + typical * hop.exp())
        return torch.stack([latency, latency * cpu.exp()], dim=1), INTERCEPT_MS * self.intercept.exp()


def totals(
    nodes: Float[Tensor, "node 2"], beside: Float[Tensor, " 2"], graphs: TimedGraphs
) -> Float[Tensor, "graph 2"]:
    """Latency and CPU time of each composition."""
    return torch.zeros(graphs.count, 2).index_add(0, graphs.graph, nodes) + beside


@dataclass(frozen=True)
class Training:
    """How a latency network is trained.

    Attributes:
        epochs: Passes over the data.
        batch_size: Compositions per step.
        learning_rate: Highest learning rate of the one-cycle schedule.
        weight_decay: Of AdamW.
        tolerance: Logarithmic error beyond which an error counts linearly; timings have outliers.
    """

    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where a number is out of its range."""
        counts("fitting.latency", 1, epochs=self.epochs, batch_size=self.batch_size)
        above_zero("fitting.latency", learning_rate=self.learning_rate, tolerance=self.tolerance)
        at_least("fitting.latency", 0, weight_decay=self.weight_decay)


def train(
    net: LatencyNet,
    graphs: TimedGraphs,
    measured: Float[Tensor, "graph 2"],
    training: Training,
    generator: torch.Generator,
) -> float:
    """Fit a network to measured latencies and CPU times in ms; returns the last epoch's loss."""
    steps = training.epochs * -(-graphs.count // training.batch_size)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.learning_rate, total_steps=steps)
    weight, last = torch.tensor([1.0, 0.3]), 0.0
    net.train()
    for _ in range(training.epochs):
        order, losses = torch.randperm(graphs.count, generator=generator), []
        for picked in order.split(training.batch_size):
            part = graphs.part(picked)
            nodes, beside = net(part)
            error = (totals(nodes, beside, part) / measured[picked]).log() / training.tolerance
            loss = (nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none") * weight).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        last = float(np.mean(losses))
    net.eval()
    return last
