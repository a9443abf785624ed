"""A Gaussian process over features: a linear part whose weights have a learned prior, and a radial rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize
from scipy.linalg import cholesky, solve_triangular

FOURIER = 256


@dataclass(frozen=True)
class Kernel:
    """What the linear part misses.

    Attributes:
        scale: Factor on the prior standard deviations of the weights.
        amplitude: Standard deviation of the radial rest.
        length: Distance over which it falls off, in features of unit spread.
        noise: Standard deviation of what no feature tells.
    """

    scale: float = 1.0
    amplitude: float = 0.2
    length: float = 0.5
    noise: float = 0.15


@dataclass(frozen=True, eq=False)
class Prior:
    """What is known before anything is measured: f(φ) = φ·β + rest(φ), β normal.

    Attributes:
        mean: float64[dimension]: of β.
        factor: float64[dimension, dimension]: of its covariance, `factor @ factor.T`.
        kernel: The rest.
    """

    mean: np.ndarray
    factor: np.ndarray
    kernel: Kernel = Kernel()

    def with_kernel(self, kernel: Kernel) -> Prior:
        """The same with another rest."""
        return replace(self, kernel=kernel)

    def linear(self, features: np.ndarray) -> np.ndarray:
        """float64[rows, dimension]: features whose products are the covariances of the linear part."""
        return self.kernel.scale * features @ self.factor

    def places(self, features: np.ndarray) -> np.ndarray:
        """float64[rows, dimension]: where the radial rest sees the features.

        Distances are those of the linear part: what the weights' prior thinks alike in every world lies close.
        """
        return features @ self.factor / self.kernel.length

    def covariance(self, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
        """float64[rows, rows]: between two sets of features, the noise not included."""
        near = squared_distances(self.places(ones), self.places(others))
        return self.linear(ones) @ self.linear(others).T + self.kernel.amplitude**2 * np.exp(-0.5 * near)

    def variance(self, features: np.ndarray) -> np.ndarray:
        """float64[rows]: of each alone, the noise not included."""
        return (self.linear(features) ** 2).sum(axis=1) + self.kernel.amplitude**2


def squared_distances(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float64[rows, rows]: squared Euclidean distances."""
    squares = (ones**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None] - 2.0 * ones @ others.T
    return np.maximum(squares, 0.0)


class Posterior:
    """The process given observations; exact, and extended rather than computed anew by each."""

    def __init__(self, prior: Prior) -> None:
        """Begin with the prior."""
        self.prior = prior
        dimension = len(prior.mean)
        self._features = np.empty((0, dimension))
        self._errors = np.empty(0)
        self._factor = np.empty((0, 0))
        self._half = np.empty(0)

    def __len__(self) -> int:
        return len(self._errors)

    def observe(self, features: np.ndarray, targets: np.ndarray) -> None:
        """Take in noisy values; their noise is that of the prior's kernel.

        Args:
            features: float64[rows, dimension].
            targets: float64[rows].
        """
        errors = targets - features @ self.prior.mean
        own = self.prior.covariance(features, features)
        own[np.diag_indices_from(own)] += self.prior.kernel.noise**2
        known = len(self)
        grown = np.zeros((known + len(errors), known + len(errors)))
        grown[:known, :known] = self._factor
        if known:
            cross = self._whitened(features)
            own -= cross.T @ cross
            grown[known:, :known] = cross.T
            errors_left = errors - cross.T @ self._half
        else:
            errors_left = errors
        corner = cholesky(own, lower=True)
        grown[known:, known:] = corner
        self._factor = grown
        self._half = np.concatenate([self._half, solve_triangular(corner, errors_left, lower=True)])
        self._features = np.concatenate([self._features, features])
        self._errors = np.concatenate([self._errors, errors])

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float64[rows] twice: mean and variance, the noise not included."""
        mean, variance = features @ self.prior.mean, self.prior.variance(features)
        if len(self):
            cross = self._whitened(features)
            mean = mean + cross.T @ self._half
            variance = np.maximum(variance - (cross**2).sum(axis=0), 1e-12)
        return mean, variance

    def covariance(self, features: np.ndarray) -> np.ndarray:
        """float64[rows, rows]: joint covariance, the noise not included."""
        covariance = self.prior.covariance(features, features)
        if len(self):
            cross = self._whitened(features)
            covariance -= cross.T @ cross
        return covariance

    def sample(self, features: np.ndarray, generator: np.random.Generator, draws: int = 1) -> np.ndarray:
        """float64[draws, rows]: joint draws of the function, the noise not included.

        Draws from the prior, its radial rest by random Fourier features (Rahimi and Recht, 2007), are corrected by
        what they missed of the observations (pathwise conditioning: Wilson et al., ICML 2020), which costs no
        factorisation of a matrix the size of the candidates.
        """
        kernel, known = self.prior.kernel, len(self)
        both = np.concatenate([self._features, features])
        weights = generator.standard_normal((both.shape[1], draws))
        frequencies = generator.standard_normal((both.shape[1], FOURIER))
        phases = generator.uniform(0.0, 2.0 * np.pi, FOURIER)
        waves = np.cos(self.prior.places(both) @ frequencies + phases) * np.sqrt(2.0 / FOURIER)
        paths = self.prior.linear(both) @ weights
        paths += kernel.amplitude * waves @ generator.standard_normal((FOURIER, draws))
        drawn = features @ self.prior.mean + paths[known:].T
        if known:
            noise = kernel.noise * generator.standard_normal((known, draws))
            missed = self._errors[:, None] - paths[:known] - noise
            half = solve_triangular(self._factor, missed, lower=True)
            drawn = drawn + (self._whitened(features).T @ half).T
        return drawn

    def log_likelihood(self) -> float:
        """Logarithm of the density of the observations, without its constant."""
        return float(-0.5 * self._half @ self._half - np.log(np.diag(self._factor)).sum())

    def _whitened(self, features: np.ndarray) -> np.ndarray:
        """float64[observations, rows]: inverse factor times the covariance with what was observed."""
        return solve_triangular(self._factor, self.prior.covariance(self._features, features), lower=True)


def fit_kernel(prior: Prior, worlds: Sequence[tuple[np.ndarray, np.ndarray]]) -> Kernel:
    """The kernel under which what was seen in some worlds is most likely (type-II maximum likelihood).

    Args:
        prior: Gives mean and covariance of the weights.
        worlds: Of each world, features [rows, dimension] and targets [rows].
    """

    def loss(logs: np.ndarray) -> float:
        changed = prior.with_kernel(Kernel(*map(float, np.exp(logs))))
        total = 0.0
        for features, targets in worlds:
            posterior = Posterior(changed)
            posterior.observe(features, targets)
            total -= posterior.log_likelihood()
        return total

    start = Kernel()
    begin = np.log([start.scale, start.amplitude, start.length, start.noise])
    bounds = [(np.log(0.2), np.log(5.0)), (np.log(0.01), np.log(2.0)), (np.log(0.05), np.log(5.0)), (-4.0, 0.0)]
    options = {"maxfev": 150, "xatol": 0.05, "fatol": 0.5}
    found = optimize.minimize(loss, begin, method="Nelder-Mead", bounds=bounds, options=options)
    return Kernel(*map(float, np.exp(found.x)))
