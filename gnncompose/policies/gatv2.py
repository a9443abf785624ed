"""The graph attention network whose attention depends on both ends of an edge.

Brody, Alon and Yahav, How Attentive are Graph Attention Networks? (ICLR 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv

from gnncompose.encoding import EDGE_DIM, NODE_DIM
from gnncompose.ranges import counts, divisible


@dataclass(frozen=True)
class Gatv2:
    """Describes a GATv2 encoder; building is left to the agent, which seeds the weights.

    Attributes:
        dim: Size of a node's embedding, a multiple of the heads.
        layers: Rounds of message passing.
        heads: Of the attention.
    """

    dim: int = 48
    layers: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where a number is out of its range."""
        counts("encoder", 1, dim=self.dim, heads=self.heads)
        counts("encoder", 0, layers=self.layers)
        divisible("encoder", self.heads, "heads", dim=self.dim)

    def build(self, node_dim: int = NODE_DIM) -> Gatv2Encoder:
        """A new encoder of nodes of so many features, its weights drawn from torch's current random state."""
        return Gatv2Encoder(node_dim, self.dim, self.layers, self.heads)


class Gatv2Encoder(nn.Module):
    """Embeds nodes by what they are and by what they heed of what stands around them."""

    def __init__(self, node_dim: int, dim: int, layers: int, heads: int) -> None:
        super().__init__()
        self.enter = nn.Linear(node_dim, dim)
        self.convolutions = nn.ModuleList(
            # A node heeds itself by the sum below; a loop would need features of an edge that is none.
            GATv2Conv(dim, dim // heads, heads=heads, edge_dim=EDGE_DIM, add_self_loops=False)
            for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))

    def forward(
        self,
        x: Float[Tensor, "node node_dim"],
        edge_index: Int[Tensor, "2 edge"],
        edge_attr: Float[Tensor, "edge edge_dim"],
        graph: Int[Tensor, " node"],
    ) -> Float[Tensor, "node dim"]:
        """Embed the nodes of one or several packed graphs; attention stays within them, since edges do."""
        nodes = torch.relu(self.enter(x))
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            nodes = nodes + torch.relu(norm(convolution(nodes, edge_index, edge_attr)))
        return nodes
