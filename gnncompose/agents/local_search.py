"""Iterated local search: climb along edits to a local optimum, shake it, climb again.

Lourenço, Martin and Stützle, Iterated Local Search, Handbook of Metaheuristics (2003).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal

import numpy as np

from gnncompose.agents.agent import Announces, Proposals
from gnncompose.agents.candidates import ranked_singles
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.evaluation.evaluation import Trial
from gnncompose.ranges import counts, one_of

Climb = Generator[Composition, Trial, tuple[Composition, float]]


class LocalSearch(Announces):
    """Hill climbing over the successors in random order, restarted from a shaken incumbent."""

    def __init__(
        self,
        opening: int = 0,
        improvement: Literal["first", "best"] = "first",
        perturbation: int = 2,
        patience: int | None = 40,
    ) -> None:
        """Set how to climb and how to go on from a local optimum.

        Args:
            opening: Single models that are evaluated first, those with the best profile; the first climb begins at the
                best.
            improvement: Move to the first better successor found, or look at all and take the best.
            perturbation: Random edits that shake an incumbent.
            patience: Successors tried in vain after which a place counts as a local optimum; None for all.

        Raises:
            GnncomposeError: A number is out of its range.
        """
        counts("agent", 0, opening=opening)
        counts("agent", 1, perturbation=perturbation, patience=patience)
        one_of("agent", ("first", "best"), improvement=improvement)
        self.opening = opening
        self.improvement = improvement
        self.perturbation = perturbation
        self.patience = patience

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield what each climb looks at; see `Agent.propose`."""
        trial = yield space.start
        opening = ranked_singles(space)[: self.opening]
        self.announce(opening)
        for single in opening:
            trial = max(trial, (yield single), key=lambda tried: tried.reward)
        incumbent, value = yield from self._climb(space, trial.composition, trial.reward, generator)
        while True:
            shaken = incumbent
            for _ in range(int(generator.integers(1, self.perturbation + 1))):
                reachable = space.successors(shaken)
                if reachable:
                    shaken = reachable[int(generator.integers(len(reachable)))][1]
            trial = yield shaken
            reached, reward = yield from self._climb(space, shaken, trial.reward, generator)
            if reward >= value:
                incumbent, value = reached, reward

    def _climb(self, space: Space, composition: Composition, reward: float, generator: np.random.Generator) -> Climb:
        """Climb to a local optimum; returns it with its reward."""
        while True:
            best: tuple[Composition, float] | None = None
            reachable = space.successors(composition)
            numbers = generator.permutation(len(reachable))[: self.patience]
            self.announce(reachable[number][1] for number in numbers)
            for number in numbers:
                trial = yield (successor := reachable[number][1])
                if trial.reward > (best[1] if best else reward):
                    best = successor, trial.reward
                    if self.improvement == "first":
                        break
            if best is None:
                return composition, reward
            composition, reward = best

    def checkpoint(self) -> dict[str, Any] | None:
        """Nothing is learned."""
        return None
