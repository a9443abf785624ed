"""What is watched of requests: a few numbers of each row, and where they stand among those of a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from gnncompose.catalog.text import text_confidence

Kind = Literal["answer", "input", "feature", "error"]
MOST_FEATURES = 64
TAIL = 0.005  # share of a reference's values beyond each of its bounds


@dataclass(frozen=True, slots=True)
class Signal:
    """A number that each row has.

    Attributes:
        name: What it is called in alarms.
        kind: Whether it is of the answer, of the whole input, of one column of a table, or an error.
    """

    name: str
    kind: Kind


INPUT_SIGNALS = tuple(Signal(name, "input") for name in ("mean", "deviation", "missing", "extreme"))


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where values stand among those of a reference: one scale from 0 to 1 for all signals, whatever their units.

    A value's rank is the share of the reference below it plus half of those equal to it, the value itself counted in.
    So ties and constant columns need no care, one huge value moves a mean no further than a large one, and rows like
    those of the reference have a mean of 1/2.

    Attributes:
        columns: Of each signal the reference's values, ascending, without NaN.
    """

    columns: tuple[np.ndarray, ...]

    @classmethod
    def among(cls, values: Float[np.ndarray, "reference signal"]) -> Ranks:
        """Ranks among these values; NaN stands for none."""
        return cls(tuple(np.sort(column[~np.isnan(column)]) for column in values.T))

    def of(self, values: Float[np.ndarray, "rows signal"]) -> Float[np.ndarray, "rows signal"]:
        """Ranks, each above 0 and below 1; NaN stays NaN."""
        columns = np.ascontiguousarray(values.T)
        ranks = np.empty(columns.shape)
        for rank, column, known in zip(ranks, columns, self.columns, strict=True):
            positions = known.searchsorted(column, "left") + known.searchsorted(column, "right")
            np.divide(positions + 1, 2 * len(known) + 2, out=rank)
        ranks[np.isnan(columns)] = np.nan
        return ranks.T


@runtime_checkable
class InputSignals(Protocol):
    """Reduces inputs to a few numbers a row, given as ranks.

    Attributes:
        signals: What there is, in order.
        reference: Float[reference, signal]: ranks of the reference among itself.
    """

    signals: tuple[Signal, ...]
    reference: np.ndarray

    def ranks(self, x: np.ndarray) -> Float[np.ndarray, "rows signal"]:
        """Ranks of the signals of each row; NaN where a row has none, as the mean of a row without a finite value.

        Args:
            x: [rows, ...], inputs shaped as those of the reference.
        """
        ...


class TextSignals:
    """Of texts the number of characters."""

    def __init__(self, reference: np.ndarray) -> None:
        """Fit to a reference of [rows, ...]."""
        self.signals = (Signal("length", "input"),)
        self._ranks = Ranks.among(_lengths(reference))
        self.reference = self.ranks(reference)

    def ranks(self, x: np.ndarray) -> Float[np.ndarray, "rows 1"]:
        """Ranks of the signals of each row."""
        return self._ranks.of(_lengths(x))


class TableSignals:
    """Of a table each column; and mean, deviation and extremes of a row's ranks, since columns differ in unit."""

    def __init__(self, reference: np.ndarray) -> None:
        """Fit to a reference of [rows, columns]."""
        columns = (Signal(f"feature {column}", "feature") for column in range(reference.shape[1]))
        self.signals = (*INPUT_SIGNALS, *columns)
        self._columns = Ranks.among(_numbers(reference))
        self._whole = Ranks.among(_of_ranks(self._columns.of(_numbers(reference))))
        self.reference = self.ranks(reference)

    def ranks(self, x: np.ndarray) -> Float[np.ndarray, "rows signal"]:
        """Ranks of the signals of each row."""
        columns = self._columns.of(_numbers(x))
        return np.concatenate([self._whole.of(_of_ranks(columns)), columns], axis=1)


class ArraySignals:
    """Of other numbers mean, deviation, extremes for their place, and roughness.

    Roughness is the mean difference between neighbours along the longest axis: noise raises it, blur lowers it.

    Every other row of the reference gives bounds to each place, and the rest are what is compared with: rows lie within
    their own bounds more often than new ones do.
    """

    def __init__(self, reference: np.ndarray) -> None:
        """Fit to a reference of [rows, ...]."""
        self.signals = (*INPUT_SIGNALS, Signal("roughness", "input"))
        ascending = np.sort(_numbers(reference[::2]), axis=0)  # NaN last
        known = len(ascending) - np.isnan(ascending).sum(axis=0, keepdims=True)
        beyond = (TAIL * known).astype(int)
        # Nothing lies beyond NaN, which is the bound where there is no value.
        self._low = np.take_along_axis(ascending, beyond, axis=0)[0]
        self._high = np.take_along_axis(ascending, np.maximum(known - 1 - beyond, 0), axis=0)[0]
        self._ranks = Ranks.among(self._values(reference[1::2]))
        self.reference = self.ranks(reference[1::2])

    def ranks(self, x: np.ndarray) -> Float[np.ndarray, "rows signal"]:
        """Ranks of the signals of each row."""
        return self._ranks.of(self._values(x))

    def _values(self, x: np.ndarray) -> Float[np.ndarray, "rows signal"]:
        values = _numbers(x)
        outside = (values < self._low) | (values > self._high)
        return np.column_stack([_moments(values), outside.mean(axis=1), _roughness(values.reshape(x.shape))])


def fit_inputs(x: np.ndarray) -> InputSignals:
    """The signals that suit inputs like these.

    Args:
        x: [rows, ...], inputs of the reference.
    """
    if x.dtype.kind in "US":
        return TextSignals(x)
    return TableSignals(x) if x.ndim == 2 and x.shape[1] <= MOST_FEATURES else ArraySignals(x)


def confidences(answers: np.ndarray) -> Float[np.ndarray, " rows"]:
    """How sure an answer is: its largest probability, or the mean one of a text's symbols; else its mean value.

    A confidence that is not finite counts as 0.

    Args:
        answers: [rows, class] probabilities, [rows, L, 2] text as `catalog.text` lays it out, or other numbers.
    """
    if answers.ndim == 2 and answers.shape[1] > 1:
        found = answers.max(axis=1)
    elif answers.ndim == 3 and answers.shape[2] == 2:
        found = text_confidence(answers)
    else:
        found = answers.reshape(len(answers), -1).mean(axis=1)
    return np.nan_to_num(found.astype(float), nan=0.0, posinf=0.0, neginf=0.0)


def _numbers(x: np.ndarray) -> Float[np.ndarray, "rows values"]:
    """Rows as vectors of floats, NaN for what is not finite."""
    flat = x.reshape(len(x), -1)
    flat = flat if flat.dtype in (np.float32, np.float64) else flat.astype(np.float64)
    return np.where(np.isfinite(flat), flat, np.nan)


def _moments(values: Float[np.ndarray, "rows values"]) -> Float[np.ndarray, "rows 3"]:
    """Mean and deviation of what is there, and the share that is missing."""
    is_there = ~np.isnan(values)
    count = is_there.sum(axis=1, dtype=float)
    none = count == 0
    divisor = np.where(none, np.nan, count)
    mean = np.where(is_there, values, 0).sum(axis=1, dtype=float) / divisor
    squares = np.where(is_there, np.square(values - mean[:, None]), 0).sum(axis=1, dtype=float)
    return np.column_stack([mean, np.sqrt(squares / divisor), 1 - count / max(values.shape[1], 1)])


def _of_ranks(ranks: Float[np.ndarray, "rows column"]) -> Float[np.ndarray, "rows 4"]:
    """Mean, deviation, share that is missing, and share that is extreme."""
    extreme = (ranks < TAIL) | (ranks > 1 - TAIL)
    return np.column_stack([_moments(ranks), extreme.mean(axis=1)])


def _lengths(x: np.ndarray) -> Float[np.ndarray, "rows 1"]:
    return np.strings.str_len(x).reshape(len(x), -1).sum(axis=1, dtype=float)[:, None]


def _roughness(values: np.ndarray) -> Float[np.ndarray, " rows"]:
    """Mean absolute difference of neighbours along the longest axis; NaN where there are none."""
    longest = 1 + int(np.argmax(values.shape[1:]))
    steps = np.abs(np.diff(values, axis=longest)).reshape(len(values), -1)
    return _moments(steps)[:, 0]
