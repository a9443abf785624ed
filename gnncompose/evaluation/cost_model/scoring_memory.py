"""How well peak memory is told of compositions that were held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gnncompose.evaluation.cost_model.collection import Collected
from gnncompose.evaluation.cost_model.figures import closeness
from gnncompose.evaluation.cost_model.fitting import measured_memory
from gnncompose.evaluation.cost_model.memory import fit_memory

FOLDS = 5


def score_memory(collected: Sequence[Collected], seed: int) -> dict[str, Any]:
    """Closeness over folds, each told by what was fitted to the others.

    Args:
        collected: Of each task.
        seed: Decides the folds.
    """
    rows = measured_memory(collected)
    if len(rows) < FOLDS:
        return {"count": 0}
    folds = np.random.default_rng(seed).permutation(len(rows)) % FOLDS
    told = np.empty(len(rows))
    for fold in range(FOLDS):
        model = fit_memory([row for row, own in zip(rows, folds, strict=True) if own != fold])
        for number in np.flatnonzero(folds == fold):
            composition, catalog, _ = rows[number]
            told[number] = model.predict(composition, catalog)
    return closeness(told, np.array([peak for _, _, peak in rows], dtype=np.float64))
