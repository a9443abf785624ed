"""The evaluations of a run as policies are told of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gnncompose.evaluation.evaluation import Trial
from gnncompose.packing import History, figures_of


class Evaluations:
    """What a run evaluated, in order.

    Attributes:
        most: How many of them, the latest, a decision is told of.
    """

    def __init__(self, most: int) -> None:
        """Begin with none."""
        self.most = most
        self._bags: list[Tensor] = []
        self._figures: list[tuple[float, float, float]] = []

    def add(self, trial: Trial, nodes: Float[Tensor, "node node_dim"]) -> None:
        """Take in a trial; the first is the start's.

        Args:
            trial: What came of an evaluation.
            nodes: Features of the composition's nodes.
        """
        evaluation = trial.evaluation
        own = (math.nan, math.nan) if evaluation is None else (evaluation.score, evaluation.latency_ms_mean)
        self._bags.append(nodes.mean(dim=0))
        self._figures.append((trial.reward, *own))

    def before(self, known: Sequence[int]) -> History:
        """What was known to decisions before each of which so many evaluations had been made."""
        reward, score, latency = np.array(self._figures).T
        # Where the start failed, nothing is relative to it: the others tell of their rewards only.
        latency = np.where(np.isnan(latency), np.nan, latency / latency[0])
        figures = figures_of(reward - reward[0], np.where(np.isnan(latency), np.nan, score - score[0]), latency)
        count = torch.tensor(known)
        at = count.unsqueeze(1) - 1 - torch.arange(min(self.most, max(known)))
        return History(torch.stack(self._bags), figures, at.clamp(min=0), at >= 0)
