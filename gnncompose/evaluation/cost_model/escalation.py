"""How many rows a cascade hands on, where only the share of confident rows at one level is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gnncompose.evaluation.cost_model.behaviour import CONFIDENCES, TOLD, link, unlink


@dataclass(frozen=True)
class EscalationModel:
    """From the told share of confident rows to the share below any threshold.

    Attributes:
        offsets: On the linked scale, of each level of `CONFIDENCES`.
        slopes: Factor on the told value, of each level.
        joint: Exponent of the share that a further stage hands on: rows that one stage was unsure of are hard for
            the next one, too; 1 for stages that err independently, 0 for stages that are unsure of the same rows.
    """

    offsets: tuple[float, ...]
    slopes: tuple[float, ...]
    joint: float

    def unsure(self, told: float | np.ndarray, threshold: float) -> np.ndarray:
        """Share of all rows less confident than a threshold, from what `link` gives of the told share."""
        levels = np.asarray(self.offsets) + np.multiply.outer(told, np.asarray(self.slopes))
        places = _place(CONFIDENCES.astype(np.float64))
        place = float(np.clip(_place(np.array(threshold)), places[0], places[-1]))
        after = int(np.clip(np.searchsorted(places, place), 1, len(places) - 1))
        part = (place - places[after - 1]) / (places[after] - places[after - 1])
        return 1.0 - unlink((1 - part) * levels[..., after - 1] + part * levels[..., after])

    def handed_on(self, unsure: float, stage: int) -> float:
        """Share of the rows at a stage that go on, from the share of all rows that it is unsure of.

        Args:
            unsure: Share of all rows.
            stage: 0 for the first, which sees all rows.
        """
        return unsure if stage == 0 else unsure**self.joint


def _place(confidence: np.ndarray) -> np.ndarray:
    """Confidences spread out near 1."""
    return -np.log1p(1e-4 - confidence)


def fit_escalation(shares: np.ndarray, pairs: Sequence[tuple[float, float]]) -> EscalationModel:
    """Least squares on what was seen.

    Args:
        shares: float64[nodes, confidences]: share of rows at least so confident.
        pairs: Of later stages, the share of all rows that a stage is unsure of, and the share of the rows that
            reached it that it handed on.
    """
    linked = link(shares)
    told = linked[:, TOLD]
    spread = float(told.var())
    slopes = [float(np.cov(told, column, bias=True)[0, 1] / spread) for column in linked.T]
    offsets = [float(column.mean() - slope * told.mean()) for column, slope in zip(linked.T, slopes, strict=True)]
    usable = np.array([(np.log(a), np.log(b)) for a, b in pairs if 0.01 < a < 0.99 and b > 0.01]).reshape(-1, 2)
    joint = float((usable[:, 0] @ usable[:, 1]) / (usable[:, 0] @ usable[:, 0])) if len(usable) else 0.5
    return EscalationModel(tuple(offsets), tuple(slopes), float(np.clip(joint, 0.0, 1.0)))
