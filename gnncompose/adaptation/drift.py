"""Drift: whether requests, answers and errors are still those that a deployed composition was chosen for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from gnncompose.adaptation.detectors import BLOCK, Adwin, Detector, PageHinkley, PopulationStability, Watch
from gnncompose.adaptation.statistics import Ranks, Signal, confidences, fit_inputs
from gnncompose.errors import GnncomposeError

FEWEST_ROWS = 20
MOST_ROWS = 5000
SURE: tuple[Signal, ...] = (Signal("confidence", "answer"),)
WRONG: tuple[Signal, ...] = (Signal("error", "error"),)
DETECTORS = (
    Adwin(),
    PageHinkley(kinds=("answer", "input")),
    PageHinkley(allowance=0.1, kinds=("error",)),  # a few errors more matter, and labels are late anyway
    PopulationStability(),
)


@dataclass(frozen=True, eq=False)
class Reference:
    """What requests are compared with. Inputs, answers and errors need not be of the same rows.

    They should be drawn as requests are, and be of rows that models were not fitted to, as the clean validation split's
    are: on train models are too sure, and its classes may have been balanced.

    Attributes:
        x: [rows, ...], inputs.
        answers: [rows, ...], what the deployed composition answers.
        errors: [rows], from 0 for right to 1 for wrong; None where labels will not come.
    """

    x: np.ndarray
    answers: np.ndarray
    errors: np.ndarray | None = None

    @classmethod
    def of(cls, x: np.ndarray, answers: np.ndarray, y: np.ndarray) -> Reference:
        """Of labelled rows that were answered."""
        return cls(x, answers, errors_of(answers, y))


def errors_of(answers: np.ndarray, y: np.ndarray) -> Float[np.ndarray, " row"] | None:
    """1 where the most probable class is not the label, else 0; None where answers are no classes."""
    if answers.ndim != 2 or y.dtype.kind not in "iu":
        return None
    return (answers.argmax(axis=1) != y).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Alarm:
    """That a signal has changed.

    Attributes:
        signal: Name of the signal.
        detector: Name of the detector.
        row: Number of the latest row that was looked at; of an error, the latest of the labels looked at.
        value: What was found: a mean rank, or an index.
        message: All of it for a person.
    """

    signal: str
    detector: str
    row: int
    value: float
    message: str


class DriftMonitor:
    """Watches a deployment row by row.

    Rows are looked at in blocks of `BLOCK`, so that it does not matter in which portions they come. Signals times
    detectors are many tests at once: each gets an equal share of the false alarms that are allowed in all (Bonferroni's
    correction, on rates). Each of them gives its alarm once; `rebase` arms all again.

    Attributes:
        rows: How many rows it was given.
    """

    def __init__(
        self,
        reference: Reference,
        detectors: Sequence[Detector] = DETECTORS,
        rows_between_false_alarms: int = 100_000,
    ) -> None:
        """Begin to watch; row 0 comes next.

        Args:
            reference: What is compared with.
            detectors: Each watches all signals of its kinds.
            rows_between_false_alarms: Mean number of rows until any of them errs, at least; errors count as their rows.

        Raises:
            GnncomposeError: The reference has too few rows, false alarms are too frequent, or river is not installed.
        """
        if rows_between_false_alarms < BLOCK:
            raise GnncomposeError(f"rows_between_false_alarms={rows_between_false_alarms}: give {BLOCK} or more")
        self.rows = 0
        self._detectors = tuple(detectors)
        self._rows_between_false_alarms = rows_between_false_alarms
        self.rebase(reference)

    def rebase(self, reference: Reference) -> None:
        """Compare what comes from now on with another reference, as after a swap; all that was seen is forgotten.

        Errors of rows before this are left out when they come.

        Raises:
            GnncomposeError: The reference has too few rows.
        """
        self._inputs = fit_inputs(_some(reference.x, "x"))
        sure = confidences(_some(reference.answers, "answers"))[:, None]
        self._sure = Ranks.among(sure)
        streams = [(SURE, self._sure.of(sure)), (self._inputs.signals, self._inputs.reference)]
        if reference.errors is not None:
            wrong = _some(reference.errors, "errors").astype(float)[:, None]
            self._wrong = Ranks.among(wrong)
            streams.append((WRONG, self._wrong.of(wrong)))
        kinds = [signal.kind for signals, _ in streams for signal in signals]
        tests = sum(kinds.count(kind) for detector in self._detectors for kind in detector.kinds)
        rows = self._rows_between_false_alarms * max(tests, 1)
        self._answer_stream, self._input_stream, *labelled = (
            _Stream(signals, ranks, self._detectors, rows) for signals, ranks in streams
        )
        self._error_stream = labelled[0] if labelled else None
        self._shapes = reference.x.shape[1:], reference.answers.shape[1:]
        self._first_row = self._first_waiting = self.rows
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._waiting_errors: list[tuple[int, float]] = []

    def update(self, x: np.ndarray, answers: np.ndarray) -> tuple[Alarm, ...]:
        """Look at rows that were answered, the next ones in order.

        Args:
            x: [rows, ...], inputs.
            answers: [rows, ...], what was answered.

        Raises:
            ValueError: The two differ in rows, or are not shaped as those of the reference.
        """
        if len(x) != len(answers):
            raise ValueError(f"{len(x)} rows of inputs do not belong to {len(answers)} answers; give one to each")
        for given, shape, what in zip((x, answers), self._shapes, ("inputs", "answers"), strict=True):
            if given.shape[1:] != shape:
                raise ValueError(f"{what} of a row have the shape {given.shape[1:]}, and {shape} in the reference")
        self._waiting.append((x.copy(), answers.copy()))  # a server may use its buffers again
        self.rows += len(x)
        whole = (self.rows - self._first_waiting) // BLOCK * BLOCK
        if not whole:
            return ()
        x, answers = (np.concatenate(arrays) for arrays in zip(*self._waiting, strict=True))
        self._waiting = [(x[whole:], answers[whole:])]
        found: list[Alarm] = []
        for start in range(0, whole, BLOCK):
            block, last = slice(start, start + BLOCK), self._first_waiting + BLOCK - 1
            self._first_waiting += BLOCK
            found += self._answer_stream.update(self._sure.of(confidences(answers[block])[:, None]), last)
            found += self._input_stream.update(self._inputs.ranks(x[block]), last)
        return tuple(found)

    def update_errors(
        self, rows: Int[np.ndarray, " labels"], errors: Float[np.ndarray, " labels"]
    ) -> tuple[Alarm, ...]:
        """Look at errors, whenever their labels come; each row's once.

        Errors are put in the order of their rows within a block.

        Args:
            rows: Number of each row, 0 for the first that the monitor was given.
            errors: From 0 for right to 1 for wrong.

        Raises:
            ValueError: A row has not come yet, an error is not between 0 and 1, or the reference has no errors.
        """
        if self._error_stream is None:
            raise ValueError("the reference has no errors to compare with; give it some")
        if len(rows) and (rows.min() < 0 or rows.max() >= self.rows):
            raise ValueError(f"rows {rows.min()} to {rows.max()} are not all among the {self.rows} that have come")
        if not ((errors >= 0) & (errors <= 1)).all():
            raise ValueError("an error is not between 0 and 1; scale errors, and leave out what has no label")
        mine = rows >= self._first_row
        self._waiting_errors += zip(rows[mine].tolist(), errors[mine].tolist(), strict=True)
        found: list[Alarm] = []
        while len(self._waiting_errors) >= BLOCK:
            block, self._waiting_errors = sorted(self._waiting_errors[:BLOCK]), self._waiting_errors[BLOCK:]
            ranks = self._wrong.of(np.array([[error] for _, error in block]))
            found += self._error_stream.update(ranks, block[-1][0])
        return tuple(found)


class _Stream:
    """Signals of rows that come together, and the watches on them."""

    def __init__(
        self,
        signals: Sequence[Signal],
        reference: Float[np.ndarray, "reference signal"],
        detectors: Sequence[Detector],
        rows_between_false_alarms: int,
    ) -> None:
        self._watches: list[tuple[str, list[Signal], list[int], Watch]] = []
        for detector in detectors:
            columns = [column for column, signal in enumerate(signals) if signal.kind in detector.kinds]
            if columns:
                watch = detector.watch(reference[:, columns], rows_between_false_alarms)
                self._watches.append((detector.name, [signals[column] for column in columns], columns, watch))

    def update(self, ranks: Float[np.ndarray, "block signal"], row: int) -> list[Alarm]:
        """Look at a block that ends with that row."""
        found = []
        for detector, signals, columns, watch in self._watches:
            for finding in watch.update(ranks[:, columns]):
                name = signals[finding.signal].name
                message = f"{name} has changed by row {row}: {finding.words} ({detector})"
                found.append(Alarm(name, detector, row, finding.value, message))
        return found


def _some(rows: np.ndarray, what: str) -> np.ndarray:
    """At most `MOST_ROWS`, spread evenly over all.

    Raises:
        GnncomposeError: There are too few.
    """
    if len(rows) < FEWEST_ROWS:
        raise GnncomposeError(f"drift reference: {what} has {len(rows)} rows; give {FEWEST_ROWS} or more")
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).astype(int)]
