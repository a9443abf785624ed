"""A graph network that reads a composition as its data flow: from the input up, each node from its inputs.

A node's embedding depends on its subtree alone, so equal sub-expressions share one, candidates that differ from an
incumbent by an edit embed a few new nodes only, and every inner node is itself a composition that is told about.
Operators act on what reaches them by gates and products (feature-wise modulation: Perez et al., AAAI 2018), since a
transform does to the data what the data allow. Bottom-up message passing over computation graphs as in D-VAE
(Zhang et al., NeurIPS 2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gnncompose.evaluation.cost_model.features import NODE_DIM
from gnncompose.evaluation.cost_model.forest import INPUT_ROW, USE_DIM, Level


class Encoder(nn.Module):
    """Embeds nodes bottom-up, a level at a time."""

    def __init__(self, width: int = 96, dropout: float = 0.1) -> None:
        """Lay out the layers.

        Args:
            width: Length of an embedding.
            dropout: Share of the features that are hidden while training.
        """
        super().__init__()
        self.width = width
        self.root = nn.Parameter(0.1 * torch.randn(width))
        self.hide = nn.Dropout(dropout)
        self.operator = nn.Sequential(nn.Linear(NODE_DIM, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.message = nn.Sequential(nn.Linear(width + USE_DIM, width), nn.SiLU())
        self.join = nn.Linear(3 * width, width)
        self.data, self.data_factor = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.act, self.act_factor = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.give, self.gate = nn.Linear(2 * width, width), nn.Linear(2 * width, width)
        self.normalise = nn.LayerNorm(width)

    def blank(self, count: int) -> Float[Tensor, "row width"]:
        """Room for the embeddings of `count` rows, that of the input in its place."""
        return torch.zeros(count, self.width).index_copy(0, torch.tensor([INPUT_ROW]), self.root[None])

    def forward(self, embeddings: Float[Tensor, "row width"], levels: Sequence[Level]) -> Float[Tensor, "row width"]:
        """Embed the nodes of the levels.

        Args:
            embeddings: With those of all nodes that the levels use and do not hold in their rows.
            levels: What to embed, inputs first.
        """
        for level in levels:
            embeddings = embeddings.index_copy(0, level.rows, self._level(embeddings, level))
        return embeddings

    def _level(self, embeddings: Float[Tensor, "row width"], level: Level) -> Float[Tensor, "node width"]:
        count, given = len(level.rows), embeddings[level.source]
        weight = level.use[:, :1]
        mean = torch.zeros(count, self.width).index_add(0, level.target, given * weight)
        data = mean
        joins = torch.bincount(level.target, minlength=count) > 1
        if joins.any():
            sent = self.message(torch.cat([given, level.use], dim=1))
            total = torch.zeros(count, self.width).index_add(0, level.target, sent * weight)
            target = level.target[:, None].expand(-1, self.width)
            largest = torch.zeros(count, self.width).scatter_reduce(0, target, sent, "amax", include_self=False)
            joined = self.join(torch.cat([mean, total, largest], dim=1))
            data = torch.where(joins[:, None], joined, mean)
        act = self.operator(self.hide(level.x))
        inner = self.data(data) + self.act(act) + self.data_factor(data) * self.act_factor(act)
        inner = self.hide(nn.functional.silu(inner))
        keep = torch.sigmoid(self.gate(inner) + 1.0)
        return self.normalise(keep * mean + (1.0 - keep) * self.give(inner))
