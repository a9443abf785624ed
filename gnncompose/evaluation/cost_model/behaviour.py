"""How a node behaves in a world, in a few numbers: how right, how confident and how varied its answers are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnncompose.evaluation.metrics import Metric
from gnncompose.execution.combiners import Confidence, largest_value

# Confidences at which shares of rows are recorded; the model tells the share at one, the others follow from it.
CONFIDENCES = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999], dtype=np.float32)
TOLD = 4
LEAST = 1e-3
HALF = 2.0
SCORE, CONFIDENT, SPREAD = range(3)
OUTCOMES = 3


def link(share: np.ndarray | float) -> np.ndarray:
    """Score or share on the scale that is modelled: half its logit, cut off at .001 and .999."""
    cut = np.clip(share, LEAST, 1.0 - LEAST)
    return np.log(cut / (1.0 - cut)) / HALF


def unlink(value: np.ndarray) -> np.ndarray:
    """Back from `link`."""
    return 1.0 / (1.0 + np.exp(-HALF * value))


@dataclass(frozen=True, eq=False)
class Behaviour:
    """Of one node on the rows of one world.

    Attributes:
        score: The task's metric as higher-is-better.
        confident: Share of the rows at least as confident as each of `CONFIDENCES`.
        spread: Standard deviation of the answers from row to row, the mean over their entries; 0 where every row
            gets the same one. It tells how varied the ways are that rows take through decision trees.
    """

    score: float
    confident: tuple[float, ...]
    spread: float

    @classmethod
    def of(
        cls, output: np.ndarray, labels: np.ndarray, metric: Metric, confidence: Confidence = largest_value
    ) -> Behaviour:
        """From the answers [rows, ...] and the labels; `confidence` is that of such answers."""
        numeric = np.issubdtype(output.dtype, np.number)
        shares = (confidence(output)[:, None] >= CONFIDENCES).mean(axis=0) if numeric else np.ones(len(CONFIDENCES))
        return cls(
            score=metric.score(metric.compute(output, labels)),
            confident=tuple(map(float, shares)),
            spread=float(output.astype(np.float64).std(axis=0).mean()) if numeric else 1.0,
        )

    @property
    def linked(self) -> np.ndarray:
        """float64[OUTCOMES]: on the scales that are modelled."""
        return np.array([link(self.score), link(self.confident[TOLD]), np.log(self.spread + LEAST) / HALF + 1.0])
