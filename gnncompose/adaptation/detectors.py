"""Detectors of a change in ranked signals: ADWIN and Page-Hinkley of river, and the population stability index.

Each is told how seldom it may raise a false alarm, and sets its threshold by that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from scipy.optimize import root_scalar
from scipy.special import chdtri, logsumexp

from gnncompose.adaptation.statistics import Kind
from gnncompose.errors import GnncomposeError

if TYPE_CHECKING:
    from river.base import DriftDetector

BLOCK = 32  # rows that are looked at together; river's ADWIN checks as often
PRIMING = 8 * BLOCK  # rows of the reference that a detector of changes in time begins with
ROWS_PER_BIN = 10
FEWEST_IN_BIN = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """That a signal has changed.

    Attributes:
        signal: Its column.
        value: What was found: a mean rank, or an index.
        words: The same for a person.
    """

    signal: int
    value: float
    words: str


@runtime_checkable
class Watch(Protocol):
    """Follows signals of one stream."""

    def update(self, ranks: Float[np.ndarray, "block signal"]) -> list[Finding]:
        """Look at the next rows; what changed is found once.

        Args:
            ranks: `BLOCK` rows; NaN where a row has no such signal.
        """
        ...


@runtime_checkable
class Detector(Protocol):
    """Makes watches.

    Attributes:
        name: What it is called in alarms.
        kinds: Which signals it watches.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def kinds(self) -> tuple[Kind, ...]: ...  # noqa: D102

    def watch(self, reference: Float[np.ndarray, "reference signal"], rows_between_false_alarms: int) -> Watch:
        """Begin to watch.

        Args:
            reference: Ranks of the reference among itself.
            rows_between_false_alarms: Mean number of rows until a signal that did not change raises an alarm, at least.
        """
        ...


@dataclass(frozen=True)
class Adwin:
    """A window that grows while its mean stays, and drops its old part when the two parts differ.

    Its test may err with a probability of `BLOCK / rows_between_false_alarms` each time it is made, every `BLOCK` rows.

    Source: Bifet and Gavaldà, Learning from Time-Changing Data with Adaptive Windowing, SDM 2007; code: river.

    Attributes:
        kinds: Which signals it watches.
    """

    kinds: tuple[Kind, ...] = ("answer", "input", "error")
    name = "ADWIN"

    def watch(self, reference: Float[np.ndarray, "reference signal"], rows_between_false_alarms: int) -> Watch:
        """Begin to watch.

        Raises:
            GnncomposeError: river is not installed.
        """
        _require_river()
        from river.drift import ADWIN

        delta = min(BLOCK / rows_between_false_alarms, 0.5)
        return _EachInTurn([ADWIN(delta=delta, clock=BLOCK) for _ in reference.T], reference)


@dataclass(frozen=True)
class PageHinkley:
    """Sums of what rows deviate from the mean so far, beyond an allowance, compared with their extremes.

    Ranks are divided by their deviation in the reference. The threshold h is the one whose average run length,
    (exp(θh) - θh - 1) / (θ allowance) by Wald's approximation, is as long as asked for, each side having half of the
    false alarms; θ > 0 solves E exp(θ(z - allowance)) = 1 over the reference's z, which also suits rare errors.

    river's forgetting is turned off: with it the sums settle where forgetting offsets the allowance, and then chance
    alone raises alarms.

    Source: Page, Continuous Inspection Schemes, Biometrika 1954; Siegmund, Sequential Analysis, Springer 1985,
    section II.6; code: river.

    Attributes:
        allowance: Shift of the mean, in standard deviations, that need not be noticed; above 0.
        kinds: Which signals it watches.
    """

    allowance: float = 0.25
    kinds: tuple[Kind, ...] = ("answer", "input", "error")
    name = "Page-Hinkley"

    def watch(self, reference: Float[np.ndarray, "reference signal"], rows_between_false_alarms: int) -> Watch:
        """Begin to watch.

        Raises:
            GnncomposeError: river is not installed.
        """
        _require_river()
        from river import drift

        scales, detectors = [], []
        for column in reference.T:
            # One row below and one above all others: what never varied in the reference may, now and then.
            known = np.concatenate([column[~np.isnan(column)], [0.0, 1.0]])
            scales.append(float(known.std()))
            deviations = (known - known.mean()) / known.std()
            rows = 2 * rows_between_false_alarms
            threshold = max(self._threshold(side, rows) for side in (deviations, -deviations))
            detectors.append(drift.PageHinkley(delta=self.allowance, threshold=threshold, alpha=1.0))
        return _EachInTurn(detectors, reference, scales)

    def _threshold(self, deviations: Float[np.ndarray, " reference"], rows: int) -> float:
        """What the sum of upward deviations passes once in so many rows."""

        def excess(exponent: float) -> float:
            return float(logsumexp(exponent * (deviations - self.allowance)) - np.log(len(deviations)))

        high = 0.1
        while excess(high) < 0 and high < 50:  # beyond all bounds where no deviation exceeds the allowance
            high *= 2
        exponent = root_scalar(excess, bracket=(1e-3, high)).root if excess(high) > 0 else high

        def shortfall(threshold: float) -> float:
            grown = exponent * threshold
            return rows - (np.exp(grown) - grown - 1) / (exponent * self.allowance)

        largest = 2 / exponent * np.log(2 + rows * (1 + exponent * self.allowance))
        return float(root_scalar(shortfall, bracket=(0.0, largest)).root)


@dataclass(frozen=True)
class PopulationStability:
    """How far the shares of the reference's quantile bins differ in the latest rows.

    Σ (p - q) ln(p / q) over bins, with q the share of a bin in the reference and p the one in the window. Where nothing
    changed, it is about (1/N + 1/M) χ² with one degree of freedom less than there are bins, for N rows of the reference
    and M of the window. 1/N is counted twice: what a reference has missed stays, while windows come and go. The
    threshold is the quantile that is passed with a probability of `BLOCK / rows_between_false_alarms`, the window being
    looked at every `BLOCK` rows.

    Missing values have a bin of their own. Shares below `FEWEST_IN_BIN` rows of the window count as so many, since χ²
    does not hold for fewer; there are fewer bins where the reference has less than `ROWS_PER_BIN` rows for each.

    Source: Siddiqi, Credit Risk Scorecards, Wiley 2006; Yurdakul and Naranjo, Statistical Properties of the Population
    Stability Index, Journal of Risk Model Validation 2020.

    Attributes:
        bins: How many, at most.
        window: How many rows, rounded up to whole blocks; nothing is found before it is full.
        kinds: Which signals it watches.
    """

    bins: int = 10
    window: int = 512
    kinds: tuple[Kind, ...] = ("answer", "input", "feature")
    name = "PSI"

    def watch(self, reference: Float[np.ndarray, "reference signal"], rows_between_false_alarms: int) -> Watch:
        """Begin to watch."""
        bins = max(2, min(self.bins, len(reference) // ROWS_PER_BIN))
        blocks = -(-self.window // BLOCK)
        counts = _counts(reference, bins)
        freedom = np.maximum((counts > 0).sum(axis=1) - 1, 1)
        chi_squared = chdtri(freedom, min(BLOCK / rows_between_false_alarms, 0.5))
        return _Window(counts, chi_squared * (2 / len(reference) + 1 / (blocks * BLOCK)), blocks)


def stability_index(
    reference: Float[np.ndarray, "*signal bin"], current: Float[np.ndarray, "*signal bin"]
) -> Float[np.ndarray, "*signal"]:
    """The population stability index of shares, all of which are above 0."""
    return np.asarray(((current - reference) * np.log(current / reference)).sum(axis=-1))


def _counts(ranks: Float[np.ndarray, "rows signal"], bins: int) -> Float[np.ndarray, "signal bin"]:
    """How many rows fall into each bin; the last one is of those that have no rank."""
    missing = np.isnan(ranks)
    chosen = np.where(missing, bins, np.where(missing, 0.0, ranks) * bins).astype(np.int64)
    signals, width = ranks.shape[1], bins + 1
    counts = np.bincount((chosen + width * np.arange(signals)).ravel(), minlength=signals * width)
    return counts.reshape(signals, width).astype(float)


class _Window:
    """Counts of the latest blocks, compared with those of the reference."""

    def __init__(self, reference: np.ndarray, thresholds: np.ndarray, blocks: int) -> None:
        self._rare, self._thresholds = FEWEST_IN_BIN / (blocks * BLOCK), thresholds
        self._reference = self._shares(reference)
        self._bins = reference.shape[1] - 1
        self._counts = np.zeros_like(reference)
        self._latest: deque[np.ndarray] = deque(maxlen=blocks)
        self._is_armed = np.ones(len(reference), dtype=bool)

    def update(self, ranks: Float[np.ndarray, "block signal"]) -> list[Finding]:
        if len(self._latest) == self._latest.maxlen:
            self._counts -= self._latest[0]
        self._latest.append(_counts(ranks, self._bins))
        self._counts += self._latest[-1]
        if len(self._latest) < (self._latest.maxlen or 0):
            return []
        index = stability_index(self._reference, self._shares(self._counts))
        changed = np.flatnonzero(self._is_armed & (index > self._thresholds))
        self._is_armed[changed] = False
        return [
            Finding(int(s), float(index[s]), f"its index is {index[s]:.3f}, above {self._thresholds[s]:.3f}")
            for s in changed
        ]

    def _shares(self, counts: Float[np.ndarray, "signal bin"]) -> Float[np.ndarray, "signal bin"]:
        return np.maximum(counts / counts.sum(axis=1, keepdims=True), self._rare)


class _EachInTurn:
    """One detector of river for each signal, which begins with rows of the reference."""

    def __init__(
        self, detectors: Sequence[DriftDetector], reference: np.ndarray, scales: Sequence[float] | None = None
    ) -> None:
        """Begin.

        Args:
            detectors: One for each signal.
            reference: Ranks [reference, signal].
            scales: What the ranks of each signal are divided by; None for 1.
        """
        self._scales = np.ones(len(detectors)) if scales is None else np.array(scales)
        self._armed = dict(enumerate(detectors))
        # In an order of their own, since a split may be sorted; whole blocks, so that ADWIN checks as blocks end.
        order = np.random.default_rng(0).permutation(len(reference))[:PRIMING]
        for signal, values in self._values(reference[order[: len(order) // BLOCK * BLOCK]]):
            for value in values:
                self._armed[signal].update(value)

    def update(self, ranks: Float[np.ndarray, "block signal"]) -> list[Finding]:
        found = []
        for signal, values in self._values(ranks):
            detector = self._armed[signal]
            for value in values:
                detector.update(value)
                if detector.drift_detected:
                    del self._armed[signal]
                    mean = float(np.nanmean(ranks[:, signal]))
                    words = f"its mean rank in the latest {len(ranks)} rows is {mean:.2f}, and 0.50 in the reference"
                    found.append(Finding(signal, mean, words))
                    break
        return found

    def _values(self, ranks: np.ndarray) -> list[tuple[int, list[float]]]:
        """What each armed detector is to be told."""
        columns = (ranks / self._scales).T
        missing = np.isnan(columns)
        return [(s, (columns[s][~missing[s]] if missing[s].any() else columns[s]).tolist()) for s in self._armed]


def _require_river() -> None:
    if find_spec("river") is None:
        raise GnncomposeError("watching for drift needs river; run pip install 'gnncompose[adapt]'")
