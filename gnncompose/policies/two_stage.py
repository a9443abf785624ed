"""A policy that chooses a place first, then what to do there: no score is made of each place with each operator.

It knows operators by their traits, so that what it learned on some catalogs holds on others. A place is where edits act
together with their kind; what to do there is an operator, or a setting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gnncompose.composition.edits import KINDS
from gnncompose.encoding import PLACE_VALUES, TRAIT_DIM, TRAIT_NODE_DIM, VALUE_DIM, Graphs
from gnncompose.packing import CONTEXT_DIM, History, Packed
from gnncompose.policies.history import HistorySummary
from gnncompose.policies.policy import EncoderRecipe, Judged, seen_whole, segment_log_softmax
from gnncompose.policies.setting_head import SettingHead


class Seen(NamedTuple):
    """Encoded compositions.

    Attributes:
        nodes: Embedding of each node.
        whole: From `seen_whole`.
    """

    nodes: Float[Tensor, "node dim"]
    whole: Float[Tensor, "decision whole_dim"]


class Places(NamedTuple):
    """Places of several graphs, those of a graph together.

    Attributes:
        kind: Number in `KINDS`.
        source: Node that the place comes from, as a row of all graphs' nodes.
        consumer: Node that it leads to, likewise.
        values: Of the place.
        graph: Whose place it is.
        number: Counted from 0 in each graph.
        first: Of each graph, its first place.
    """

    kind: Int[Tensor, " place"]
    source: Int[Tensor, " place"]
    consumer: Int[Tensor, " place"]
    values: Float[Tensor, "place 2"]
    graph: Int[Tensor, " place"]
    number: Int[Tensor, " place"]
    first: Int[Tensor, " graph"]


class Offers(NamedTuple):
    """What can be done at one place of each graph; rows are as long as the longest.

    Attributes:
        operator: Row of the catalog's traits.
        settings: Values that are not the place's.
        there: Which of the entries are offers.
    """

    operator: Int[Tensor, "graph offer"]
    settings: Float[Tensor, "graph offer setting"]
    there: Bool[Tensor, "graph offer"]


class TwoStagePolicy(nn.Module):
    """Log probabilities of edits, and what a composition promises.

    Attributes:
        uses_traits: Whether graphs and operators are to be given by traits, not by features.
        features: Numbers that it reads of each node, operator, edit and composition.
        history: Evaluations so far that it is told of, the latest ones, at most; 0 for a policy that knows of none.
        continuous: Whether it says where in its range a parameter is set; it is then asked for edits without values.
    """

    uses_traits = True
    features: Mapping[str, int] = {
        "node": TRAIT_NODE_DIM,
        "operator": TRAIT_DIM,
        "value": VALUE_DIM,
        "context": CONTEXT_DIM,
    }

    def __init__(self, recipe: EncoderRecipe, history: int = 0, continuous: bool = False) -> None:
        super().__init__()
        dim = recipe.dim
        whole_dim = dim + CONTEXT_DIM + (dim if history else 0)
        self.recipe = recipe
        self.history = history
        self.continuous = continuous
        self.encoder = recipe.build(TRAIT_NODE_DIM)
        self.source = nn.Linear(dim, dim)
        self.consumer = nn.Linear(dim, dim, bias=False)
        self.kind = nn.Embedding(len(KINDS), dim)
        self.at = nn.Linear(PLACE_VALUES, dim, bias=False)
        self.whole = nn.Linear(whole_dim, dim, bias=False)
        self.place = nn.Linear(dim, 1)
        self.query = nn.Linear(dim, dim)
        self.operator = nn.Sequential(nn.Linear(TRAIT_DIM, dim), nn.ReLU(), nn.Linear(dim, dim, bias=False))
        self.setting = nn.Linear(VALUE_DIM - PLACE_VALUES, dim, bias=False)
        self.promised = nn.Sequential(nn.Linear(whole_dim, dim), nn.ReLU(), nn.Linear(dim, 1))
        self.summary = HistorySummary(TRAIT_NODE_DIM, dim) if history else None
        self.share = SettingHead(dim) if continuous else None

    def see(
        self,
        graphs: Graphs | Packed,
        context: Float[Tensor, "decision context_dim"],
        history: History | None = None,
        which: Int[Tensor, " decision"] | None = None,
    ) -> Seen:
        """Encode compositions, and what was evaluated before; see `seen_whole`."""
        nodes = self.encoder(graphs.x, graphs.edge_index, graphs.edge_attr, graphs.graph)
        return Seen(nodes, seen_whole(nodes, graphs.graph, context, self.summary, history, which))

    def promise(self, seen: Seen) -> Float[Tensor, " graph"]:
        """Return that the policy makes of each composition."""
        return self.promised(seen.whole).squeeze(1)

    def places(self, seen: Seen, places: Places) -> tuple[Float[Tensor, "place dim"], Float[Tensor, "graph slot"]]:
        """What is known of each place; and the log probability of choosing it, a row for each graph."""
        whole = self.whole(seen.whole).index_select(0, places.graph)
        hidden = self._hidden(seen, places.kind, places.source, places.consumer, places.values, whole)
        scores = hidden.new_full((len(places.first), int(places.number.max()) + 1), -torch.inf)
        scores[places.graph, places.number] = self.place(hidden).squeeze(1)
        return hidden, scores.log_softmax(dim=1)

    def offers(
        self, hidden: Float[Tensor, "graph dim"], offers: Offers, operators: Float[Tensor, "operators trait_dim"]
    ) -> Float[Tensor, "graph offer"]:
        """Log probability of each thing that can be done at the chosen places."""
        keys = self.operator(operators).index_select(0, offers.operator.flatten()).view(*offers.operator.shape, -1)
        keys = keys + self.setting(offers.settings)
        scores = (keys * self.query(hidden).unsqueeze(1)).sum(-1) / math.sqrt(hidden.shape[-1])
        return scores.masked_fill(~offers.there, -torch.inf).log_softmax(dim=1)

    def forward(self, packed: Packed, operators: Float[Tensor, "operators trait_dim"]) -> Float[Tensor, " edit"]:
        """Log probability of every edit of the packed compositions; see `judge`."""
        return self.judge(packed, operators).scores

    def judge(self, packed: Packed, operators: Float[Tensor, "operators trait_dim"]) -> Judged:
        """Log probability of every edit among those that are given, and where parameters are set.

        Args:
            packed: Compositions with their edits.
            operators: Traits of the catalog's operators, the row of zeros last.
        """
        seen, values = self.see(packed, packed.context, packed.history), packed.edit_values
        numbers = torch.stack([packed.edit_graph, packed.edit_kind, packed.edit_source, packed.edit_consumer], dim=1)
        told = torch.cat([numbers.double(), values[:, :PLACE_VALUES].double()], dim=1)
        places, place = told.unique(dim=0, return_inverse=True)
        graph, kind, source, consumer = places[:, :4].long().unbind(1)
        whole = self.whole(seen.whole).index_select(0, graph)
        hidden = self._hidden(seen, kind, source, consumer, places[:, 4:].float(), whole)
        chosen = segment_log_softmax(self.place(hidden).squeeze(-1), graph, len(packed.context))
        keys = self.operator(operators).index_select(0, packed.edit_operator) + self.setting(values[:, PLACE_VALUES:])
        scores = (keys * self.query(hidden).index_select(0, place)).sum(-1) / math.sqrt(hidden.shape[-1])
        concentrations = None if self.share is None else self.share(hidden.index_select(0, place) + keys)
        return Judged(chosen.index_select(0, place) + segment_log_softmax(scores, place, len(places)), concentrations)

    def _hidden(
        self, seen: Seen, kind: Tensor, source: Tensor, consumer: Tensor, values: Tensor, whole: Tensor
    ) -> Float[Tensor, "place dim"]:
        found = self.source(seen.nodes).index_select(0, source) + self.consumer(seen.nodes).index_select(0, consumer)
        return torch.relu(found + self.kind.weight.index_select(0, kind) + self.at(values) + whole)
