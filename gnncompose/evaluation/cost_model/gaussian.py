"""Gaussian processes over features: a linear part whose weights have a learned prior, and radial rests.

Features are φ, that a network learned, and a sketch of the structure, that needed no learning. How far the network
is to be trusted in a world, its measurements say: `Mixture` weighs kernels by how likely they make them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
from scipy import optimize
from scipy.linalg import cholesky, solve_triangular
from scipy.special import softmax

FOURIER = 256


@dataclass(frozen=True)
class Kernel:
    """How alike what is told of two nodes is a priori.

    Attributes:
        trust: How far the learned prior of φ's weights holds: factor on their mean and standard deviations.
        constant: Standard deviation of the mean of the world.
        learned: Standard deviation of the radial rest over φ.
        learned_length: Distance over which that falls off; distances are those of the linear part.
        structure: Standard deviation of the radial rest over the sketches.
        structure_length: Distance over which that falls off; sketches have unit length.
        noise: Standard deviation of what no feature tells.
    """

    trust: float = 1.0
    constant: float = 0.1
    learned: float = 0.2
    learned_length: float = 0.5
    structure: float = 0.2
    structure_length: float = 1.0
    noise: float = 0.15


# For a catalog of which the network has seen nothing alike.
UNTRUSTING = Kernel(trust=0.0, constant=1.0, learned=1e-3, structure=0.7, structure_length=1.0, noise=0.25)
HALF_TRUSTING = Kernel(trust=0.7, constant=0.5, learned=0.2, structure=0.5, structure_length=1.0, noise=0.25)


@dataclass(frozen=True, eq=False)
class Prior:
    """What is known before anything is measured: f = φ·β + rests, β normal.

    Attributes:
        mean: float64[dimension]: of β.
        factor: float64[dimension, dimension]: of its covariance, `factor @ factor.T`.
        kernel: The rests, and how far β's prior holds.
    """

    mean: np.ndarray
    factor: np.ndarray
    kernel: Kernel = Kernel()

    def with_kernel(self, kernel: Kernel) -> Prior:
        """The same with another kernel."""
        return replace(self, kernel=kernel)

    def expected(self, features: Features) -> np.ndarray:
        """float64[rows]: prior means."""
        return self.kernel.trust * features.learned @ self.mean

    def linear(self, features: Features) -> np.ndarray:
        """float64[rows, dimension + 1]: whose products are the covariances of the linear part."""
        constant = np.full((len(features), 1), self.kernel.constant)
        return np.concatenate([self.kernel.trust * features.learned @ self.factor, constant], axis=1)

    def radial(self, features: Features) -> tuple[tuple[float, np.ndarray], ...]:
        """Amplitude of each radial rest, and where it sees the features."""
        kernel = self.kernel
        return (
            (kernel.learned, features.learned @ self.factor / kernel.learned_length),
            (kernel.structure, features.sketch / kernel.structure_length),
        )

    def covariance(self, ones: Features, others: Features) -> np.ndarray:
        """float64[rows, rows]: between two sets of features, the noise not included."""
        total = self.linear(ones) @ self.linear(others).T
        for (amplitude, here), (_, there) in zip(self.radial(ones), self.radial(others), strict=True):
            total += amplitude**2 * np.exp(-0.5 * squared_distances(here, there))
        return total

    def variance(self, features: Features) -> np.ndarray:
        """float64[rows]: of each alone, the noise not included."""
        return (self.linear(features) ** 2).sum(axis=1) + self.kernel.learned**2 + self.kernel.structure**2


@dataclass(frozen=True, eq=False)
class Features:
    """What the processes read of some nodes.

    Attributes:
        learned: float64[rows, dimension]: φ.
        sketch: float64[rows, sketch]: the structure.
    """

    learned: np.ndarray
    sketch: np.ndarray

    def __len__(self) -> int:
        return len(self.learned)

    def __getitem__(self, rows: np.ndarray | slice) -> Features:
        return Features(self.learned[rows], self.sketch[rows])

    def joined(self, other: Features) -> Features:
        """These rows, then those of the other."""
        return Features(np.concatenate([self.learned, other.learned]), np.concatenate([self.sketch, other.sketch]))


def squared_distances(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float64[rows, rows]: squared Euclidean distances."""
    squares = (ones**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None] - 2.0 * ones @ others.T
    return np.maximum(squares, 0.0)


class Posterior:
    """One process given observations; exact, and extended rather than computed anew by each."""

    def __init__(self, prior: Prior) -> None:
        """Begin with the prior."""
        self.prior = prior
        self._features: Features | None = None
        self._errors = np.empty(0)
        self._factor = np.empty((0, 0))
        self._half = np.empty(0)

    def __len__(self) -> int:
        return len(self._errors)

    def observe(self, features: Features, targets: np.ndarray) -> None:
        """Take in noisy values; their noise is that of the prior's kernel.

        Args:
            features: Of the rows that were seen.
            targets: float64[rows].
        """
        errors = targets - self.prior.expected(features)
        own = self.prior.covariance(features, features)
        own[np.diag_indices_from(own)] += self.prior.kernel.noise**2
        known = len(self)
        grown = np.zeros((known + len(errors), known + len(errors)))
        grown[:known, :known] = self._factor
        left = errors
        if known:
            cross = self._whitened(features)
            own -= cross.T @ cross
            grown[known:, :known] = cross.T
            left = errors - cross.T @ self._half
        corner = grown[known:, known:] = cholesky(own, lower=True)
        self._factor = grown
        self._half = np.concatenate([self._half, solve_triangular(corner, left, lower=True)])
        self._features = features if self._features is None else self._features.joined(features)
        self._errors = np.concatenate([self._errors, errors])

    def predict(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        """float64[rows] twice: mean and variance, the noise not included."""
        mean, variance = self.prior.expected(features), self.prior.variance(features)
        if len(self):
            cross = self._whitened(features)
            mean = mean + cross.T @ self._half
            variance = np.maximum(variance - (cross**2).sum(axis=0), 1e-12)
        return mean, variance

    def covariance(self, features: Features) -> np.ndarray:
        """float64[rows, rows]: joint covariance, the noise not included."""
        covariance = self.prior.covariance(features, features)
        if len(self):
            cross = self._whitened(features)
            covariance -= cross.T @ cross
        return covariance

    def sample(self, features: Features, generator: np.random.Generator, draws: int = 1) -> np.ndarray:
        """float64[draws, rows]: joint draws of the function, the noise not included.

        Draws from the prior, its radial rests by random Fourier features (Rahimi and Recht, NeurIPS 2007), are
        corrected by what they missed of the observations (pathwise conditioning: Wilson et al., ICML 2020), which
        costs no factorisation of a matrix the size of the candidates.
        """
        known = len(self)
        both = features if self._features is None else self._features.joined(features)
        linear = self.prior.linear(both)
        paths = linear @ generator.standard_normal((linear.shape[1], draws))
        for amplitude, places in self.prior.radial(both):
            frequencies = generator.standard_normal((places.shape[1], FOURIER))
            phases = generator.uniform(0.0, 2.0 * np.pi, FOURIER)
            waves = np.cos(places @ frequencies + phases) * np.sqrt(2.0 / FOURIER)
            paths += amplitude * waves @ generator.standard_normal((FOURIER, draws))
        drawn = self.prior.expected(features) + paths[known:].T
        if known:
            noise = self.prior.kernel.noise * generator.standard_normal((known, draws))
            missed = self._errors[:, None] - paths[:known] - noise
            half = solve_triangular(self._factor, missed, lower=True)
            drawn = drawn + (self._whitened(features).T @ half).T
        return drawn

    def log_likelihood(self) -> float:
        """Logarithm of the density of the observations, without its constant."""
        return float(-0.5 * self._half @ self._half - np.log(np.diag(self._factor)).sum())

    def _whitened(self, features: Features) -> np.ndarray:
        """float64[observations, rows]: inverse factor times the covariance with what was observed."""
        assert self._features is not None
        return solve_triangular(self._factor, self.prior.covariance(self._features, features), lower=True)


class Mixture:
    """Processes of several networks and kernels, weighted by how likely they make what was observed."""

    def __init__(self, priors: Sequence[Prior]) -> None:
        """Begin with equal weights."""
        self.parts = [Posterior(prior) for prior in priors]

    def observe(self, features: Sequence[Features], targets: np.ndarray) -> None:
        """Take in noisy values.

        Args:
            features: Of the rows that were seen, for each part.
            targets: float64[rows].
        """
        for part, seen in zip(self.parts, features, strict=True):
            part.observe(seen, targets)

    @property
    def weights(self) -> np.ndarray:
        """float64[parts]: posterior probability of each part, of sum 1."""
        if not len(self.parts[0]):
            return np.full(len(self.parts), 1 / len(self.parts))
        return softmax([part.log_likelihood() for part in self.parts])

    def predict(self, features: Sequence[Features]) -> tuple[np.ndarray, np.ndarray]:
        """float64[rows] twice: mean and variance, the noise included."""
        weights, mean, square = self.weights, 0.0, 0.0
        for part, weight, wanted in zip(self.parts, weights, features, strict=True):
            if weight > NEGLIGIBLE:
                here, variance = part.predict(wanted)
                mean = mean + weight * here
                square = square + weight * (variance + part.prior.kernel.noise**2 + here**2)
        return np.asarray(mean), np.maximum(np.asarray(square - mean**2), 1e-12)

    def sample(self, features: Sequence[Features], generator: np.random.Generator, draws: int = 1) -> np.ndarray:
        """float64[draws, rows]: joint draws, each of one part that is itself drawn."""
        weights = self.weights
        counts = generator.multinomial(draws, weights / weights.sum())
        found = [
            part.sample(wanted, generator, int(count))
            for part, count, wanted in zip(self.parts, counts, features, strict=True)
            if count
        ]
        return generator.permutation(np.concatenate(found))


NEGLIGIBLE = 1e-3
_STEP = 0.5
_BOUNDS = ((0.3, 3.0), (0.01, 1.0), (0.01, 2.0), (0.05, 5.0), (0.01, 2.0), (0.3, 3.0), (0.02, 1.0))


def fit_kernel(prior: Prior, worlds: Sequence[tuple[Features, np.ndarray]], evaluations: int = 200) -> Kernel:
    """The kernel under which what was seen in some worlds is most likely (type-II maximum likelihood).

    Args:
        prior: Gives mean and covariance of the weights.
        worlds: Of each world, features and targets of the rows that were seen.
        evaluations: How often the likelihood is computed at most.
    """

    def loss(logs: np.ndarray) -> float:
        changed = prior.with_kernel(Kernel(*map(float, np.exp(logs))))
        total = 0.0
        for features, targets in worlds:
            posterior = Posterior(changed)
            posterior.observe(features, targets)
            total -= posterior.log_likelihood()
        return total

    begin = np.log(astuple(Kernel()))
    simplex = np.stack([begin, *(begin + _STEP * row for row in np.eye(len(begin)))])
    found = optimize.minimize(
        loss,
        begin,
        method="Nelder-Mead",
        bounds=np.log(_BOUNDS),
        options={"maxfev": evaluations, "xatol": 0.05, "fatol": 0.5, "initial_simplex": simplex},
    )
    return Kernel(*map(float, np.exp(found.x)))
