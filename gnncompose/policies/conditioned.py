"""A Gaussian process over a table of points that grows, conditioned on some of them.

A decision of a search adds one value and a few candidates to those of the decision before. So the Cholesky factor of
what was told and its products with points are kept and extended by rows and columns (Golub and Van Loan, Matrix
Computations, §4.2); to compute them anew would cost as much as all decisions before together. A point's products are
extended when it is asked for: most points of a long search are candidates no more.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cholesky, solve_triangular

LEAST_ROOM = 64
Numbers = Int[np.ndarray, " point"]
Vector = Float[np.ndarray, " point"]
Matrix = Float[np.ndarray, "point other"]


class Covariance(Protocol):
    """How values at the points of a table vary."""

    @property
    def noise(self) -> float:
        """Variance of a value at a point that is known."""
        ...

    def __len__(self) -> int:
        """Points that there are by now."""
        ...

    def between(self, some: Numbers, others: Numbers) -> Matrix:
        """Covariances of points with others, without noise."""
        ...

    def at(self, points: slice) -> Vector:
        """Variance of each point, without noise."""
        ...


class Given(NamedTuple):
    """What values say.

    Attributes:
        mean: float64[point]: of each point that was asked for, beyond what was expected before.
        variance: float64[point].
        log_likelihood: Of the values, up to a constant.
    """

    mean: np.ndarray
    variance: np.ndarray
    log_likelihood: float


class Conditioned:
    """What values at some points say of others."""

    def __init__(self, covariance: Covariance) -> None:
        """Begin with nothing told.

        Args:
            covariance: Of the points. What it says of the points that it has must not change without `begin`.
        """
        self._covariance = covariance
        self._half = np.zeros((0, 0))  # [point, told], with room to grow: L⁻¹ times covariances, transposed
        self.begin()

    def begin(self) -> None:
        """Begin anew with nothing told, where the covariance says something else or has other points."""
        self._told = np.zeros(0, dtype=np.int64)
        self._lower = np.zeros((0, 0))
        self._variance = np.zeros(0)  # of each point, with nothing told
        self._taken = np.zeros(0)  # off that, by what was told when the point was asked for last
        self._known = np.zeros(0, dtype=np.int64)  # how much that was: columns of `_half` that hold

    def __call__(self, told: Numbers, values: Vector, asked: Numbers) -> Given:
        """Condition on values.

        Args:
            told: Points with values; those of the last call, if they come first, cost nothing.
            values: Beyond what was expected before.
            asked: Points to tell of.

        Raises:
            scipy.linalg.LinAlgError: The covariance of the points is none, within rounding.
        """
        if not np.array_equal(told[: len(self._told)], self._told):
            self.begin()
        self._take_points()
        if len(told) > len(self._told):
            self._tell(told[len(self._told) :])
        self._extend(asked)
        white = solve_triangular(self._lower, values, lower=True) if len(told) else values
        return Given(
            mean=self._half[asked, : len(told)] @ white,
            variance=self._variance[asked] - self._taken[asked],
            log_likelihood=-0.5 * float(white @ white) - float(np.log(self._lower.diagonal()).sum()),
        )

    def _take_points(self) -> None:
        """Make room for the points that the table has more than before."""
        first, last = len(self._known), len(self._covariance)
        if first == last:
            return
        self._make_room(last, len(self._told))
        self._variance = np.append(self._variance, self._covariance.at(slice(first, last)))
        self._taken = np.append(self._taken, np.zeros(last - first))
        self._known = np.append(self._known, np.zeros(last - first, dtype=np.int64))

    def _tell(self, new: Numbers) -> None:
        """Extend the factor by further points with values."""
        self._extend(new)
        told, count = len(self._told), len(new)
        own = self._half[new, :told]
        left = self._covariance.between(new, new) + self._covariance.noise * np.eye(count) - own @ own.T
        corner = cholesky(left, lower=True)
        self._lower = np.block([[self._lower, np.zeros((told, count))], [own, corner]])
        self._told = np.append(self._told, new)
        self._make_room(len(self._known), told + count)

    def _extend(self, points: Numbers) -> None:
        """Extend the products of points by what was told since they were asked for.

        Those that missed about as much are extended together, by as much as the one of them that missed most.
        """
        told = len(self._told)
        missed = told - self._known[points]
        octaves = np.frexp(missed)[1]
        for octave in np.unique(octaves[missed > 0]):
            late = points[octaves == octave]
            since = int(self._known[late].min())
            cross = self._covariance.between(self._told[since:], late)
            cross -= self._lower[since:, :since] @ self._half[late, :since].T
            halves = solve_triangular(self._lower[since:, since:], cross, lower=True).T
            self._half[late, since:told] = halves
            again = np.arange(since, told) < self._known[late, None]
            self._taken[late] += np.where(again, 0.0, halves**2).sum(axis=1)
            self._known[late] = told

    def _make_room(self, points: int, told: int) -> None:
        rows, columns = self._half.shape
        needs = (points, rows), (told, columns)
        if points > rows or told > columns:
            room = [max(need, 2 * have, LEAST_ROOM) if need > have else have for need, have in needs]
            grown = np.zeros(room)
            grown[:rows, :columns] = self._half
            self._half = grown
