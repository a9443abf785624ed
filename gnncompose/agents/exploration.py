"""How a learner strays from the edit that it thinks best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

Values = Float[np.ndarray, " edit"]


@runtime_checkable
class Exploration(Protocol):
    """Chooses among valued edits."""

    def choose(self, values: Values, progress: float, generator: np.random.Generator, novelty: Values) -> int:
        """Number of the chosen edit.

        Args:
            values: What each edit is thought to be worth.
            progress: Share of the budget that is spent, 0 to 1.
            generator: Source of randomness.
            novelty: How new what each edit leads to would be; all equal where nobody counts.
        """
        ...


def _annealed(start: float, end: float, share: float, progress: float) -> float:
    """Linear from `start` to `end` over the first `share` of the run."""
    return end + (start - end) * max(0.0, 1.0 - progress / share) if share > 0 else end


def greedy(values: Values, generator: np.random.Generator) -> int:
    """Number of the best edit; ties are drawn."""
    return int(generator.choice(np.flatnonzero(values == values.max())))


@dataclass(frozen=True)
class EpsilonGreedy:
    """Takes the newest with probability epsilon, else the best; ties are drawn, so without counts it is uniform.

    Attributes:
        start: Epsilon at the beginning.
        end: Epsilon from `share` of the budget on.
        share: Share of the budget over which epsilon falls linearly.
    """

    start: float = 1.0
    end: float = 0.05
    share: float = 0.5

    def choose(self, values: Values, progress: float, generator: np.random.Generator, novelty: Values) -> int:
        """See `Exploration.choose`."""
        if generator.random() < _annealed(self.start, self.end, self.share, progress):
            return greedy(novelty, generator)
        return greedy(values, generator)


@dataclass(frozen=True)
class Softmax:
    """Draws edits with probability proportional to exp(value / temperature).

    Attributes:
        start: Temperature at the beginning, in the unit of rewards.
        end: Temperature from `share` of the budget on.
        share: Share of the budget over which the temperature falls linearly.
    """

    start: float = 0.2
    end: float = 0.01
    share: float = 0.5

    def choose(self, values: Values, progress: float, generator: np.random.Generator, novelty: Values) -> int:
        """See `Exploration.choose`."""
        temperature = _annealed(self.start, self.end, self.share, progress)
        if temperature <= 0:
            return greedy(values, generator)
        weights = np.exp((values - values.max()) / temperature)
        return int(generator.choice(len(values), p=weights / weights.sum()))
