"""What agents with a surrogate share: the targets that they fit, and the candidates among which they choose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.evaluation.evaluation import Trial

FAR_EDITS = 8
NEAR_EDITS = (2, 3)
FRESH = 16  # walks of a decision; to walk costs much more than to look at a candidate again


class Candidates:
    """Compositions that were not tried: single edits of the best, and walks from the best and from the start."""

    def __init__(self, space: Space, count: int, generator: np.random.Generator) -> None:
        """Begin with none.

        Args:
            space: Where to search.
            count: Candidates of a decision, at most; half of them edits, half the latest walks.
            generator: Source of all randomness.
        """
        self.space = space
        self.count = count
        self.generator = generator
        self._walked: dict[str, Composition] = {}

    def __call__(self, trials: Sequence[Trial], incumbents: int) -> list[Composition]:
        """Distinct candidates; none only where the whole space was tried.

        Args:
            trials: What was tried, the start among it.
            incumbents: Best trials around which to look.
        """
        tried = {trial.composition.id for trial in trials}
        best = [trial.composition for trial in sorted(trials, key=lambda trial: -trial.reward)]
        # All of the space hangs together, so an untried composition, if there is one, is one edit from a tried one.
        near = self._untried_edits(best[:incumbents], tried) or self._untried_edits(best, tried)
        chosen = self.generator.permutation(len(near))[: (self.count + 1) // 2]
        for _ in range(FRESH):
            walked = self._walk(best[:incumbents])
            self._walked[walked.id] = walked
        untried = {key: walked for key, walked in self._walked.items() if key not in tried}
        self._walked = dict(list(untried.items())[-max(self.count // 2, 1) :])
        found = {near[number].id: near[number] for number in chosen} | self._walked
        return list(found.values())

    def _untried_edits(self, compositions: Sequence[Composition], tried: set[str]) -> list[Composition]:
        edited = [successor for composition in compositions for _, successor in self.space.successors(composition)]
        return list({c.id: c for c in edited if c.id not in tried}.values())

    def _walk(self, best: Sequence[Composition]) -> Composition:
        """Where a walk from the start leads, or one of a few edits from one of the best."""
        if self.generator.random() < 0.5:
            return drawn_anywhere(self.space, self.generator)
        near = best[int(self.generator.integers(len(best)))]
        edits = int(self.generator.integers(NEAR_EDITS[0], NEAR_EDITS[1] + 1))
        return self.space.walk(near, edits, self.generator)


def ranked_singles(space: Space) -> list[Composition]:
    """Single models, those with the best score by their profile first."""
    return sorted(space.single_models(), key=lambda single: -(single.root.operator.profile.score or 0.0))


def drawn_anywhere(space: Space, generator: np.random.Generator) -> Composition:
    """A random walk of a few edits from the start."""
    return space.walk(space.start, int(generator.integers(1, FAR_EDITS + 1)), generator)


def standardised(trials: Sequence[Trial]) -> Float[np.ndarray, " trial"]:
    """Rewards with mean 0 and deviation 1; a failure counts as the worst that was measured."""
    worst = min((trial.reward for trial in trials if trial.failure is None), default=0.0)
    rewards = np.array([worst if trial.failure else trial.reward for trial in trials])
    return (rewards - rewards.mean()) / max(float(rewards.std()), 1e-9)
