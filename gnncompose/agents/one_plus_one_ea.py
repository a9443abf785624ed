"""The (1+1) evolutionary algorithm: one parent, one child, the better of the two stays.

Droste, Jansen and Wegener, On the analysis of the (1+1) evolutionary algorithm (Theoretical Computer Science 276,
2002). Flipping each of n bits with probability 1/n makes about Poisson(1) changes; here these are edits, one more
than a Poisson number since a child equal to its parent teaches nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gnncompose.agents.agent import Proposals
from gnncompose.composition.space import Space
from gnncompose.ranges import at_least


class OnePlusOneEA:
    """Makes a random number of random edits, and goes there where it is no worse."""

    def __init__(self, further_edits: float = 1.0) -> None:
        """Set how far a child lies from its parent.

        Args:
            further_edits: Mean of the Poisson number of edits beyond the first.

        Raises:
            GnncomposeError: A number is out of its range.
        """
        at_least("agent", 0, further_edits=further_edits)
        self.further_edits = further_edits

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield one child after the other; see `Agent.propose`."""
        parent = yield space.start
        while True:
            edits = 1 + int(generator.poisson(self.further_edits))
            trial = yield space.walk(parent.composition, edits, generator)
            if trial.reward >= parent.reward:
                parent = trial

    def checkpoint(self) -> dict[str, Any] | None:
        """Nothing is learned."""
        return None
