"""How the answers of two deployments to the same requests compare."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

CLOSE = 1e-5


class Comparison:
    """Counts over mirrored requests; may be told from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = self._rows = self._agreeing = self._failed = self._skipped = 0
        self._largest = 0.0

    def skipped(self) -> None:
        """Note a request that tells nothing: too many were waiting, or its rows are unlike the task's data."""
        with self._lock:
            self._skipped += 1

    def tell(self, given: np.ndarray, tried: np.ndarray | None) -> None:
        """Note what was answered, and what the other one says; None where that failed.

        Rows agree where they name the same class; where there are no classes, where they are equal to 1e-5.
        """
        with self._lock:
            self._requests += 1
            if tried is None:
                self._failed += 1
                return
            self._rows += len(given)
            self._agreeing += int(agreeing(given, tried).sum())
            if given.dtype.kind == "f":
                self._largest = max(self._largest, float(np.abs(given - tried).max()))

    def told(self) -> dict[str, Any]:
        """The counts as plain data."""
        with self._lock:
            return {
                "mirrored": self._requests,
                "rows": self._rows,
                "agreement": round(self._agreeing / self._rows, 4) if self._rows else None,
                "largest_difference": self._largest,
                "failed": self._failed,
                "skipped": self._skipped,
            }


def together(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What several comparisons of the same two deployments told, as one would tell it."""
    sums = {name: sum(one[name] for one in told) for name in ("mirrored", "rows", "failed", "skipped")}
    agreeing_rows = sum(one["rows"] * (one["agreement"] or 0.0) for one in told)
    return {
        **sums,
        "agreement": round(agreeing_rows / sums["rows"], 4) if sums["rows"] else None,
        "largest_difference": max((one["largest_difference"] for one in told), default=0.0),
    }


def agreeing(given: np.ndarray, tried: np.ndarray) -> Bool[np.ndarray, " row"]:
    """Whether two answers say the same of each row."""
    if given.dtype.kind == "f" and given.ndim == 2 and given.shape[1] > 1:
        return np.asarray(given.argmax(axis=1) == tried.argmax(axis=1))
    same = np.abs(given - tried) <= CLOSE if given.dtype.kind == "f" else given == tried
    return np.asarray(same.reshape(len(given), -1).all(axis=1))
