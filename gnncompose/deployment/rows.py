"""The latest rows that were answered, by their numbers, for whoever watches a deployment or brings their labels."""

from __future__ import annotations

import io
import threading
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from gnncompose.errors import GnncomposeError

MOST_BYTES = 256 << 20
MOST_LABELS = 1 << 20
AT_ONCE = 128  # requests


class Answers(NamedTuple):
    """Rows that were answered by the same deployment, one after the other.

    Attributes:
        first: Number of the first one.
        x: [rows, ...], inputs.
        y: [rows, ...], what was answered.
        version: Of the deployment that answered.
    """

    first: int
    x: np.ndarray
    y: np.ndarray
    version: int

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of a row's input and of its answer."""
        return self.x.shape[1:], self.y.shape[1:]

    @property
    def nbytes(self) -> int:
        """Of inputs and answers."""
        return self.x.nbytes + self.y.nbytes


class RowsError(GnncomposeError):
    """Rows or labels that there are none of."""


class Rows:
    """Keeps the latest rows within so many bytes; may be used from several threads.

    What came is put together some requests at a time: to do more than note it, request by request, would cost a server
    a tenth of its time.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Begin with none; the first one is number 0.

        Args:
            most_bytes: Of inputs and answers, at most.
        """
        self._most_bytes = most_bytes
        self._kept: deque[Answers] = deque()
        self._kept_bytes = 0
        self._loose: list[tuple[int, np.ndarray, np.ndarray, int]] = []
        self._loose_bytes = 0
        self._next = 0
        self._labels: OrderedDict[int, Any] = OrderedDict()  # by row, in the order in which they came
        self._labelled = 0
        self._lock = threading.Lock()

    def tell(self, x: np.ndarray, y: np.ndarray, version: int) -> int:
        """Keep rows that were answered, which may not be changed any more; the number of the first one."""
        with self._lock:
            first = self._next
            self._next += len(x)
            self._loose.append((first, x, y, version))
            self._loose_bytes += x.nbytes + y.nbytes
            if len(self._loose) >= AT_ONCE or self._loose_bytes > self._most_bytes // 8:
                self._put_together()
            return first

    def _put_together(self) -> None:
        """Make arrays of requests that came apart, since the garbage collector counts objects; forget the oldest."""
        for _, some in groupby([Answers(*one) for one in self._loose], lambda one: (one.version, one.shapes)):
            parts = list(some)
            x, y = (np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y"))
            self._kept.append(parts[0]._replace(x=x, y=y))
            self._kept_bytes += self._kept[-1].nbytes
        self._loose, self._loose_bytes = [], 0
        while self._kept_bytes > self._most_bytes and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popleft().nbytes

    def _all(self) -> list[Answers]:
        """What is kept."""
        if self._loose:
            self._put_together()
        return list(self._kept)

    def label(self, rows: list[int], labels: list[Any]) -> int:
        """Keep labels of rows; how many were told so far.

        A row gets one label: whoever watches has counted it by the time another one comes.

        Raises:
            RowsError: A row has not come yet, has a label or is there twice, or there is not one label to each; then
                none is kept.
        """
        if len(rows) != len(labels):
            raise RowsError(f"there are {len(rows)} rows and {len(labels)} labels; give one to each")
        with self._lock:
            fresh: dict[int, Any] = {}
            for row, label in zip(rows, labels, strict=True):
                if not 0 <= row < self._next:
                    raise RowsError(f"row {row} is none of the {self._next} that were answered; none was taken")
                if row in self._labels or row in fresh:
                    raise RowsError(f"row {row} has a label already; tell each row's once; none was taken")
                fresh[row] = label
            self._labels.update(fresh)
            while len(self._labels) > MOST_LABELS:
                self._labels.popitem(last=False)
            self._labelled += len(rows)
            return self._labelled

    def answers_of(self, rows: Sequence[int]) -> list[np.ndarray | None]:
        """What was answered to each of some rows; None for those that are not kept any more."""
        with self._lock:
            kept = self._all()
        firsts = [answers.first for answers in kept]
        found: list[np.ndarray | None] = []
        for row in rows:
            place = bisect_right(firsts, row) - 1
            within = row - firsts[place] if place >= 0 else -1
            found.append(kept[place].y[within] if 0 <= within < len(kept[place].y) else None)
        return found

    def since(self, row: int, label: int, most: int) -> bytes:
        """What came since a row and a label, oldest first, as the bytes of an `.npz`.

        It has `first` (number of the first row), `x`, `answers`, `versions`; `label_rows`, `labels` and `next_label`.
        Rows of other shapes than the first one end it.

        Args:
            row: Number of the first row that is asked for; older ones than are kept are left out.
            label: Number of the first label, counted as they came.
            most: Rows, and labels, at most.
        """
        with self._lock:
            kept = [answers for answers in self._all() if answers.first + len(answers.x) > row]
            skipped = self._labelled - len(self._labels)
            labels = list(self._labels.items())[max(label - skipped, 0) :][:most]
            began = max(label, skipped)
        parts: list[Answers] = []
        for answers in kept:
            same = not parts or answers.shapes == parts[0].shapes
            if not same or sum(len(part.x) for part in parts) >= most:
                break
            parts.append(answers)
        arrays: dict[str, np.ndarray] = {
            "label_rows": np.array([number for number, _ in labels], dtype=np.int64),
            "labels": np.array([value for _, value in labels]),
            "next_label": np.array(began + len(labels)),
        }
        if parts:
            cut = max(row - parts[0].first, 0)
            arrays["first"] = np.array(parts[0].first + cut)
            arrays["x"] = _plain(np.concatenate([part.x for part in parts])[cut:])
            arrays["answers"] = np.concatenate([part.y for part in parts])[cut:]
            arrays["versions"] = np.repeat([part.version for part in parts], [len(part.x) for part in parts])[cut:]
        file = io.BytesIO()
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        return file.getvalue()


def _plain(x: np.ndarray) -> np.ndarray:
    """Text as a type that needs no pickle."""
    return x.astype(np.str_) if x.dtype.kind == "O" else x
