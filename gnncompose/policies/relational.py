"""Relational graph convolution: what a node hears depends on what the sender is to it.

Schlichtkrull et al., Modeling Relational Data with Graph Convolutional Networks (ESWC 2018). A sender is what the node
reads or what reads it, at the first port or at a further one, which for a cascade tells what always runs from what
seldom does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnncompose.encoding import NODE_DIM
from gnncompose.ranges import counts

RELATIONS = 4
AGAINST, FIRST, WEIGHT = 1, 3, 4  # columns of edge features


@dataclass(frozen=True)
class Relational:
    """Describes a relational encoder; building is left to the agent, which seeds the weights.

    Attributes:
        dim: Size of a node's embedding.
        layers: Rounds of message passing.
    """

    dim: int = 32
    layers: int = 2

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where a number is out of its range."""
        counts("encoder", 1, dim=self.dim)
        counts("encoder", 0, layers=self.layers)

    def build(self, node_dim: int = NODE_DIM) -> RelationalEncoder:
        """A new encoder of nodes of so many features, its weights drawn from torch's current random state."""
        return RelationalEncoder(node_dim, self.dim, self.layers)


class RelationalEncoder(nn.Module):
    """Embeds nodes by what they are and by what stands around them."""

    def __init__(self, node_dim: int, dim: int, layers: int) -> None:
        super().__init__()
        self.dim = dim
        self.enter = nn.Sequential(nn.Linear(node_dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.own = nn.ModuleList(nn.Linear(dim, dim) for _ in range(layers))
        self.heard = nn.ModuleList(nn.Linear(dim, RELATIONS * dim, bias=False) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))

    def forward(
        self,
        x: Float[Tensor, "node node_dim"],
        edge_index: Int[Tensor, "2 edge"],
        edge_attr: Float[Tensor, "edge edge_dim"],
        graph: Int[Tensor, " node"],
    ) -> Float[Tensor, "node dim"]:
        """Embed the nodes of one or several packed graphs."""
        nodes, (source, target) = self.enter(x), edge_index
        relation = (2.0 * edge_attr[:, AGAINST] + 1.0 - edge_attr[:, FIRST]).long()
        weight = edge_attr[:, WEIGHT:]
        for own, heard, norm in zip(self.own, self.heard, self.norms, strict=True):
            said = heard(nodes).view(-1, self.dim).index_select(0, RELATIONS * source + relation) * weight
            own_part = own(nodes)
            nodes = nodes + torch.relu(norm(own_part.index_add(0, target, said.to(own_part.dtype))))
        return nodes
