"""States that tables can be in: corruptions of rows `float32[N,columns]`.

A value that is missing is written as `MISSING`, the code that weather services and many files use, and not as
NaN: what comes out of an operator stays comparable, and a model that was never told of missing values answers
something, as it would in the field.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from gnncompose.tasks.conditions import Condition

Table = Float32[np.ndarray, "N columns"]
MISSING = np.float32(-999)


def missing(share: float, columns: Sequence[int] | None = None) -> Condition:
    """A share of the values is missing, each by itself with equal chance.

    Args:
        share: Share of the values that go, 0 to 1.
        columns: Which columns lose values; None for all.
    """

    def corrupt(rows: Table, generator: np.random.Generator) -> Table:
        gone = generator.random(rows.shape) < share
        return np.where(gone & _chosen(rows, columns), MISSING, rows)

    return corrupt


def in_other_unit(columns: Sequence[int], factor: float, offset: float = 0.0) -> Condition:
    """Columns written in another unit: value * factor + offset; what is missing stays missing.

    Args:
        columns: Which columns.
        factor: By what they are multiplied, as 12 for years in months.
        offset: What is added then.
    """

    def corrupt(rows: Table, generator: np.random.Generator) -> Table:
        changed = rows * np.float32(factor) + np.float32(offset)
        return np.where(_chosen(rows, columns) & (rows != MISSING), changed, rows)

    return corrupt


def in_other_order(order: Sequence[int]) -> Condition:
    """Columns delivered in another order: column `i` holds what column `order[i]` should."""

    def corrupt(rows: Table, generator: np.random.Generator) -> Table:
        return np.ascontiguousarray(rows[:, list(order)])

    return corrupt


def typed_twice(share: float, columns: Sequence[int] | None = None) -> Condition:
    """Digits typed twice: a share of the values is eleven times as large (7 becomes 77).

    Args:
        share: Share of the values that are hit, 0 to 1.
        columns: Which columns are hit; None for all.
    """

    def corrupt(rows: Table, generator: np.random.Generator) -> Table:
        hit = generator.random(rows.shape) < share
        return np.where(hit & _chosen(rows, columns) & (rows != MISSING), rows * np.float32(11), rows)

    return corrupt


def jitter(deviations: np.ndarray) -> Condition:
    """Gaussian measurement noise.

    Args:
        deviations: [columns], its standard deviation in each column; 0 leaves a column alone.
    """

    def corrupt(rows: Table, generator: np.random.Generator) -> Table:
        added = generator.standard_normal(rows.shape, dtype=np.float32) * deviations.astype(np.float32)
        return np.where(rows == MISSING, rows, rows + added)

    return corrupt


def _chosen(rows: Table, columns: Sequence[int] | None) -> np.ndarray:
    """[columns], True where the column is one of them."""
    numbers = np.arange(rows.shape[1])
    return np.isin(numbers, numbers if columns is None else list(columns))
