"""Random search: random walks along legal edits. The honest baseline that any search must beat."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from gnncompose.agents.agent import Announces, Proposals, nobody
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.ranges import counts

AHEAD = 64  # compositions that are drawn before they are asked for, where somebody makes use of that


class Random(Announces):
    """Walks from the start along uniformly drawn legal edits, and begins anew after a walk."""

    def __init__(self, walk_length: int = 8) -> None:
        """Set the length of walks.

        Args:
            walk_length: Edits of a walk.

        Raises:
            GnncomposeError: A number is out of its range.
        """
        counts("agent", 1, walk_length=walk_length)
        self.walk_length = walk_length

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield the compositions of one walk after the other; see `Agent.propose`."""
        drawn, next_ones = self._drawn(space, generator), deque[Composition]()
        while True:
            while len(next_ones) < (1 if self.announce is nobody else AHEAD):
                next_ones.append(next(drawn))
            self.announce(next_ones)
            yield next_ones.popleft()

    def _drawn(self, space: Space, generator: np.random.Generator) -> Iterator[Composition]:
        while True:
            composition = space.start
            for _ in range(self.walk_length):
                reachable = space.successors(composition)
                composition = reachable[int(generator.integers(len(reachable)))][1] if reachable else space.start
                yield composition

    def checkpoint(self) -> dict[str, Any] | None:
        """Nothing is learned."""
        return None
