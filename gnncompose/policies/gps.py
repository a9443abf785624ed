"""The graph transformer that joins messages along edges with attention among all nodes of a graph.

Rampášek et al., Recipe for a General, Powerful, Scalable Graph Transformer (NeurIPS 2022). Where a node stands needs no
encoding of its own: its depth, and whether it is the input or the output, are among its features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.nn import GINEConv, GPSConv

from gnncompose.encoding import EDGE_DIM, NODE_DIM
from gnncompose.ranges import counts, divisible


@dataclass(frozen=True)
class Gps:
    """Describes a GPS encoder; building is left to the agent, which seeds the weights.

    Attributes:
        dim: Size of a node's embedding, a multiple of the heads.
        layers: Rounds of messages and attention.
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

    def build(self, node_dim: int = NODE_DIM) -> GpsEncoder:
        """A new encoder of nodes of so many features, its weights drawn from torch's current random state."""
        return GpsEncoder(node_dim, self.dim, self.layers, self.heads)


class GpsEncoder(nn.Module):
    """Embeds nodes by what they are, by what stands around them, and by all else in the graph."""

    def __init__(self, node_dim: int, dim: int, layers: int, heads: int) -> None:
        super().__init__()
        self.enter = nn.Linear(node_dim, dim)
        self.layers = nn.ModuleList(
            # Its own batch norm would make a graph's embedding depend on the others in the pack.
            GPSConv(dim, _messages(dim), heads=heads, norm="layer_norm", norm_kwargs={"mode": "node"})
            for _ in range(layers)
        )

    def forward(
        self,
        x: Float[Tensor, "node node_dim"],
        edge_index: Int[Tensor, "2 edge"],
        edge_attr: Float[Tensor, "edge edge_dim"],
        graph: Int[Tensor, " node"],
    ) -> Float[Tensor, "node dim"]:
        """Embed the nodes of one or several packed graphs."""
        nodes = torch.relu(self.enter(x))
        for layer in self.layers:
            nodes = layer(nodes, edge_index, graph, edge_attr=edge_attr)
        return nodes


def _messages(dim: int) -> GINEConv:
    return GINEConv(nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)), edge_dim=EDGE_DIM)
