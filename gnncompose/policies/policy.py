"""The policy: a graph encoder, and a head that scores every legal edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnncompose.composition.edits import KINDS
from gnncompose.encoding import NODE_DIM, OPERATOR_DIM, VALUE_DIM
from gnncompose.packing import CONTEXT_DIM, History, Packed
from gnncompose.policies.history import HistorySummary
from gnncompose.policies.setting_head import SettingHead

Built = TypeVar("Built")


@runtime_checkable
class EncoderRecipe(Protocol):
    """A frozen dataclass that describes an encoder; such as `Gine`."""

    dim: int

    def build(self, node_dim: int = NODE_DIM) -> nn.Module:
        """A new encoder from (x, edge_index, edge_attr, graph), with so many features a node, to float[node, dim]."""
        ...


class Judged(NamedTuple):
    """What a policy says of edits.

    Attributes:
        scores: Of each edit; its softmax over a composition's edits is the policy.
        concentrations: Of each edit, the two of a Beta distribution over where in its range it sets a parameter; they
            mean nothing for edits that set none. None without a head for them.
    """

    scores: Float[Tensor, " edit"]
    concentrations: Float[Tensor, "edit 2"] | None


class EditPolicy(nn.Module):
    """Scores legal edits from the place that each changes and the operator that it brings.

    The first layer is a sum of projections, so places and operators are projected once per node and operator,
    not once per edit.

    Attributes:
        uses_traits: Whether graphs and operators are to be given by traits, not by features.
        features: Numbers that it reads of each node, operator, edit and composition.
        dueling: Whether a score is what the composition promises plus by how much the edit exceeds its mean edit
            (Wang et al., Dueling network architectures, ICML 2016); such a policy must be asked for all edits.
        history: Evaluations so far that it is told of, the latest ones, at most; 0 for a policy that knows of none.
        continuous: Whether it says where in its range a parameter is set; it is then asked for edits without values.
    """

    uses_traits = False
    features: Mapping[str, int] = {
        "node": NODE_DIM,
        "operator": OPERATOR_DIM,
        "value": VALUE_DIM,
        "context": CONTEXT_DIM,
    }

    def __init__(
        self, recipe: EncoderRecipe, dueling: bool = False, history: int = 0, continuous: bool = False
    ) -> None:
        super().__init__()
        dim = recipe.dim
        whole_dim = dim + CONTEXT_DIM + (dim if history else 0)
        self.recipe = recipe
        self.dueling = dueling
        self.history = history
        self.continuous = continuous
        self.encoder = recipe.build()
        self.source = nn.Linear(dim, dim)
        self.consumer = nn.Linear(dim, dim, bias=False)
        self.operator = nn.Sequential(nn.Linear(OPERATOR_DIM, dim), nn.ReLU(), nn.Linear(dim, dim, bias=False))
        self.kind = nn.Embedding(len(KINDS), dim)
        self.value = nn.Linear(VALUE_DIM, dim, bias=False)
        self.whole = nn.Linear(whole_dim, dim, bias=False)
        self.score = nn.Sequential(nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1))
        if dueling:
            self.promise = nn.Sequential(nn.Linear(whole_dim, dim), nn.ReLU(), nn.Linear(dim, 1))
        self.summary = HistorySummary(NODE_DIM, dim) if history else None
        self.setting = SettingHead(dim) if continuous else None

    def forward(self, packed: Packed, operators: Float[Tensor, "operators operator_dim"]) -> Float[Tensor, " edit"]:
        """Score every edit of the packed compositions; see `judge`."""
        return self.judge(packed, operators).scores

    def judge(self, packed: Packed, operators: Float[Tensor, "operators operator_dim"]) -> Judged:
        """Score every edit of the packed compositions, and say where parameters are set.

        Args:
            packed: Compositions with their edits.
            operators: Features of the catalog's operators, the row of zeros last.
        """
        nodes = self.encoder(packed.x, packed.edge_index, packed.edge_attr, packed.graph)
        seen = seen_whole(nodes, packed.graph, packed.context, self.summary, packed.history)
        whole = self.whole(seen)
        hidden = (
            self.source(nodes).index_select(0, packed.edit_source)
            + self.consumer(nodes).index_select(0, packed.edit_consumer)
            + self.operator(operators).index_select(0, packed.edit_operator)
            + self.kind(packed.edit_kind)
            + self.value(packed.edit_values)
            + whole.index_select(0, packed.edit_graph)
        )
        scores = self.score(hidden).squeeze(1)
        concentrations = None if self.setting is None else self.setting(hidden)
        if not self.dueling:
            return Judged(scores, concentrations)
        counts = torch.bincount(packed.edit_graph, minlength=len(seen))
        means = scores.new_zeros(len(seen)).index_add(0, packed.edit_graph, scores) / counts
        promised = (self.promise(seen).squeeze(1) - means).index_select(0, packed.edit_graph)
        return Judged(scores + promised, concentrations)


class Critic(nn.Module):
    """Says what a composition promises: the return that the policy makes of it."""

    def __init__(self, recipe: EncoderRecipe, node_dim: int = NODE_DIM, history: int = 0) -> None:
        super().__init__()
        dim = recipe.dim
        self.encoder = recipe.build(node_dim)
        whole_dim = dim + CONTEXT_DIM + (dim if history else 0)
        self.value = nn.Sequential(nn.Linear(whole_dim, dim), nn.ReLU(), nn.Linear(dim, 1))
        self.summary = HistorySummary(node_dim, dim) if history else None

    def forward(self, packed: Packed) -> Float[Tensor, " graph"]:
        """Value of each packed composition; edits do not matter."""
        nodes = self.encoder(packed.x, packed.edge_index, packed.edge_attr, packed.graph)
        seen = seen_whole(nodes, packed.graph, packed.context, self.summary, packed.history)
        return self.value(seen).squeeze(1)


def seen_whole(
    nodes: Float[Tensor, "node dim"],
    graph: Int[Tensor, " node"],
    context: Float[Tensor, "decision context_dim"],
    summary: HistorySummary | None,
    history: History | None,
    which: Int[Tensor, " decision"] | None = None,
) -> Float[Tensor, "decision whole_dim"]:
    """Of each decision the mean of its graph's nodes, its context, and, where there is a summary, its history.

    Args:
        nodes: Embedding of each node.
        graph: Of each node its graph.
        context: What else each decision is told.
        summary: Sums up what was evaluated before; None where that does not count.
        history: What was evaluated before.
        which: Of each decision its graph, where several share one; None where each has its own, in this order.
    """
    if which is None:
        mean = averaged(nodes, graph, len(context))
    else:
        mean = averaged(nodes, graph, int(which.max()) + 1).index_select(0, which)
    parts = [mean, context] if summary is None else [mean, context, summary(history, len(context))]
    return torch.cat(parts, dim=1)


def averaged(nodes: Float[Tensor, "node dim"], graph: Int[Tensor, " node"], count: int) -> Float[Tensor, "graph dim"]:
    """Mean over the nodes of each of so many graphs."""
    sizes = torch.bincount(graph, minlength=count).unsqueeze(1)
    return nodes.new_zeros(count, nodes.shape[1]).index_add(0, graph, nodes) / sizes


def log_probabilities(scores: Float[Tensor, " edit"], packed: Packed) -> Float[Tensor, " edit"]:
    """Logarithm of the softmax of scores over the edits of each graph."""
    return segment_log_softmax(scores, packed.edit_graph, len(packed.context))


def segment_log_softmax(
    scores: Float[Tensor, " item"], segment: Int[Tensor, " item"], count: int
) -> Float[Tensor, " item"]:
    """Logarithm of the softmax of scores over the items of each of so many segments."""
    peaks = scores.detach().new_full((count,), -torch.inf).scatter_reduce(0, segment, scores.detach(), "amax")
    shifted = scores - peaks.index_select(0, segment)
    return shifted - shifted.new_zeros(count).index_add(0, segment, shifted.exp()).log().index_select(0, segment)


def seeded(build: Callable[[], Built], seed: int) -> Built:
    """Build something with weights drawn from a seed; torch's global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
