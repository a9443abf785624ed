"""A Gaussian process with an ANOVA-2 kernel that proposes by Thompson sampling.

The kernel holds main effects and pairs of features (Durrande, Ginsbourger, Roustant and Carraro, ANOVA kernels and
RKHS of zero mean functions, J. Multivariate Analysis 115, 2013; Duvenaud, Nickisch and Rasmussen, Additive Gaussian
Processes, NIPS 2011). A function is drawn from the posterior over a pool of candidates, and its maximum is evaluated
next (Thompson, Biometrika 25, 1933).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from gnncompose.agents.agent import Proposals
from gnncompose.agents.candidates import Candidates, drawn_anywhere, ranked_singles, standardised
from gnncompose.closed_features import features_of
from gnncompose.composition.space import Space
from gnncompose.evaluation.evaluation import Trial
from gnncompose.features import GROUPS
from gnncompose.ranges import counts

# Log variances: of each group's features, of main effects, of pairs, of noise.
PRIOR_MEAN = np.log([1.0, 1.0, 0.3, 0.3, 0.2, 0.1, 0.01])
PRIOR_DEVIATION = np.array([0.5, 1.0, 1.0, 1.0, 1.5, 1.5, 1.5])
JITTER = 1e-6
Matrix = Float[np.ndarray, "row column"]
Vector = Float[np.ndarray, " row"]


class GPThompson:
    """Fits a Gaussian process to what was evaluated, and evaluates where a drawn function is largest."""

    def __init__(
        self,
        opening: int = 0,
        initial: int = 2,
        pool: int = 400,
        incumbents: int = 20,
        fit_rows: int = 300,
        rows: int = 1000,
    ) -> None:
        """Set the sizes.

        Args:
            opening: Single models that are evaluated first, those with the best profile.
            initial: Compositions that are drawn at random then, the start included.
            pool: Candidates of a decision, at most.
            incumbents: Best compositions whose neighbours are candidates.
            fit_rows: Trials, at most, that hyper-parameters are fitted to.
            rows: Trials, at most, that the process is conditioned on: the best half of these, and the latest.

        Raises:
            GnncomposeError: A number is out of its range.
        """
        counts("agent", 0, opening=opening)
        counts("agent", 1, initial=initial, pool=pool, incumbents=incumbents, fit_rows=fit_rows, rows=rows)
        self.opening = opening
        self.initial = initial
        self.pool = pool
        self.incumbents = incumbents
        self.fit_rows = fit_rows
        self.rows = rows

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield random compositions, then what drawn functions favour; see `Agent.propose`."""
        describe = features_of(space)
        process = AnovaProcess(describe.groups)
        candidates = Candidates(space, self.pool, generator)
        trials = {space.start.id: (yield space.start)}
        drawn = (drawn_anywhere(space, generator) for _ in range(self.initial - 1))
        for composition in [*ranked_singles(space)[: self.opening], *drawn]:
            trial = yield composition
            trials[trial.composition.id] = trial
        vectors = {key: describe([trial.composition])[0] for key, trial in trials.items()}
        fitted_at = 0
        while pool := candidates(list(trials.values()), self.incumbents):
            kept = self._kept(list(trials.values()))
            x, y = np.array([vectors[trial.composition.id] for trial in kept]), standardised(kept)
            if len(trials) >= 1.1 * fitted_at:
                rows = generator.permutation(len(x))[: self.fit_rows]
                process.fit(x[rows], y[rows])
                fitted_at = len(trials)
            asked = describe(pool)
            number = int(np.argmax(process.sample(x, y, asked, generator)))
            trials[pool[number].id] = yield pool[number]
            vectors[pool[number].id] = asked[number]

    def _kept(self, trials: list[Trial]) -> list[Trial]:
        """The trials that the process is conditioned on."""
        if len(trials) <= self.rows:
            return trials
        latest = trials[-(self.rows // 2) :]
        earlier = sorted(trials[: -(self.rows // 2)], key=lambda trial: -trial.reward)
        return [*earlier[: self.rows - len(latest)], *latest]

    def checkpoint(self) -> dict[str, Any] | None:
        """Nothing is kept beyond a run."""
        return None


class AnovaProcess:
    """An exact Gaussian process whose kernel is a constant, main effects, and products of pairs of features.

    Attributes:
        log_variances: Logarithms of what `PRIOR_MEAN` lists.
    """

    def __init__(self, groups: tuple[str, ...]) -> None:
        """Begin with the prior's hyper-parameters.

        Args:
            groups: Of each feature, one of `GROUPS`; features of a group share a variance.
        """
        self._group = np.array([GROUPS.index(group) for group in groups])
        self.log_variances = PRIOR_MEAN.copy()

    def fit(self, x: Matrix, y: Vector) -> None:
        """Set the hyper-parameters to where marginal likelihood times prior is largest, from where they are."""

        def loss(log_variances: Vector) -> float:
            try:
                lower = self._factor(x, log_variances)
            except LinAlgError:
                return 1e10
            fit = 0.5 * float(y @ cho_solve((lower, True), y)) + float(np.log(np.diag(lower)).sum())
            return fit + 0.5 * float((((log_variances - PRIOR_MEAN) / PRIOR_DEVIATION) ** 2).sum())

        bounds = list(zip(PRIOR_MEAN - 6, PRIOR_MEAN + 6, strict=True))
        found = minimize(loss, self.log_variances, method="L-BFGS-B", bounds=bounds, options={"maxiter": 30})
        self.log_variances = np.asarray(found.x)

    def posterior(self, x: Matrix, y: Vector, candidates: Matrix) -> tuple[Vector, Matrix]:
        """Mean and covariance over the candidates, given values at `x`."""
        lower = self._factor(x, self.log_variances)
        half = solve_triangular(lower, self.covariance(x, candidates), lower=True)
        mean = half.T @ solve_triangular(lower, y, lower=True)
        return mean, self.covariance(candidates, candidates) - half.T @ half

    @property
    def noise(self) -> float:
        """Variance of a value at a point that is known."""
        return float(np.exp(self.log_variances[-1])) + JITTER

    def covariance(self, a: Matrix, b: Matrix) -> Matrix:
        """Covariances of points with others, without noise."""
        return self._kernel(a, b, self.log_variances)

    def variance(self, points: Matrix) -> Vector:
        """Variance of each point, without noise: the diagonal of its covariances."""
        squares = points**2 * np.exp(self.log_variances[self._group])
        main, pairs = np.exp(self.log_variances[len(GROUPS) : len(GROUPS) + 2])
        total = squares.sum(axis=1)
        return 1.0 + main * total + pairs * 0.5 * (total**2 - (squares**2).sum(axis=1))

    def sample(self, x: Matrix, y: Vector, candidates: Matrix, generator: np.random.Generator) -> Vector:
        """A function of the posterior at the candidates."""
        mean, covariance = self.posterior(x, y, candidates)
        return drawn_function(mean, covariance, generator)

    def _factor(self, x: Matrix, log_variances: Vector) -> Matrix:
        noise = np.exp(log_variances[-1]) + JITTER
        return cholesky(self._kernel(x, x, log_variances) + noise * np.eye(len(x)), lower=True)

    def _kernel(self, a: Matrix, b: Matrix, log_variances: Vector) -> Matrix:
        """1 + main · Σ k_d + pairs · Σ_{d<e} k_d k_e; the sum over pairs is (s² − Σ k_d²) / 2 for s = Σ k_d."""
        scale = np.exp(0.5 * log_variances[self._group])
        a, b = a * scale, b * scale
        main, pairs = np.exp(log_variances[len(GROUPS) : len(GROUPS) + 2])
        total = a @ b.T
        return 1.0 + main * total + pairs * 0.5 * (total**2 - (a**2) @ (b**2).T)


def drawn_function(mean: Vector, covariance: Matrix, generator: np.random.Generator) -> Vector:
    """A function of a Gaussian posterior at the candidates."""
    jitter = JITTER * max(1.0, float(np.diag(covariance).max()))
    while True:
        try:
            root = cholesky(covariance + jitter * np.eye(len(mean)), lower=True)
            return mean + root @ generator.standard_normal(len(mean))
        except LinAlgError:  # rounding left a direction with a variance below 0
            jitter *= 10
