"""Regularised evolution: a population in which children replace the oldest, not the worst.

Real, Aggarwal, Huang and Le, Regularized Evolution for Image Classifier Architecture Search (AAAI 2019). Their
population of 100 was meant for 20,000 evaluations; the one here is meant for a few hundred.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from gnncompose.agents.agent import Announces, Proposals
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.errors import GnncomposeError
from gnncompose.ranges import counts


class RegularisedEvolution(Announces):
    """Edits the best of a random sample of the population; every child enters, and the oldest member leaves."""

    def __init__(self, population: int = 16, sample: int = 5, walk_length: int = 8) -> None:
        """Set the sizes.

        Args:
            population: Members.
            sample: Members of which the best becomes a parent.
            walk_length: Edits, at most, of the random walks that the first members come from.

        Raises:
            GnncomposeError: A number is out of its range.
        """
        counts("agent", 1, population=population, sample=sample, walk_length=walk_length)
        if sample > population:
            raise GnncomposeError(f"agent.sample={sample}: is no number up to agent.population={population}; give one")
        self.population = population
        self.sample = sample
        self.walk_length = walk_length

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield the first members, then one child after the other; see `Agent.propose`."""
        members = deque([(yield space.start)], maxlen=self.population)
        first: list[Composition] = []
        for _ in range(min(self.population, budget) - 1):
            edits = int(generator.integers(1, self.walk_length + 1))
            first.append(space.walk(space.start, edits, generator))
        self.announce(first)
        for composition in first:
            members.append((yield composition))
        while True:
            drawn = generator.choice(len(members), size=min(self.sample, len(members)), replace=False)
            parent = max((members[number] for number in drawn), key=lambda trial: trial.reward)
            members.append((yield space.walk(parent.composition, 1, generator)))

    def checkpoint(self) -> dict[str, Any] | None:
        """Nothing is learned."""
        return None
