"""The evaluations so far as a few numbers, from which a policy infers in what condition the data are.

A set is summed up by how its figures vary with what was composed: the covariance of the two, over all of it. That is
what tells which operators do good here; it is the same whatever the order, the number, and the catalog.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gnncompose.packing import FIGURES_DIM, History


class HistorySummary(nn.Module):
    """Sums up what was evaluated before a decision."""

    def __init__(self, node_dim: int, dim: int) -> None:
        super().__init__()
        self.bag = nn.Sequential(nn.Linear(node_dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.summed = nn.Sequential(nn.Linear(FIGURES_DIM * (dim + 1) + 1, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, history: History | None, graphs: int) -> Float[Tensor, "graph dim"]:
        """Sum up.

        Args:
            history: What was evaluated before; None for nothing.
            graphs: How many decisions there are.

        Returns:
            One vector for each decision.
        """
        own = next(self.summed.parameters())
        if history is None or not history.at.shape[1]:
            return self.summed(own.new_zeros(graphs, own.shape[1]))
        there, count = history.there.float(), history.there.sum(dim=1, keepdim=True)
        shares = there / count.clamp(min=1)
        figures = F.embedding(history.at, history.figures)
        mean = torch.einsum("ge,gef->gf", shares, figures)
        varied = (figures - mean.unsqueeze(1)) * shares.unsqueeze(2)
        covariance = torch.einsum("gef,ged->gfd", varied, F.embedding(history.at, self.bag(history.bag)))
        return self.summed(torch.cat([covariance.flatten(1), mean, 0.2 * count.float().log1p()], dim=1))
