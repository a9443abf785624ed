"""A FAKE agent whose process dies, as one does that the system kills for want of memory."""

import os
import signal

import numpy as np

from gnncompose.agents.agent import Proposals
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
