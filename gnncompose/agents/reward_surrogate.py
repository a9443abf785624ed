"""What trials say of the reward of other compositions: the score by deep kernels, what is beside it from profiles.

Each kernel makes a Gaussian process over embeddings of its graph network, conditioned on the trials; each counts by its
evidence (`policies/surrogate.py`). Trials of another condition stand beside these as one more belief. Latency and cost
are regressed on profiles, with a process over operators and pairs for what that leaves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from gnncompose.agents.gp_ts import AnovaProcess
from gnncompose.agents.loads import loads_of
from gnncompose.closed_features import features_of
from gnncompose.closed_graphs import graphs_of
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.encoding import CatalogFeatures
from gnncompose.evaluation.evaluation import Trial
from gnncompose.policies.conditioned import Conditioned, Numbers
from gnncompose.policies.surrogate import (
    EMBEDDING_DIM,
    DeepKernel,
    DeepKernelProcess,
    Points,
    group_numbers,
    mixed,
    score_scale,
)

RIDGE = 1e-3
LEAST_UNIT = 1e-6
AT_ONCE = 512
REMEMBERED = 20_000  # compositions
Vector = Float[np.ndarray, " candidate"]


def latest(trials: Sequence[Trial], most: int) -> list[Trial]:
    """The latest trials; a quarter is left out at once, since to go on with the same ones costs little."""
    step = max(most // 4, 1)
    return list(trials[step * math.ceil(max(len(trials) - most, 0) / step) :])


class View:
    """How the surrogate sees the compositions of one space: as points of a table, each encoded once.

    Attributes:
        groups: Of each feature, its group.
        scale: Score that counts as 1: that of the best model on clean data.
        load: float64[point, 4]: what tells of latency and cost.
    """

    def __init__(self, space: Space, kernels: Sequence[DeepKernel]) -> None:
        """Begin with nothing encoded.

        Args:
            space: Whose compositions.
            kernels: Each embeds them in its way.
        """
        catalog = space.catalog
        self.scale = score_scale(catalog)
        self._kernels = kernels
        self._graphs_of = graphs_of(space, CatalogFeatures.traits_of(catalog))
        self._describe = features_of(space)
        self._loads_of = loads_of(space)
        self.groups = self._describe.groups
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        count = len(self._kernels)
        self._points: dict[str, int] = {}
        empty = (count, 0, EMBEDDING_DIM), (count, 0), (0, len(self.groups))
        self._room = Points.of(*(torch.zeros(shape, dtype=torch.float64) for shape in empty))
        self._all = self._room.first(0)
        self.load = np.zeros((0, 4))

    def __len__(self) -> int:
        return len(self._points)

    def __call__(self, compositions: Sequence[Composition]) -> Numbers:
        """The points of compositions; those that are new are encoded."""
        ids = [composition.id for composition in compositions]
        new = list({key: c for key, c in zip(ids, compositions, strict=True) if key not in self._points}.values())
        for start in range(0, len(new), AT_ONCE):
            self._encode(new[start : start + AT_ONCE])
        return np.array([self._points[key] for key in ids], dtype=np.int64)

    def _encode(self, new: Sequence[Composition]) -> None:
        graphs = self._graphs_of(new)
        with torch.no_grad():
            embeddings, means = zip(*(kernel(graphs) for kernel in self._kernels), strict=True)
        told = torch.stack(embeddings).double(), torch.stack(means).double(), torch.from_numpy(self._describe(new))
        self._append(Points.of(*told))
        self.load = np.concatenate([self.load, self._loads_of(new)])
        self._points |= {c.id: point for point, c in enumerate(new, start=len(self._points))}

    def _append(self, new: Points) -> None:
        """Add points to the table, which doubles where they find no room."""
        first, last = len(self), len(self) + new.mean.shape[-1]
        if last > self._room.mean.shape[-1]:
            self._room = self._all.joined(new)
            self._room = self._room.joined(self._room)
        self._room.put(first, new)
        self._all = self._room.first(last)

    def points(self, kernel: int) -> Points:
        """All points as the process of a kernel sees them."""
        every = self._all
        return every._replace(embedding=every.embedding[kernel], mean=every.mean[kernel], length=every.length[kernel])

    @property
    def features(self) -> Float[np.ndarray, "point feature"]:
        """What is told of each point by the catalog's own operators."""
        return self._all.features.numpy()

    def values(self, trials: Sequence[Trial]) -> Float[np.ndarray, " trial"]:
        """Scores as shares of `scale`; a failure counts as the worst that was measured."""
        scores = [None if trial.evaluation is None else trial.evaluation.score for trial in trials]
        worst = min((score for score in scores if score is not None), default=0.0)
        return np.array([worst if score is None else score for score in scores]) / self.scale


class RewardSurrogate:
    """Predicts the reward of compositions from trials."""

    def __init__(
        self, space: Space, kernels: Sequence[DeepKernel], deviation: float, old: Sequence[Trial] = ()
    ) -> None:
        """Begin with what the kernels know, and what old trials tell.

        Args:
            space: Whose compositions.
            kernels: Each predicts in its way; the evidence says how much it counts.
            deviation: How far variances may go from the kernels', as the deviation of a prior over their logarithms.
            old: Trials of another condition.
        """
        self._view = View(space, kernels)
        group = group_numbers(self._view.groups)
        points = [partial(self._view.points, number) for number in range(len(kernels))]
        self._processes = [
            DeepKernelProcess(kernel, of, group, deviation) for kernel, of in zip(kernels, points, strict=True)
        ]
        self._beside = Beside(self._view, old)
        self._parts = [*self._processes, self._beside]
        if old:
            recalled = Recalled(DeepKernelProcess(kernels[0], points[0], group, deviation), self._view, old)
            self._processes.append(DeepKernelProcess(kernels[0], recalled, group, deviation))
            self._parts += [recalled, self._processes[-1]]

    def fit(self, trials: Sequence[Trial]) -> None:
        """Fit the variances."""
        told, values = self._view(_compositions(trials)), self._view.values(trials)
        for process in self._processes:
            process.fit(told, values)
        self._beside.fit(trials)

    def posterior(self, trials: Sequence[Trial], asked: Sequence[Composition]) -> tuple[Vector, Vector]:
        """Mean and variance of the reward of each composition that is asked for, given trials."""
        if len(self._view) > REMEMBERED:
            self._view.forget()
            for part in self._parts:
                part.begin()
        told, values, points = self._view(_compositions(trials)), self._view.values(trials), self._view(asked)
        score, variance = mixed([process.posterior(told, values, points) for process in self._processes])
        rest, rest_variance = self._beside.posterior(trials, points)
        scale = self._view.scale
        return scale * score + rest, scale**2 * variance + rest_variance


class Recalled:
    """All points of a view, each expected to be worth what a process makes of old trials."""

    def __init__(self, process: DeepKernelProcess, view: View, old: Sequence[Trial]) -> None:
        """Fit the process.

        Args:
            process: Over the points of the view.
            view: How compositions are seen.
            old: Trials of another condition.
        """
        self._process = process
        self._view = view
        self._old = old
        self._values = view.values(old)
        process.fit(view(_compositions(old)), self._values)
        self.begin()

    def begin(self) -> None:
        """Begin anew, where the view forgot its points."""
        self._process.begin()
        self._mean = np.zeros(0)

    def __call__(self) -> Points:
        """The points as a process sees them that looks for what is new."""
        if len(self._mean) < len(self._view):
            told = self._view(_compositions(self._old))
            new = np.arange(len(self._mean), len(self._view))
            self._mean = np.append(self._mean, self._process.posterior(told, self._values, new).mean)
        return self._view.points(0)._replace(mean=torch.from_numpy(self._mean))


def _compositions(trials: Sequence[Trial]) -> list[Composition]:
    return [trial.composition for trial in trials]


class Left(NamedTuple):
    """What ridge regression leaves of the reward beside the score, in units of its deviation.

    Attributes:
        points: int64[trial].
        values: float64[trial].
        unit: What 1 stands for.
        mean: Of the reward beside the score.
        weights: float64[load]: of the regression.
    """

    points: np.ndarray
    values: np.ndarray
    unit: float
    mean: float
    weights: np.ndarray


class Beside:
    """Predicts what the reward has beside the score, which is latency and cost.

    Ridge regression on the profiles of what runs; of what that leaves, a Gaussian process over operators and pairs.
    """

    def __init__(self, view: View, old: Sequence[Trial] = ()) -> None:
        """Begin with the prior's variances.

        Args:
            view: How compositions are seen.
            old: Trials of another condition, which is hardly another for latency and cost.
        """
        self._view = view
        self._old = old
        self._process = AnovaProcess(view.groups)
        self._conditioned = Conditioned(self)

    def begin(self) -> None:
        """Begin anew with nothing told, the variances as they are."""
        self._conditioned.begin()

    def fit(self, trials: Sequence[Trial]) -> None:
        """Fit the variances."""
        left = self._left(trials)
        if left is not None:
            self._process.fit(self._view.features[left.points], left.values)
            self.begin()

    def posterior(self, trials: Sequence[Trial], asked: Numbers) -> tuple[Vector, Vector]:
        """Mean and variance of each point that is asked for."""
        left = self._left(trials)
        if left is None:
            return np.zeros(len(asked)), np.zeros(len(asked))
        given = self._conditioned(left.points, left.values, asked)
        regressed = left.mean + self._view.load[asked] @ left.weights
        return regressed + left.unit * given.mean, left.unit**2 * given.variance

    def _left(self, trials: Sequence[Trial]) -> Left | None:
        """None where nothing was measured."""
        measured = [(t, t.evaluation) for t in (*self._old, *trials) if t.evaluation is not None]
        if not measured:
            return None
        points = self._view(_compositions([trial for trial, _ in measured]))
        x = self._view.load[points]
        rest = np.array([trial.reward - evaluation.score for trial, evaluation in measured])
        mean = float(rest.mean())
        weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (rest - mean))
        left = rest - mean - x @ weights
        unit = max(float(left.std()), LEAST_UNIT)
        return Left(points, left / unit, unit, mean, weights)

    @property
    def noise(self) -> float:
        """Variance of a value at a point that is known; with `between` and `at`, what `Conditioned` asks for."""
        return self._process.noise

    def __len__(self) -> int:
        return len(self._view)

    def between(self, some: Numbers, others: Numbers) -> Float[np.ndarray, "point other"]:
        """Covariances of points with others, without noise."""
        return self._process.covariance(self._view.features[some], self._view.features[others])

    def at(self, points: slice) -> Vector:
        """Variance of each point, without noise."""
        return self._process.variance(self._view.features[points])
