"""What a composition would score: a prior learned across worlds, for a Gaussian process in each world.

An encoder gives every node features φ, and in each training world (a task's data under a condition) the score, on a
logit scale, is φ·β with the world's own β. That is trained jointly over all worlds; the β that came out then are
draws from the prior of a new world's β (empirical Bayes, the meta-learned Bayesian regression of Harrison et al.,
ALPaCA, WAFR 2018). What φ·β misses, a radial kernel over φ covers, as in deep kernel transfer (Patacchiola et al.,
NeurIPS 2020). A world is thus known by what was measured in it and never by name. The share of rows that are
confident, which decides what a cascade escalates, and the spread of the answers are told in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from gnncompose.evaluation.cost_model.behaviour import OUTCOMES
from gnncompose.evaluation.cost_model.encoder import Encoder
from gnncompose.evaluation.cost_model.forest import Forest
from gnncompose.evaluation.cost_model.gaussian import Features, Prior, fit_kernel
from gnncompose.ranges import above_zero, at_least, counts

SHRINKAGE = 0.2
WEIGHTS = (1.0, 0.4, 0.4)


@dataclass(frozen=True, eq=False)
class ScoredTask:
    """What nodes of one task reached in several worlds.

    Attributes:
        forest: The nodes.
        closures: Rows of all nodes of each composition.
        targets: float32[rows, worlds, OUTCOMES]: behaviours as `Behaviour.linked` gives them; NaN where a node gives
            no prediction or must not be seen.
    """

    forest: Forest
    closures: tuple[np.ndarray, ...]
    targets: np.ndarray

    def part(self, compositions: Sequence[int], hidden: Sequence[int] = ()) -> ScoredTask:
        """Some of the compositions; all rows that only others have, and the hidden rows, are not seen."""
        closures = tuple(self.closures[number] for number in compositions)
        seen = np.zeros(len(self.forest), dtype=bool)
        for closure in closures:
            seen[closure] = True
        seen[list(hidden)] = False
        return ScoredTask(self.forest, closures, np.where(seen[:, None, None], self.targets, np.nan))


class AccuracyNet(nn.Module):
    """Features of nodes whose products with a world's β are their linked behaviours."""

    def __init__(self, width: int = 96, dimension: int = 64, dropout: float = 0.1) -> None:
        """Lay out the layers.

        Args:
            width: Of the encoder.
            dimension: Length of φ, the constant 1 included.
            dropout: Share of the features that are hidden while training.
        """
        super().__init__()
        self.settings = {"width": width, "dimension": dimension, "dropout": dropout}
        self.dimension = dimension
        self.encoder = Encoder(width, dropout)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, dimension - 1)) for _ in range(OUTCOMES)
        )

    def features(self, embeddings: Float[Tensor, "node width"]) -> Float[Tensor, "outcome node dimension"]:
        """φ of every outcome."""
        ones = torch.ones(len(embeddings), 1)
        return torch.stack([torch.cat([head(embeddings), ones], dim=1) for head in self.heads])


@dataclass(frozen=True)
class Training:
    """How an accuracy network is trained.

    Attributes:
        steps: Optimiser steps in all.
        compositions: Compositions per step.
        learning_rate: Highest learning rate of the one-cycle schedule.
        weight_decay: Of AdamW.
    """

    steps: int = 3000
    compositions: int = 128
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where a number is out of its range."""
        counts("fitting.accuracy", 1, steps=self.steps, compositions=self.compositions)
        above_zero("fitting.accuracy", learning_rate=self.learning_rate)
        at_least("fitting.accuracy", 0, weight_decay=self.weight_decay)


def train(
    net: AccuracyNet,
    tasks: Sequence[ScoredTask],
    training: Training,
    generator: np.random.Generator,
) -> Float[Tensor, "world outcome dimension"]:
    """Fit a network to what was scored; returns the β of every world, those of all tasks in order."""
    betas = nn.ParameterList(
        nn.Parameter(0.1 * torch.randn(task.targets.shape[1], OUTCOMES, net.dimension)) for task in tasks
    )
    parameters = [*net.parameters(), *betas]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.learning_rate, total_steps=training.steps)
    weight = torch.tensor(WEIGHTS)
    net.train()
    for step in range(training.steps):
        number = step % len(tasks)
        task = tasks[number]
        count = min(training.compositions, len(task.closures))
        picked = generator.choice(len(task.closures), count, replace=False)
        rows = np.unique(np.concatenate([task.closures[i] for i in picked]))
        found = _embed(net, task.forest, rows)
        seen = np.flatnonzero(~np.isnan(task.targets[rows, :, 0]).all(axis=1))
        targets = torch.from_numpy(task.targets[rows[seen]])
        given = torch.einsum("ond,wod->nwo", net.features(found[seen]), betas[number])
        errors = nn.functional.huber_loss(given, targets.nan_to_num(), delta=0.5, reduction="none")
        loss = (errors * weight * ~targets.isnan()).mean() / weight.mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
    net.eval()
    return torch.cat([beta.detach() for beta in betas])


def _embed(net: AccuracyNet, forest: Forest, rows: np.ndarray) -> Float[Tensor, "row width"]:
    """Embeddings of a closed set of rows of a forest, in their order."""
    places = np.zeros(len(forest), dtype=np.int64)
    places[rows] = np.arange(1, len(rows) + 1)
    return net.encoder(net.encoder.blank(len(rows) + 1), forest.levels(rows, places))[1:]


@torch.no_grad()
def node_features(net: AccuracyNet, forest: Forest, rows: np.ndarray) -> tuple[Features, ...]:
    """Features of a closed set of rows, for each outcome."""
    sketch = forest.sketches(rows)
    return tuple(Features(part, sketch) for part in net.features(_embed(net, forest, rows)).double().numpy())


def fit_priors(
    net: AccuracyNet,
    betas: Float[Tensor, "world outcome dimension"],
    blind: Sequence[ScoredTask],
    generator: np.random.Generator,
) -> tuple[Prior, ...]:
    """The prior of each outcome in a new world: from the β of the training worlds, the rest from blind nodes.

    Args:
        net: The trained network.
        betas: From `train`.
        blind: Nodes that the network was not trained on, in the training worlds.
        generator: Picks nodes.
    """
    drawn = betas.double().numpy()
    priors: list[Prior] = []
    for outcome in range(drawn.shape[1]):
        mean = drawn[:, outcome].mean(axis=0)
        centred = drawn[:, outcome] - mean
        covariance = centred.T @ centred / max(len(drawn) - 1, 1)
        diagonal = np.diag(np.maximum(np.diag(covariance), 0.1 * np.diag(covariance).mean()))
        shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * diagonal
        priors.append(Prior(mean, np.linalg.cholesky(shrunk + 1e-9 * np.eye(len(mean)))))
    worlds = _blind_worlds(net, blind, generator)
    return tuple(
        prior.with_kernel(fit_kernel(prior, [(features[outcome], targets[:, outcome]) for features, targets in worlds]))
        for outcome, prior in enumerate(priors)
    )


def _blind_worlds(
    net: AccuracyNet, blind: Sequence[ScoredTask], generator: np.random.Generator, nodes: int = 150, worlds: int = 6
) -> list[tuple[tuple[Features, ...], np.ndarray]]:
    """Features and targets of some blind nodes in some worlds."""
    found: list[tuple[tuple[Features, ...], np.ndarray]] = []
    for task in blind:
        rows = np.unique(np.concatenate(task.closures))
        features = node_features(net, task.forest, rows)
        for world in generator.permutation(task.targets.shape[1])[:worlds]:
            seen = np.flatnonzero(~np.isnan(task.targets[rows, world]).any(axis=1))
            picked = generator.permutation(seen)[:nodes]
            targets = task.targets[rows[picked], world].astype(np.float64)
            found.append((tuple(outcome[picked] for outcome in features), targets))
    return found
