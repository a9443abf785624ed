"""Where learners begin their episodes."""

from __future__ import annotations

import numpy as np

from gnncompose.agents.visited import Visit, Visited
from gnncompose.evaluation.evaluation import STEPS_PER_EVALUATION

FRUITLESS_STEPS = STEPS_PER_EVALUATION // 2


class Restarts:
    """Begins an episode at the best composition so far, or at the start.

    A policy that has settled walks among what it knows, whose neighbours are all evaluated, and would spend the
    steps that a budget allows without its evaluations. After `FRUITLESS_STEPS` in a row that evaluated nothing,
    an episode begins at the best composition that still has a neighbour to evaluate.
    """

    def __init__(self, visited: Visited, probability: float, generator: np.random.Generator) -> None:
        """Begin with no episode.

        Args:
            visited: Grows as the run goes on.
            probability: How often an episode begins at the best composition so far.
            generator: Source of randomness.
        """
        self._visited = visited
        self._probability = probability
        self._generator = generator
        self._steps = 0
        self._evaluated = 0

    def begin(self, start: Visit) -> Visit:
        """Where the next episode begins."""
        at_best = self._generator.random() < self._probability
        if self._steps >= FRUITLESS_STEPS:
            return self._visited.frontier
        return self._visited.best if at_best else start

    def step(self) -> None:
        """Count a step, whose visit is known by now."""
        evaluated = len(self._visited.by_id)
        self._steps = 0 if evaluated > self._evaluated else self._steps + 1
        self._evaluated = evaluated
