"""Peak memory: what a process takes that serves nothing, and what each artifact adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.tree import Composition


@dataclass(frozen=True)
class MemoryModel:
    """Peak memory of a process that serves a composition.

    Attributes:
        base: Factor on the least memory that any operator's process took.
        added: Factor on what each distinct artifact's process took beyond that.
        artifact_bytes: What each distinct artifact takes beside.
    """

    base: float = 1.0
    added: float = 1.0
    artifact_bytes: float = 0.0

    def predict(self, composition: Composition, catalog: Catalog) -> float:
        """Bytes; 0 where the catalog was never profiled."""
        return float(_terms(composition, catalog) @ np.array([self.base, self.added, self.artifact_bytes]))


def _terms(composition: Composition, catalog: Catalog) -> np.ndarray:
    known = [o.profile.peak_memory_bytes for o in catalog.operators if o.profile.peak_memory_bytes is not None]
    if not known:
        return np.zeros(3)
    least = min(known)
    distinct = {node.operator.sha256: node.operator for node in composition.nodes if node.operator.sha256}
    peaks = [operator.profile.peak_memory_bytes or least for operator in distinct.values()]
    return np.array([least, sum(peaks) - len(peaks) * least, len(peaks)], dtype=np.float64)


def fit_memory(measured: Sequence[tuple[Composition, Catalog, int]]) -> MemoryModel:
    """Least squares of the relative error.

    Args:
        measured: Compositions, the catalog of each, and the bytes that were measured.
    """
    terms = np.stack([_terms(composition, catalog) for composition, catalog, _ in measured])
    relative = terms / np.array([peak for _, _, peak in measured], dtype=np.float64)[:, None]
    weights, *_ = np.linalg.lstsq(relative, np.ones(len(relative)), rcond=None)
    return MemoryModel(*map(float, weights))


def artifact_bytes(composition: Composition) -> int:
    """Size of the distinct artifacts, as profiled."""
    distinct = {node.operator.sha256: node.operator for node in composition.nodes if node.operator.sha256}
    return sum(operator.profile.artifact_bytes or 0 for operator in distinct.values())
