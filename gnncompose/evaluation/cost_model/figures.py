"""How predictions are compared with what was measured."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import kendalltau

TOP = 10


def closeness(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """Share within 5 and 10 %, mean absolute percentage error, and Kendall's τ-b, of positive figures."""
    error = np.abs(predicted / measured - 1.0)
    return {
        "within_5": float((error <= 0.05).mean()),
        "within_10": float((error <= 0.10).mean()),
        "mape": float(error.mean()),
        "kendall": tau(predicted, measured),
        "count": len(measured),
    }


def tau(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Kendall's τ-b; 0 where all predictions are equal, since they rank nothing."""
    found: Any = kendalltau(predicted, measured)
    return 0.0 if np.isnan(found.statistic) else float(found.statistic)


def top_recall(predicted: np.ndarray, measured: np.ndarray, top: int = TOP) -> float:
    """Share of the predicted best that are as good as the worst of the truly best, so that ties do not count."""
    least = np.sort(measured)[-top]
    return float((measured[np.argsort(-predicted, kind="stable")[:top]] >= least).mean())
