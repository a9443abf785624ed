"""The flagship: a pre-trained graph-network surrogate, conditioned on the evaluations so far, chooses what to measure.

Each decision looks at compositions a few edits from the best ones (afterstates). The surrogate is a Gaussian process
over embeddings of a graph network (`policies/surrogate.py`); its posterior is what it makes of the evaluations so far,
the hidden state of the data among them. What is left of the reward beside the score, latency and cost, is predicted
from profiles. The next composition is the one with the largest expected improvement (Mockus, 1978; Jones, Schonlau and
Welch, J. Global Optimization 13, 1998), or the best of a drawn function (Thompson, Biometrika 25, 1933).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import norm
from torch_geometric.data import Data

from gnncompose.agents.agent import Proposals
from gnncompose.agents.candidates import Candidates, drawn_function
from gnncompose.agents.features import CompositionFeatures
from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.encoding import CatalogFeatures, encode, join
from gnncompose.evaluation.evaluation import Trial
from gnncompose.policies.policy import EncoderRecipe, seeded
from gnncompose.policies.surrogate import (
    DeepKernel,
    DeepKernelProcess,
    Points,
    group_numbers,
    kernel_to_checkpoint,
    load_kernel,
    score_scale,
)

RIDGE = 1e-3
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
        pool: int = 400,
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
        self.refit = refit
        self.deviation = deviation
        self.rows = rows
        self._kernel = None if checkpoint is None else load_kernel(checkpoint, encoder)

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield the start, then what the surrogate favours; see `Agent.propose`."""
        seed = int(generator.integers(2**31))
        kernel = self._kernel or seeded(lambda: DeepKernel(self.encoder), seed)
        self._latest = kernel
        view = View(space.catalog, kernel)
        process = DeepKernelProcess(kernel, view.group, self.deviation)
        candidates = Candidates(space, self.incumbents, self.pool, generator)
        trials = {space.start.id: (yield space.start)}
        fitted_at = FIRST_FIT
        while pool := candidates(list(trials.values())):
            known = list(trials.values())[-self.rows :]
            points, values = view.points([trial.composition for trial in known]), view.values(known)
            if len(trials) >= self.refit * fitted_at:
                process.fit(points, values)
                fitted_at = len(trials)
            mean, covariance = process.posterior(points, values, view.points(pool))
            beside = view.beside(known, pool)
            worth = self._worth(mean.numpy(), covariance.numpy(), view.scale, beside, known, generator)
            chosen = pool[int(np.argmax(worth))]
            trials[chosen.id] = yield chosen

    _latest: DeepKernel | None = None

    def _worth(
        self,
        mean: Vector,
        covariance: Float[np.ndarray, "candidate candidate"],
        scale: float,
        beside: Vector,
        known: Sequence[Trial],
        generator: np.random.Generator,
    ) -> Vector:
        """What the acquisition makes of each candidate."""
        if self.acquisition == "thompson":
            return drawn_function(mean, covariance, generator) * scale + beside
        deviation = np.sqrt(np.maximum(covariance.diagonal(), 1e-12)) * scale
        above = (mean * scale + beside - max(trial.reward for trial in known)) / deviation
        return deviation * (above * norm.cdf(above) + norm.pdf(above))

    def checkpoint(self) -> dict[str, Any] | None:
        """The surrogate of the latest run; None before the first."""
        return None if self._latest is None else kernel_to_checkpoint(self._latest)


class Described(NamedTuple):
    """A composition as it is remembered."""

    embedding: np.ndarray
    mean: float
    features: np.ndarray
    load: np.ndarray


class View:
    """How the surrogate sees the compositions of one catalog; each is encoded once.

    Attributes:
        group: Of each feature, its number in `GROUPS`.
        scale: Score that counts as 1: that of the best model on clean data.
    """

    def __init__(self, catalog: Catalog, kernel: DeepKernel) -> None:
        """Begin with nothing encoded.

        Args:
            catalog: Whose compositions.
            kernel: Embeds them.
        """
        latencies_ms = [model.profile.latency_ms for model in catalog.models if model.profile.latency_ms is not None]
        self.scale = score_scale(catalog)
        self._slowest_ms = max(latencies_ms, default=1.0) or 1.0
        self._kernel = kernel
        self._traits = CatalogFeatures.traits_of(catalog)
        self._features = CompositionFeatures(catalog)
        self.group = group_numbers(self._features.groups)
        self._known: dict[str, Described] = {}

    def points(self, compositions: Sequence[Composition]) -> Points:
        """Compositions as points, in float64."""
        found = self._described(compositions)
        return Points(
            embedding=torch.from_numpy(np.array([one.embedding for one in found])),
            mean=torch.tensor([one.mean for one in found], dtype=torch.float64),
            features=torch.from_numpy(np.array([one.features for one in found])),
        )

    def values(self, trials: Sequence[Trial]) -> Float[torch.Tensor, " trial"]:
        """Scores as shares of `scale`; a failure counts as the worst that was measured."""
        scores = [None if trial.evaluation is None else trial.evaluation.score for trial in trials]
        worst = min((score for score in scores if score is not None), default=0.0)
        return torch.tensor([worst if score is None else score for score in scores], dtype=torch.float64) / self.scale

    def beside(self, trials: Sequence[Trial], asked: Sequence[Composition]) -> Vector:
        """Predicts what the reward has beside the score, by ridge regression on the profiles of what runs."""
        measured = [trial for trial in trials if trial.evaluation is not None]
        if not measured:
            return np.zeros(len(asked))
        x = np.array([one.load for one in self._described([trial.composition for trial in measured])])
        rest = np.array([trial.reward - trial.evaluation.score for trial in measured if trial.evaluation])
        weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (rest - rest.mean()))
        return rest.mean() + np.array([one.load for one in self._described(asked)]) @ weights

    def _described(self, compositions: Sequence[Composition]) -> list[Described]:
        new = list({c.id: c for c in compositions if c.id not in self._known}.values())
        for start in range(0, len(new), AT_ONCE):
            some = new[start : start + AT_ONCE]
            with torch.no_grad():
                embeddings, means = self._kernel(join([self._graph(composition) for composition in some]))
            features = self._features(some)
            for number, composition in enumerate(some):
                self._known[composition.id] = Described(
                    embedding=embeddings[number].double().numpy(),
                    mean=float(means[number]),
                    features=features[number],
                    load=self._load(composition),
                )
        return [self._known[composition.id] for composition in compositions]

    def _graph(self, composition: Composition) -> Data:
        return encode(composition, [], self._traits)

    def _load(self, composition: Composition) -> np.ndarray:
        """What tells of latency and cost: the profiled latency, the number of nodes, and whether rows may skip some."""
        latencies_ms = [node.operator.profile.latency_ms or 0.0 for node in composition.nodes]
        skips = any(node.operator.kind in ("cascade", "router") for node in composition.nodes)
        return np.array([1.0, sum(latencies_ms) / self._slowest_ms, len(latencies_ms) / 4.0, float(skips)])
