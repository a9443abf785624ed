"""The latest rows that were answered, by their numbers, for whoever watches a deployment or brings their labels."""

from __future__ import annotations

import io
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gnncompose.errors import GnncomposeError

MOST_BYTES = 256 << 20
MOST_LABELS = 1 << 20
TOGETHER = 256  # rows


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

    def up_to(self, rows: int) -> Answers:
        """The first ones only."""
        return self._replace(x=self.x[:rows], y=self.y[:rows])


class RowsError(GnncomposeError):
    """Rows or labels that there are none of."""


class Rows:
    """Keeps the latest rows within so many bytes; may be used from several threads.

    Rows are copied to where many find room: to keep each request's own arrays would cost the server more than to answer
    it, since what is kept cannot be used for the next one.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Begin with none; the first one is number 0.

        Args:
            most_bytes: Of inputs and answers, at most.
        """
        self._most_bytes = most_bytes
        self._kept: deque[Answers] = deque()
        self._kept_bytes = 0
        self._open: Answers | None = None  # the latest rows, and room for more
        self._used = 0
        self._next = 0
        self._labels: deque[tuple[int, Any]] = deque(maxlen=MOST_LABELS)
        self._labelled = 0
        self._lock = threading.Lock()

    def tell(self, x: np.ndarray, y: np.ndarray, version: int) -> int:
        """Keep rows that were answered; the number of the first one."""
        with self._lock:
            first, room, last = self._next, self._open, self._used + len(x)
            if (
                room is None
                or last > len(room.x)
                or room.version != version
                or room.shapes != (x.shape[1:], y.shape[1:])
            ):
                room, last = self._make_room(x, y, version), len(x)
            room.x[self._used : last] = x
            room.y[self._used : last] = y
            self._used = last
            self._next += len(x)
            return first

    def _make_room(self, x: np.ndarray, y: np.ndarray, version: int) -> Answers:
        """Begin to keep rows like these, and forget the oldest ones."""
        if self._open is not None:
            full = self._open.up_to(self._used)
            if self._used < len(self._open.x):  # a view would keep the room that is left
                full = full._replace(x=full.x.copy(), y=full.y.copy())
            self._kept.append(full)
            self._kept_bytes += full.nbytes
        row_bytes = max((x.nbytes + y.nbytes) // len(x), 1)
        rows = max(len(x), min(TOGETHER, self._most_bytes // (8 * row_bytes)))
        inputs, answers = (np.empty((rows, *like.shape[1:]), like.dtype) for like in (x, y))
        self._open, self._used = Answers(self._next, inputs, answers, version), 0
        while self._kept and self._kept_bytes + self._open.nbytes > self._most_bytes:
            self._kept_bytes -= self._kept.popleft().nbytes
        return self._open

    def _all(self) -> list[Answers]:
        """What is kept; rows that are there do not change any more."""
        return [*self._kept, *([] if self._open is None else [self._open.up_to(self._used)])]

    def label(self, rows: list[int], labels: list[Any]) -> int:
        """Keep labels of rows; how many were told so far.

        Raises:
            RowsError: A row has not come yet, or there is not one label to each.
        """
        if len(rows) != len(labels):
            raise RowsError(f"there are {len(rows)} rows and {len(labels)} labels; give one to each")
        with self._lock:
            for row in rows:
                if not 0 <= row < self._next:
                    raise RowsError(f"row {row} is none of the {self._next} that were answered")
            self._labels.extend(zip(rows, labels, strict=True))
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
            labels = list(self._labels)[max(label - skipped, 0) :][:most]
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
