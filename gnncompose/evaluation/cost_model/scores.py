"""What is believed of the behaviour of one world's compositions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gnncompose.composition.tree import Composition, Node
from gnncompose.evaluation.cost_model.accuracy import AccuracyNet
from gnncompose.evaluation.cost_model.behaviour import OUTCOMES
from gnncompose.evaluation.cost_model.forest import Forest
from gnncompose.evaluation.cost_model.gaussian import HALF_TRUSTING, UNTRUSTING, Features, Mixture, Prior

Expressions = Sequence[Node]


Member = tuple[AccuracyNet, tuple[Prior, ...]]


def mixture_of(members: Sequence[Member], outcome: int) -> Mixture:
    """Processes of an outcome: of each network one as it was fitted, and others for catalogs unlike those it saw."""
    return Mixture(
        [
            prior.with_kernel(kernel)
            for prior in (priors[outcome] for _, priors in members)
            for kernel in (prior.kernel, HALF_TRUSTING, UNTRUSTING)
        ]
    )


class ScoreBelief:
    """Processes of every network and kernel, and the embeddings that they read, each computed once."""

    def __init__(self, members: Sequence[Member]) -> None:
        """Begin with the prior.

        Args:
            members: Networks, each with the prior of every outcome.
        """
        self.forest = Forest()
        self._nets = [net for net, _ in members]
        self._embedded: list[Tensor] = [net.encoder.blank(1).detach() for net in self._nets]
        self._learned: list[np.ndarray] = [np.zeros((OUTCOMES, 1, net.dimension)) for net in self._nets]
        self._mixtures = [mixture_of(members, outcome) for outcome in range(OUTCOMES)]
        self._observed: list[set[int]] = [set() for _ in range(OUTCOMES)]

    def observe(self, outcome: int, nodes: Expressions, targets: Sequence[float]) -> None:
        """Take in linked outcomes of nodes; those that were seen before are left out.

        Args:
            outcome: Its number in `behaviour`.
            nodes: Whose.
            targets: The linked outcome of each.
        """
        rows = self._rows(nodes)
        fresh = {row: target for row, target in zip(rows, targets, strict=True) if row not in self._observed[outcome]}
        if fresh:
            self._observed[outcome].update(fresh)
            self._mixtures[outcome].observe(self._features(outcome, list(fresh)), np.array(list(fresh.values())))

    def predict(self, outcome: int, nodes: Expressions) -> tuple[np.ndarray, np.ndarray]:
        """float64[nodes] twice: mean and variance on the linked scale."""
        if not nodes:
            return np.empty(0), np.empty(0)
        return self._mixtures[outcome].predict(self._features(outcome, self._rows(nodes)))

    def sample(self, outcome: int, nodes: Expressions, generator: np.random.Generator, draws: int) -> np.ndarray:
        """float64[draws, nodes]: joint draws on the linked scale."""
        if not nodes:
            return np.empty((draws, 0))
        return self._mixtures[outcome].sample(self._features(outcome, self._rows(nodes)), generator, draws)

    def _rows(self, nodes: Expressions) -> list[int]:
        self.forest.add(Composition(node) for node in nodes)
        return [self.forest.rows[node.id] for node in nodes]

    def _features(self, outcome: int, rows: list[int]) -> list[Features]:
        """Of some rows, for every part of the mixture."""
        self._embed_new()
        sketch = self.forest.sketches(rows)
        kernels = len(self._mixtures[outcome].parts) // len(self._nets)
        return [
            features for learned in self._learned for features in [Features(learned[outcome, rows], sketch)] * kernels
        ]

    @torch.no_grad()
    def _embed_new(self) -> None:
        known, count = len(self._embedded[0]), len(self.forest)
        if known == count:
            return
        levels = self.forest.levels(np.arange(known, count))
        for number, net in enumerate(self._nets):
            grown = torch.cat([self._embedded[number], torch.zeros(count - known, net.encoder.width)])
            grown = net.encoder(grown, levels)
            features = net.features(grown[known:]).double().numpy()
            self._embedded[number] = grown
            self._learned[number] = np.concatenate([self._learned[number], features], axis=1)
