"""The flagship: a pre-trained graph-network surrogate, conditioned on the evaluations so far, chooses what to measure.

The surrogate is a Gaussian process over embeddings of a graph network (`policies/surrogate.py`); its posterior is what
it makes of the evaluations so far, the hidden state of the data among them. Beside it stands one that learned nothing,
and each counts by its evidence. What is left of the reward beside the score, latency and cost, is predicted from
profiles. Each decision looks at compositions a few edits from the best ones (afterstates), and beyond the most
promising of these. The next composition is the one with the largest expected improvement (Mockus, 1978; Jones,
Schonlau and Welch, J. Global Optimization 13, 1998), or the best of rewards drawn independently (Thompson, Biometrika
25, 1933).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import norm

from gnncompose.agents.agent import Proposals
from gnncompose.agents.candidates import Candidates
from gnncompose.agents.gp_ts import AnovaProcess
from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.encoding import CatalogFeatures, encode, join
from gnncompose.evaluation.evaluation import Trial
from gnncompose.features import CompositionFeatures
from gnncompose.policies.policy import EncoderRecipe, seeded
from gnncompose.policies.surrogate import (
    DeepKernel,
    DeepKernelProcess,
    Points,
    group_numbers,
    load_kernel,
    mixed,
    score_scale,
)

RIDGE = 1e-3
LEAST_UNIT = 1e-6
AT_ONCE = 512
FIRST_FIT = 4
Acquisition = Literal["expected_improvement", "thompson"]
Vector = Float[np.ndarray, " candidate"]


class GNNThompson:
    """Fits the surrogate to what was evaluated, and evaluates what it promises most of."""

    def __init__(
        self,
        encoder: EncoderRecipe,
        checkpoint: str | None = None,
        acquisition: Acquisition = "expected_improvement",
        incumbents: int = 20,
        pool: int = 2000,
        first: int = 500,
        climbs: int = 2,
        refit: float = 1.25,
        deviation: float = 1.0,
        rows: int = 600,
    ) -> None:
        """Set the surrogate and how to choose.

        Args:
            encoder: Describes the graph encoder.
            checkpoint: File with a pre-trained surrogate; None for random weights, where the kernel over the
                catalog's own operators does the work.
            acquisition: What makes a candidate worth a measurement.
            incumbents: Best compositions around which candidates lie.
            pool: Candidates of a decision, at most.
            first: Walks that the first decision looks at; where much is known beforehand, it may go far at once.
            climbs: How often what is worth most is replaced by what is worth most beside its own edits.
            refit: Growth of the evaluations after which the variances are fitted again.
            deviation: How far they may go from the checkpoint's, as the deviation of a prior over their logarithms.
            rows: Trials, the latest, that the process is conditioned on, at most.

        Raises:
            ValueError: There is no such acquisition.
            GnncomposeError: The checkpoint is not usable.
        """
        if acquisition not in ("expected_improvement", "thompson"):
            raise ValueError(f"acquisition is 'expected_improvement' or 'thompson', not {acquisition!r}")
        self.encoder = encoder
        self.acquisition = acquisition
        self.incumbents = incumbents
        self.pool = pool
        self.first = first
        self.climbs = climbs
        self.refit = refit
        self.deviation = deviation
        self.rows = rows
        self._trained = [] if checkpoint is None else [load_kernel(checkpoint, encoder)]

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield the start, then what the surrogate favours; see `Agent.propose`."""
        seed = int(generator.integers(2**31))
        kernels = [*self._trained, seeded(lambda: DeepKernel(self.encoder), seed)]
        surrogate = Surrogate(space.catalog, kernels, self.deviation)
        candidates = Candidates(space, self.incumbents, self.pool, generator, self.first)
        trials = {space.start.id: (yield space.start)}
        fitted_at = FIRST_FIT
        while pool := candidates(list(trials.values())):
            known = list(trials.values())[-self.rows :]
            if len(trials) >= self.refit * fitted_at:
                surrogate.fit(known)
                fitted_at = len(trials)
            best = max(trial.reward for trial in known)
            worth = self._worth(*surrogate.posterior(known, pool), best, generator)
            for _ in range(self.climbs):
                top = pool[int(np.argmax(worth))]
                seen = trials.keys() | {composition.id for composition in pool}
                beyond = list({c.id: c for _, c in space.successors(top) if c.id not in seen}.values())
                if not beyond:
                    break
                pool += beyond
                worth = np.append(worth, self._worth(*surrogate.posterior(known, beyond), best, generator))
            chosen = pool[int(np.argmax(worth))]
            trials[chosen.id] = yield chosen

    def _worth(self, mean: Vector, variance: Vector, best: float, generator: np.random.Generator) -> Vector:
        """What the acquisition makes of each candidate, where the best reward so far is this."""
        deviation = np.sqrt(np.maximum(variance, 1e-12))
        if self.acquisition == "thompson":
            return generator.normal(mean, deviation)
        above = (mean - best) / deviation
        return deviation * (above * norm.cdf(above) + norm.pdf(above))

    def checkpoint(self) -> dict[str, Any] | None:
        """Nothing is learned in a run but variances, which the next one fits anew."""
        return None


class Described(NamedTuple):
    """Compositions as they are remembered.

    Attributes:
        embedding: float64[composition, kernel, EMBEDDING_DIM].
        mean: float64[composition, kernel]: what is expected before anything was evaluated.
        features: float64[composition, feature]: of the catalog's own operators.
        load: float64[composition, 4]: what tells of latency and cost.
    """

    embedding: np.ndarray
    mean: np.ndarray
    features: np.ndarray
    load: np.ndarray

    @property
    def points(self) -> list[Points]:
        """As the process of each kernel sees them."""
        embedding, mean, features = (torch.from_numpy(part) for part in self[:3])
        return [Points(embedding[:, k], mean[:, k], features) for k in range(mean.shape[1])]


class View:
    """How the surrogate sees the compositions of one catalog; each is encoded once.

    Attributes:
        groups: Of each feature, its group.
        scale: Score that counts as 1: that of the best model on clean data.
    """

    def __init__(self, catalog: Catalog, kernels: Sequence[DeepKernel]) -> None:
        """Begin with nothing encoded.

        Args:
            catalog: Whose compositions.
            kernels: Each embeds them in its way.
        """
        latencies_ms = [model.profile.latency_ms for model in catalog.models if model.profile.latency_ms is not None]
        self.scale = score_scale(catalog)
        self._slowest_ms = max(latencies_ms, default=1.0) or 1.0
        self._kernels = kernels
        self._traits = CatalogFeatures.traits_of(catalog)
        self._features = CompositionFeatures(catalog)
        self.groups = self._features.groups
        self._rows: dict[str, int] = {}
        self._described: Described | None = None

    def __call__(self, compositions: Sequence[Composition]) -> Described:
        """Describe compositions, at least one."""
        new = list({c.id: c for c in compositions if c.id not in self._rows}.values())
        parts = [self._new(new[start : start + AT_ONCE]) for start in range(0, len(new), AT_ONCE)]
        if parts:
            known = parts if self._described is None else [self._described, *parts]
            self._described = Described(*(np.concatenate(part) for part in zip(*known, strict=True)))
            self._rows |= {c.id: row for row, c in enumerate(new, start=len(self._rows))}
        assert self._described is not None
        rows = [self._rows[composition.id] for composition in compositions]
        return Described(*(part[rows] for part in self._described))

    def _new(self, compositions: Sequence[Composition]) -> Described:
        graphs = join([encode(composition, [], self._traits) for composition in compositions])
        with torch.no_grad():
            embeddings, means = zip(*(kernel(graphs) for kernel in self._kernels), strict=True)
        return Described(
            embedding=torch.stack(embeddings, dim=1).double().numpy(),
            mean=torch.stack(means, dim=1).double().numpy(),
            features=self._features(compositions),
            load=np.array([self._load(composition) for composition in compositions]),
        )

    def _load(self, composition: Composition) -> list[float]:
        """The profiled latency, the number of nodes, and whether rows may skip some."""
        latencies_ms = [node.operator.profile.latency_ms or 0.0 for node in composition.nodes]
        skips = any(node.operator.kind in ("cascade", "router") for node in composition.nodes)
        return [1.0, sum(latencies_ms) / self._slowest_ms, len(latencies_ms) / 4.0, float(skips)]

    def values(self, trials: Sequence[Trial]) -> Float[torch.Tensor, " trial"]:
        """Scores as shares of `scale`; a failure counts as the worst that was measured."""
        scores = [None if trial.evaluation is None else trial.evaluation.score for trial in trials]
        worst = min((score for score in scores if score is not None), default=0.0)
        return torch.tensor([worst if score is None else score for score in scores], dtype=torch.float64) / self.scale


class Surrogate:
    """Predicts the reward of compositions from trials."""

    def __init__(self, catalog: Catalog, kernels: Sequence[DeepKernel], deviation: float) -> None:
        """Begin with what the kernels know.

        Args:
            catalog: Whose compositions.
            kernels: Each predicts in its way; the evidence says how much it counts.
            deviation: How far variances may go from the kernels', as the deviation of a prior over their logarithms.
        """
        self._view = View(catalog, kernels)
        group = group_numbers(self._view.groups)
        self._processes = [DeepKernelProcess(kernel, group, deviation) for kernel in kernels]
        self._beside = Beside(self._view)

    def fit(self, trials: Sequence[Trial]) -> None:
        """Fit the variances."""
        told, values = self._view(_compositions(trials)), self._view.values(trials)
        for process, points in zip(self._processes, told.points, strict=True):
            process.fit(points, values)
        self._beside.fit(trials)

    def posterior(self, trials: Sequence[Trial], asked: Sequence[Composition]) -> tuple[Vector, Vector]:
        """Mean and variance of the reward of each composition that is asked for, given trials."""
        told, values = self._view(_compositions(trials)), self._view.values(trials)
        members = zip(self._processes, told.points, self._view(asked).points, strict=True)
        score, variance = mixed([process.posterior(points, values, some) for process, points, some in members])
        rest, rest_variance = self._beside.posterior(trials, asked)
        scale = self._view.scale
        return scale * score.numpy() + rest, scale**2 * variance.numpy() + rest_variance


def _compositions(trials: Sequence[Trial]) -> list[Composition]:
    return [trial.composition for trial in trials]


class Left(NamedTuple):
    """What ridge regression leaves of the reward beside the score, in units of its deviation.

    Attributes:
        features: float[trial, feature].
        values: float[trial].
        unit: What 1 stands for.
        mean: Of the reward beside the score.
        weights: float[load]: of the regression.
    """

    features: np.ndarray
    values: np.ndarray
    unit: float
    mean: float
    weights: np.ndarray


class Beside:
    """Predicts what the reward has beside the score, which is latency and cost.

    Ridge regression on the profiles of what runs; of what that leaves, a Gaussian process over operators and pairs.
    """

    def __init__(self, view: View) -> None:
        """Begin with the prior's variances.

        Args:
            view: How compositions are seen.
        """
        self._view = view
        self._process = AnovaProcess(view.groups)

    def fit(self, trials: Sequence[Trial]) -> None:
        """Fit the variances."""
        left = self._left(trials)
        if left is not None:
            self._process.fit(left.features, left.values)

    def posterior(self, trials: Sequence[Trial], asked: Sequence[Composition]) -> tuple[Vector, Vector]:
        """Mean and variance of each composition that is asked for."""
        left = self._left(trials)
        if left is None:
            return np.zeros(len(asked)), np.zeros(len(asked))
        found = self._view(asked)
        mean, variance = self._process.marginals(left.features, left.values, found.features)
        regressed = left.mean + found.load @ left.weights
        return regressed + left.unit * mean, left.unit**2 * variance

    def _left(self, trials: Sequence[Trial]) -> Left | None:
        """None where nothing was measured."""
        measured = [(trial, trial.evaluation) for trial in trials if trial.evaluation is not None]
        if not measured:
            return None
        found = self._view(_compositions([trial for trial, _ in measured]))
        x = found.load
        rest = np.array([trial.reward - evaluation.score for trial, evaluation in measured])
        mean = float(rest.mean())
        weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (rest - mean))
        left = rest - mean - x @ weights
        unit = max(float(left.std()), LEAST_UNIT)
        return Left(found.features, left / unit, unit, mean, weights)
