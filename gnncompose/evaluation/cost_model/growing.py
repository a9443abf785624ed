"""An array that grows by rows without being copied each time."""

from __future__ import annotations

import numpy as np

FIRST = 256


class GrowingArray:
    """Rows of one shape; room is doubled when it runs out."""

    def __init__(self, shape: tuple[int, ...], dtype: type = np.float64) -> None:
        """Begin empty.

        Args:
            shape: Of one row.
            dtype: Of every entry.
        """
        self._room = np.zeros((FIRST, *shape), dtype=dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, rows: np.ndarray) -> None:
        """Add rows at the end."""
        wanted = self._count + len(rows)
        if wanted > len(self._room):
            grown = np.zeros((max(wanted, 2 * len(self._room)), *self._room.shape[1:]), dtype=self._room.dtype)
            grown[: self._count] = self._room[: self._count]
            self._room = grown
        self._room[self._count : wanted] = rows
        self._count = wanted

    @property
    def rows(self) -> np.ndarray:
        """All rows; a view that later rows are not in."""
        return self._room[: self._count]
