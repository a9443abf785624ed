"""The graph isomorphism network with edge features.

Xu et al., How Powerful are Graph Neural Networks? (ICLR 2019), with the edge features of Hu et al., Strategies for
Pre-training Graph Neural Networks (ICLR 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.nn import GINEConv

from gnncompose.encoding import EDGE_DIM, NODE_DIM
from gnncompose.ranges import counts


@dataclass(frozen=True)
class Gine:
    """Describes a GINE encoder; building is left to the agent, which seeds the weights.

    Attributes:
        dim: Size of a node's embedding.
        layers: Rounds of message passing.
    """

    dim: int = 48
    layers: int = 2

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where a number is out of its range."""
        counts("encoder", 1, dim=self.dim)
        counts("encoder", 0, layers=self.layers)

    def build(self, node_dim: int = NODE_DIM) -> GineEncoder:
        """A new encoder of nodes of so many features, its weights drawn from torch's current random state."""
        return GineEncoder(node_dim, self.dim, self.layers)


class GineEncoder(nn.Module):
    """Embeds nodes by what they are and by what stands around them."""

    def __init__(self, node_dim: int, dim: int, layers: int) -> None:
        super().__init__()
        self.dim = dim
        self.enter = nn.Linear(node_dim, dim)
        self.convolutions = nn.ModuleList(
            GINEConv(nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)), edge_dim=EDGE_DIM)
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
        """Embed the nodes of one or several packed graphs.

        The messages are those of `GINEConv`, whose general machinery takes longer than they do on graphs so small.
        """
        nodes, (source, target) = torch.relu(self.enter(x)), edge_index
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            edges, update = convolution.get_submodule("lin"), convolution.get_submodule("nn")
            messages = torch.relu(nodes.index_select(0, source) + edges(edge_attr))
            heard = torch.zeros_like(nodes).index_add(0, target, messages.to(nodes.dtype))
            nodes = nodes + torch.relu(norm(update(heard + nodes)))
        return nodes
