"""Tabular Q-learning (Watkins 1989): a value for every edit of every composition, learned by walking.

Nothing carries over from one composition to another, so it needs many visits; it is the reference for learners
that generalise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gnncompose.agents.agent import Proposals
from gnncompose.agents.exploration import Exploration
from gnncompose.composition.edits import Edit, Stop
from gnncompose.composition.space import Space
from gnncompose.ranges import above_zero, counts, shares


class QLearning:
    """Q(s, a) ← Q(s, a) + α · (r + γ · max Q(s′, ·) − Q(s, a)); s is a composition, a is an edit."""

    def __init__(
        self, exploration: Exploration, learning_rate: float = 0.5, gamma: float = 0.9, horizon: int = 8
    ) -> None:
        """Set how to learn.

        Args:
            exploration: How to stray from the best edit.
            learning_rate: Share of the error by which a value is corrected (α).
            gamma: Discount of a step.
            horizon: Edits after which an episode is truncated.

        Raises:
            GnncomposeError: A number is out of its range.
        """
        counts("agent", 1, horizon=horizon)
        above_zero("agent", learning_rate=learning_rate)
        shares("agent", gamma=gamma)
        self.exploration = exploration
        self.learning_rate = learning_rate
        self.gamma = gamma
        self.horizon = horizon
        self._table: dict[str, dict[str, float]] | None = None

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield the compositions of one episode after the other; see `Agent.propose`."""
        table: dict[str, dict[Edit, float]] = {}
        self._table = shown = {}
        start = yield space.start
        visited = {space.start.id}
        while space.successors(space.start):
            composition, reward = start.composition, start.reward
            for step in range(self.horizon):
                reachable = dict(space.successors(composition))
                values = table.setdefault(composition.id, {**dict.fromkeys(reachable, 0.0), Stop(): 0.0})
                # An episode whose first edit is Stop would spend nothing and learn nothing, for ever.
                edits = [edit for edit in values if step > 0 or not isinstance(edit, Stop)]
                worth = np.array([values[edit] for edit in edits])
                # The table is the plain one of the specification: it counts no novelty.
                chosen = self.exploration.choose(worth, len(visited) / budget, generator, np.zeros(len(edits)))
                edit = edits[chosen]
                if isinstance(edit, Stop):
                    break  # worth 0, which its value was from the beginning
                trial = yield reachable[edit]
                visited.add(trial.composition.id)
                future = max(table.get(trial.composition.id, {}).values(), default=0.0)
                error = trial.reward - reward + self.gamma * future - values[edit]
                values[edit] += self.learning_rate * error
                shown.setdefault(composition.id, {})[str(edit)] = values[edit]
                composition, reward = trial.composition, trial.reward

    def checkpoint(self) -> dict[str, Any] | None:
        """The values of edits by composition id; None before the first run."""
        return None if self._table is None else {"format": 1, "values": self._table}
