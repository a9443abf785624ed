"""Simulated annealing: a walk along random edits that accepts losses ever more rarely.

Kirkpatrick, Gelatt and Vecchi, Optimization by Simulated Annealing (Science 220, 1983).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gnncompose.agents.agent import Proposals
from gnncompose.composition.space import Space
from gnncompose.errors import GnncomposeError
from gnncompose.ranges import above_zero


class SimulatedAnnealing:
    """Takes an edit that loses Δ with probability exp(−Δ / T); T falls geometrically as the budget is spent."""

    def __init__(self, start: float = 0.1, end: float = 0.002) -> None:
        """Set the temperatures.

        Args:
            start: Temperature at the beginning, in the unit of rewards.
            end: Temperature when the budget is spent.

        Raises:
            GnncomposeError: A number is out of its range.
        """
        above_zero("agent", start=start, end=end)
        if end > start:
            raise GnncomposeError(f"agent.end={end}: is no temperature up to agent.start={start}; give one")
        self.start = start
        self.end = end

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield what the walk looks at; see `Agent.propose`."""
        here = yield space.start
        seen = {here.composition.id}
        while True:
            there = yield space.walk(here.composition, 1, generator)
            seen.add(there.composition.id)
            temperature = self.start * (self.end / self.start) ** min(len(seen) / budget, 1.0)
            if generator.random() < np.exp(min(there.reward - here.reward, 0.0) / temperature):
                here = there

    def checkpoint(self) -> dict[str, Any] | None:
        """Nothing is learned."""
        return None
