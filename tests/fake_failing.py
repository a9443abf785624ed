"""FAKE agents that fail: one whose process dies, as if killed for want of memory, and one with a bug."""

import os
import signal

import numpy as np

from gnncompose.agents.agent import Proposals
from gnncompose.agents.local_search import LocalSearch
from gnncompose.agents.random import Random
from gnncompose.composition.space import Space


class Dying(Random):
    """Searches at random, but dies where the generator draws a number below `share` first."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        if generator.random() < self.share:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().propose(space, budget, generator)


class Unchecked(LocalSearch):
    """Takes a perturbation of 0, and fails by it in the midst of a search."""

    def __init__(self, opening: int, improvement: str, perturbation: int, patience: int) -> None:
        super().__init__(opening, improvement, max(perturbation, 1), patience)
        self.perturbation = perturbation
