"""What measurements in a world say about its speed: a few regularised effects with an exact Gaussian posterior.

The logarithmic error of a predicted time is the sum, over what the composition consists of, of an effect times the
share of the time that it acts on: one effect of the machine, one of the hops between operators, one of each
operator (and of each at a size of request), and one of each sub-expression, whose operator always sees the same
data: decision trees run faster on fog than on noise. All are normal around 0 a priori. Ten measurements thus
calibrate to a machine that is slower as a whole, later ones teach the operators, and a composition that shares parts
with measured ones is told by these.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy import optimize, sparse
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.special import softmax

from gnncompose.composition.tree import Composition
from gnncompose.evaluation.cost_model.features import has_branches

Effects = Mapping[Hashable, float]
MOST = 0.5
ROBUST_FROM = 10


@dataclass(frozen=True)
class Priors:
    """Standard deviations of the effects on a logarithmic scale, and of the noise.

    Attributes:
        machine: Of the one effect on everything.
        hop: Of the effect on what is no operator's own time.
        operator: Of each operator's effect, with its parameters.
        sized: Of each operator's effect at a size of request.
        data: Of each sub-expression's effect.
        branching: How much larger these are where the operator's own branches follow the data, as decision trees do.
        noise: Of what no effect explains.
    """

    machine: float = 0.2
    hop: float = 0.3
    operator: float = 0.05
    sized: float = 0.03
    data: float = 0.05
    branching: float = 3.0
    noise: float = 0.02


# For a machine or a catalog unlike those that the priors were fitted to.
DOUBTING = Priors(machine=0.7, hop=0.5, operator=0.25, sized=0.15, data=0.1, branching=2.0, noise=0.06)


def effects_of(
    composition: Composition, own: np.ndarray, hops: np.ndarray, beside_ms: float, rows: Sequence[float]
) -> dict[Hashable, float]:
    """Share of the time that each effect acts on, by what names the effect.

    Args:
        composition: Of what.
        own: [nodes] predicted milliseconds of each operator's artifact, 0 for builtins.
        hops: [nodes] predicted milliseconds of each builtin, 0 for artifacts.
        beside_ms: Predicted milliseconds of a request beside its nodes.
        rows: [nodes] mean rows that reach each node when it runs.
    """
    rest = float(hops.sum()) + beside_ms
    whole = float(own.sum()) + rest
    found: dict[Hashable, float] = {"machine": 1.0, "hop": rest / whole}
    for node, time, reached in zip(composition.nodes, own, rows, strict=True):
        if time <= 0:
            continue
        share, size = float(time) / whole, int(np.log2(max(reached, 1.0)) / 2)
        identity, branching = node.operator.identity, has_branches(node.operator)
        setting = (identity, node.parameters)
        # how long branches take lies in the data that are read, not in whose branches they are
        data = ",".join(child.id for child in node.inputs) if branching else node.id
        for kind, of in (("operator", setting), ("sized", (identity, size)), ("data", data)):
            key = kind, branching, of
            found[key] = found.get(key, 0.0) + share
    return found


class EffectPosterior:
    """Effects given what was measured in one world."""

    def __init__(self, priors: Priors) -> None:
        """Begin with nothing measured."""
        self.priors = priors
        self._columns: dict[Hashable, int] = {}
        self._rows: list[Effects] = []
        self._errors: list[float] = []
        self._solved: tuple[sparse.csr_matrix, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def observe(self, effects: Effects, error: float) -> None:
        """Take in one measurement; once there are some, one that is far out counts as if it were less so.

        Args:
            effects: From `effects_of`.
            error: Logarithm of measured over predicted.
        """
        if len(self._rows) >= ROBUST_FROM:
            middle = float(np.median(self._errors))
            error = float(np.clip(error, middle - MOST, middle + MOST))
        self._rows.append(effects)
        self._errors.append(error)
        self._solved = None

    def predict(self, effects: Sequence[Effects]) -> tuple[np.ndarray, np.ndarray]:
        """[compositions] mean and variance of the logarithmic error, the noise not included."""
        prior = np.array([sum((w * self._deviation(key)) ** 2 for key, w in row.items()) for row in effects])
        if not self._rows:
            return np.zeros(len(effects)), prior
        design, factor, weights = self._solve()
        given = self._design(effects)
        explained = solve_triangular(factor, (design @ given.T).toarray(), lower=True)
        return given @ (design.T @ weights), np.maximum(prior - (explained**2).sum(axis=0), 0.0)

    def sample(self, effects: Sequence[Effects], generator: np.random.Generator, draws: int = 1) -> np.ndarray:
        """float64[draws, compositions]: joint draws of the logarithmic error, the noise not included.

        Prior draws of all effects, corrected by what they missed of the measurements.
        """
        columns: dict[Hashable, int] = dict(self._columns)
        for row in (*self._rows, *effects):
            for key in row:
                columns.setdefault(key, len(columns))
        drawn = generator.standard_normal((len(columns), draws))
        paths = self._design(effects, columns) @ drawn
        if self._rows:
            design, factor, _ = self._solve()
            known = self._design(self._rows, columns) @ drawn
            noise = self.priors.noise * generator.standard_normal((len(self._rows), draws))
            missed = np.array(self._errors)[:, None] - known - noise
            paths += self._design(effects) @ (design.T @ cho_solve((factor, True), missed))
        return np.asarray(paths).T

    def log_likelihood(self) -> float:
        """Logarithm of the density of all measurements."""
        _, factor, weights = self._solve()
        return float(-0.5 * np.dot(self._errors, weights) - np.log(np.diag(factor)).sum())

    def _deviation(self, key: Hashable) -> float:
        if isinstance(key, str):
            return getattr(self.priors, key)
        assert isinstance(key, tuple)
        return getattr(self.priors, key[0]) * (self.priors.branching if key[1] else 1.0)

    def _solve(self) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
        if self._solved is None:
            for row in self._rows:
                for key in row:
                    self._columns.setdefault(key, len(self._columns))
            design = self._design(self._rows)
            covariance = (design @ design.T).toarray()
            covariance[np.diag_indices_from(covariance)] += self.priors.noise**2
            factor = cholesky(covariance, lower=True)
            self._solved = design, factor, cho_solve((factor, True), np.array(self._errors))
        return self._solved

    def _design(self, effects: Sequence[Effects], columns: Mapping[Hashable, int] | None = None) -> sparse.csr_matrix:
        """[compositions, effects] shares times prior standard deviations; by default of effects seen so far."""
        at = self._columns if columns is None else columns
        numbers: list[int] = []
        places: list[int] = []
        values: list[float] = []
        for number, row in enumerate(effects):
            for key, share in row.items():
                if key in at:
                    numbers.append(number)
                    places.append(at[key])
                    values.append(share * self._deviation(key))
        return sparse.csr_matrix((values, (numbers, places)), shape=(len(effects), len(at)))


class EffectMixture:
    """Posteriors under several priors, weighted by how likely they make what was measured."""

    def __init__(self, priors: Sequence[Priors]) -> None:
        """Begin with nothing measured; until then the first prior holds."""
        self.parts = [EffectPosterior(prior) for prior in priors]

    def observe(self, effects: Effects, error: float) -> None:
        """Take in one measurement; see `EffectPosterior.observe`."""
        for part in self.parts:
            part.observe(effects, error)

    @property
    def weights(self) -> np.ndarray:
        """float64[parts]: posterior probability of each part, of sum 1."""
        if not len(self.parts[0]):
            return np.eye(len(self.parts))[0]
        return softmax([part.log_likelihood() for part in self.parts])

    def predict(self, effects: Sequence[Effects]) -> tuple[np.ndarray, np.ndarray]:
        """[compositions] mean and variance of the logarithmic error, the noise included."""
        weights = self.weights
        found = [part.predict(effects) for part in self.parts]
        means = np.stack([mean for mean, _ in found])
        variances = np.stack([v + part.priors.noise**2 for (_, v), part in zip(found, self.parts, strict=True)])
        mean = weights @ means
        return mean, weights @ (variances + (means - mean) ** 2)

    def sample(self, effects: Sequence[Effects], generator: np.random.Generator, draws: int = 1) -> np.ndarray:
        """float64[draws, compositions]: joint draws, each of one part that is itself drawn."""
        counts = generator.multinomial(draws, self.weights)
        found = [
            part.sample(effects, generator, int(count)) for part, count in zip(self.parts, counts, strict=True) if count
        ]
        return generator.permutation(np.concatenate(found))


def fit_priors(worlds: Sequence[tuple[Sequence[Effects], Sequence[float]]], start: Priors | None = None) -> Priors:
    """Priors under which what was measured in some worlds is most likely (type-II maximum likelihood).

    Args:
        worlds: Of each world the effects and errors of its measurements.
        start: Where to begin.
    """
    names = [field.name for field in fields(Priors)]
    start = start or Priors()

    def loss(logs: np.ndarray) -> float:
        priors = Priors(**dict(zip(names, map(float, np.exp(logs)), strict=True)))
        total = 0.0
        for effects, errors in worlds:
            posterior = EffectPosterior(priors)
            for row, error in zip(effects, errors, strict=True):
                posterior.observe(row, error)
            total -= posterior.log_likelihood()
        return total

    begin = np.log([getattr(start, name) for name in names])
    options = {"maxfev": 250, "xatol": 0.05, "fatol": 0.5}
    found = optimize.minimize(loss, begin, method="Nelder-Mead", options=options)
    return Priors(**dict(zip(names, map(float, np.exp(found.x)), strict=True)))
