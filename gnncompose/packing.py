"""Many encoded compositions at once, with what is known beside each: what policies read.

Beside a graph stand how much of the budget is left, the reward so far, and what was evaluated before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch_geometric.data import Data

from gnncompose.composition.edits import KINDS, SetParameter, Stop
from gnncompose.encoding import PLACE_VALUES

CONTEXT_DIM = 2
FIGURES_DIM = 4
SMALL_GAIN = 0.01


class Context(NamedTuple):
    """What an agent knows beside the graph.

    Attributes:
        budget_left: Share of the budget that is left, 0 to 1.
        reward: Reward of the composition.
    """

    budget_left: float
    reward: float


class History(NamedTuple):
    """What was evaluated before several decisions; a set for each, whatever the order.

    Attributes:
        bag: Of each evaluation, the mean of the composition's node features: a bag of operators.
        figures: Of each evaluation, from `figures_of`.
        at: Of each graph, rows of these two; as long as the longest.
        there: Which of the entries are some.
    """

    bag: Float[Tensor, "evaluation node_dim"]
    figures: Float[Tensor, "evaluation 4"]
    at: Int[Tensor, "graph entry"]
    there: Bool[Tensor, "graph entry"]


def figures_of(
    reward: Float[np.ndarray, " evaluation"],
    score: Float[np.ndarray, " evaluation"],
    latency: Float[np.ndarray, " evaluation"],
) -> Float[Tensor, "evaluation 4"]:
    """What a policy is told of evaluations, beside what was evaluated.

    Args:
        reward: By how much each reward exceeds the start's.
        score: Likewise the score; NaN where an evaluation failed.
        latency: The latency as a share of the start's; NaN likewise.
    """
    failed = np.isnan(score)
    told = [*(_squashed(np.where(np.isnan(gain), 0.0, gain)) for gain in (reward, score))]
    told += [0.3 * np.log(np.where(failed, 1.0, latency)), failed]
    return torch.from_numpy(np.stack(told, axis=1)).float()


def _squashed(gain: np.ndarray) -> np.ndarray:
    """Tasks differ in how much there is to gain: .01 is told from 0 as well as .5 from .1."""
    return 0.3 * np.sign(gain) * np.log1p(np.abs(gain) / SMALL_GAIN)


@dataclass(frozen=True, eq=False)
class Packed:
    """Several encoded compositions of one catalog as one graph.

    Attributes:
        x: Node features.
        edge_index: Node rows that each edge joins.
        edge_attr: Edge features.
        graph: Graph of each node.
        context: What is known beside each graph.
        edit_kind: Kind of each edit, as its number in `KINDS`.
        edit_source: Row of `x` that the edit's place comes from.
        edit_consumer: Row of `x` that it leads to.
        edit_operator: Row of the catalog's features.
        edit_values: Values of each edit.
        edit_graph: Graph of each edit.
        history: What was evaluated before; None is as good as nothing.
    """

    x: Float[Tensor, "node node_dim"]
    edge_index: Int[Tensor, "2 edge"]
    edge_attr: Float[Tensor, "edge edge_dim"]
    graph: Int[Tensor, " node"]
    context: Float[Tensor, "graph context_dim"]
    edit_kind: Int[Tensor, " edit"]
    edit_source: Int[Tensor, " edit"]
    edit_consumer: Int[Tensor, " edit"]
    edit_operator: Int[Tensor, " edit"]
    edit_values: Float[Tensor, "edit value_dim"]
    edit_graph: Int[Tensor, " edit"]
    history: History | None = None

    @property
    def is_stop(self) -> Bool[Tensor, " edit"]:
        """Which edits end the episode."""
        return self.edit_kind == KINDS.index(Stop)

    @property
    def is_setting(self) -> Bool[Tensor, " edit"]:
        """Which edits set a parameter."""
        return self.edit_kind == KINDS.index(SetParameter)

    def without_values(self) -> Packed:
        """The same with the value that stands there in place of each that an edit would set."""
        values, new = self.edit_values.clone(), PLACE_VALUES
        values[self.is_setting, new] -= values[self.is_setting, new + 1]
        values[self.is_setting, new + 1] = 0.0
        return replace(self, edit_values=values)


class Packer:
    """Encoded compositions of one catalog, laid end to end, so that a few gathers pack any of them.

    That is many times faster than `torch_geometric.data.Batch`, which touches each graph in Python.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._nodes, self._edges, self._edits = _Spans(), _Spans(), _Spans()

    def __len__(self) -> int:
        return len(self._nodes.counts)

    def add(self, graph: Data) -> int:
        """Take in a graph from `encode`; returns its number, counted from 0."""
        fields = ("edit_kind", "edit_source", "edit_consumer", "edit_operator")
        edits = torch.stack([graph[name] for name in fields], dim=1)
        self._nodes.add(graph["x"])
        self._edges.add(graph["edge_index"].T, graph["edge_attr"])
        self._edits.add(edits, graph["edit_values"])
        return len(self) - 1

    def pack(
        self,
        numbers: Sequence[int],
        contexts: Sequence[Context],
        edits: Sequence[Sequence[int] | Int[np.ndarray, " pick"]] | None = None,
    ) -> Packed:
        """Pack some of the graphs, each as often as it is named.

        Args:
            numbers: From `add`, at least one.
            contexts: One for each graph.
            edits: Of each graph, numbers of the edits to keep; None for all edits.
        """
        asked = np.asarray(numbers)
        nodes, node_counts = self._nodes.rows(asked)
        edges, edge_counts = self._edges.rows(asked)
        firsts = np.cumsum(node_counts) - node_counts
        if edits is None:
            kept, edit_counts = self._edits.rows(asked)
        else:
            edit_counts = np.array([len(some) for some in edits])
            kept = np.concatenate(edits).astype(np.int64) + np.repeat(self._edits.first(asked), edit_counts)
        edit_firsts = torch.from_numpy(np.repeat(firsts, edit_counts))
        (x,) = self._nodes.at(nodes)
        ends, edge_attr = self._edges.at(edges)
        described, values = self._edits.at(kept)
        return Packed(
            x=x,
            edge_index=(ends + torch.from_numpy(np.repeat(firsts, edge_counts)).unsqueeze(1)).T,
            edge_attr=edge_attr,
            graph=torch.from_numpy(np.repeat(np.arange(len(asked)), node_counts)),
            context=torch.tensor([list(context) for context in contexts]),
            edit_kind=described[:, 0],
            edit_source=described[:, 1] + edit_firsts,
            edit_consumer=described[:, 2] + edit_firsts,
            edit_operator=described[:, 3],
            edit_values=values,
            edit_graph=torch.from_numpy(np.repeat(np.arange(len(asked)), edit_counts)),
        )


class _Spans:
    """Spans of rows in one or several tables that grow.

    Attributes:
        counts: Rows of each span.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(0, dtype=np.int64)
        self._ends = np.zeros(0, dtype=np.int64)
        self._tables: list[Tensor] = []

    def add(self, *parts: Tensor) -> None:
        """Append a span: its rows in each table."""
        used, count = int(self._ends[-1]) if len(self._ends) else 0, len(parts[0])
        self.counts = np.append(self.counts, count)
        self._ends = np.append(self._ends, used + count)
        tables = self._tables or [part.new_empty(0, *part.shape[1:]) for part in parts]
        for number, (table, part) in enumerate(zip(tables, parts, strict=True)):
            if used + count > len(table):
                table = torch.cat([table[:used], part.new_empty(used + 2 * count, *part.shape[1:])])
                tables[number] = table
            table[used : used + count] = part
        self._tables = tables

    def first(self, spans: np.ndarray) -> np.ndarray:
        """First row of each of some spans."""
        return self._ends[spans] - self.counts[spans]

    def rows(self, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of some spans, one span after the other, and how many each has."""
        counts = self.counts[spans]
        ends = np.cumsum(counts)
        return np.arange(ends[-1]) + np.repeat(self._ends[spans] - ends, counts), counts

    def at(self, rows: np.ndarray) -> list[Tensor]:
        """Some rows of each table."""
        return [table[torch.from_numpy(rows)] for table in self._tables]
