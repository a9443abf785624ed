"""What is believed of the behaviour of one world's compositions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gnncompose.composition.tree import Composition, Node
from gnncompose.evaluation.cost_model.accuracy import AccuracyNet
from gnncompose.evaluation.cost_model.behaviour import OUTCOMES
from gnncompose.evaluation.cost_model.forest import INPUT_ROW, Forest
from gnncompose.evaluation.cost_model.gaussian import HALF_TRUSTING, UNTRUSTING, Features, Mixture, Prior
from gnncompose.evaluation.cost_model.growing import GrowingArray

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
        self._embedded = [GrowingArray((net.encoder.width,), np.float32) for net in self._nets]
        self._learned = [GrowingArray((OUTCOMES, net.dimension)) for net in self._nets]
        for net, embedded, learned in zip(self._nets, self._embedded, self._learned, strict=True):
            embedded.append(net.encoder.blank(1).detach().numpy())
            learned.append(np.zeros((1, OUTCOMES, net.dimension)))
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
            features
            for learned in self._learned
            for features in [Features(learned.rows[rows, outcome], sketch)] * kernels
        ]

    @torch.no_grad()
    def _embed_new(self) -> None:
        known, count = len(self._embedded[0]), len(self.forest)
        if known == count:
            return
        # the encoder gets room for what the new nodes use, and for themselves, but not for the whole forest
        used = {row for row in self.forest.inputs(range(known, count)) if row < known} - {INPUT_ROW}
        around = np.array([INPUT_ROW, *sorted(used), *range(known, count)])
        places = np.zeros(count, dtype=np.int64)
        places[around] = np.arange(len(around))
        levels = self.forest.levels(np.arange(known, count), places)
        fresh = count - known
        for net, embedded, learned in zip(self._nets, self._embedded, self._learned, strict=True):
            given = np.zeros((len(around), net.encoder.width), dtype=np.float32)
            given[:-fresh] = embedded.rows[around[:-fresh]]
            found = net.encoder(torch.from_numpy(given), levels)[-fresh:]
            embedded.append(found.numpy())
            learned.append(net.features(found).double().numpy().transpose(1, 0, 2))
