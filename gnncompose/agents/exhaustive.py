"""Exhaustive search: every composition of the space, nearest to the start first. For small spaces."""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import Any

import numpy as np

from gnncompose.agents.agent import Announces, Proposals
from gnncompose.composition.space import Space


class Exhaustive(Announces):
    """Visits the space breadth-first.

    Attributes:
        finished: Whether the latest run visited the whole space, so that its best is the optimum; None
            before the first run.
    """

    def __init__(self) -> None:
        self.finished: bool | None = None

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield every composition once; ends by itself where the budget covers the space."""
        self.finished = False
        seen = {space.start.id}
        queue = deque([space.start])
        while queue:
            composition = queue.popleft()
            self.announce(chain([composition], queue))
            yield composition
            for _, successor in space.successors(composition):
                if successor.id not in seen:
                    seen.add(successor.id)
                    queue.append(successor)
        self.finished = True

    def checkpoint(self) -> dict[str, Any] | None:
        """Nothing is learned."""
        return None
