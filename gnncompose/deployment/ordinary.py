"""Which rows a deployment has to answer: those that are like the task's own data.

Where it fails on others, the request is to blame: some models answer missing or huge numbers and others do not, and
what is live may be either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FAR = 1e3  # times the largest number of the data; codes for what is missing, and other units, stay below


@dataclass(frozen=True)
class Ordinary:
    """What numbers the rows of a task hold.

    Attributes:
        most: The largest number, regardless of its sign, that a row may hold and still be like them.
        has_missing: Whether some of the data's numbers are NaN.
    """

    most: float
    has_missing: bool

    @classmethod
    def of(cls, x: np.ndarray) -> Ordinary:
        """Learn it from data.

        Args:
            x: [rows, ...] of the task's input type; of text nothing is learnt.
        """
        if x.dtype.kind not in "iuf":
            return cls(np.inf, False)
        finite = np.isfinite(x)  # of a split that may take gigabytes, so no copy of the numbers is made
        largest = max(1.0, float(x.max(initial=0, where=finite)), -float(x.min(initial=0, where=finite)))
        return cls(FAR * largest, bool(np.isnan(x).any()))

    def fault_of(self, x: np.ndarray) -> str | None:
        """What some rows hold that the data do not, and where; None where they are like them.

        Args:
            x: [rows, ...] of the task's input type.
        """
        if x.dtype.kind not in "iuf":
            return None
        is_strange = ~(np.abs(x.astype(np.float64)) <= self.most)  # NaN is over every bound, too
        if self.has_missing:
            is_strange &= ~np.isnan(x)
        if not is_strange.any():
            return None
        row, *place = (int(index) for index in np.argwhere(is_strange)[0])
        value = x[(row, *place)]
        if np.isnan(value):
            what, mend = "a missing number (null, or NaN)", "a number, or the data's own code for what is missing"
        else:
            what, mend = f"{value:g}", f"numbers of at most {self.most:g}"
        return f"row {row} of the input has {what} at {place}, unlike the task's data; send {mend}"
