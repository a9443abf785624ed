"""What policy-gradient agents do alike: walk episodes by a policy, and score edits again when they learn."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gnncompose.agents.visited import Visit, Visited
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.encoding import Context, Packed
from gnncompose.evaluation.evaluation import Trial
from gnncompose.policies.checkpoints import Policy
from gnncompose.policies.policy import log_probabilities


class Turn(NamedTuple):
    """One decision of an episode.

    Attributes:
        before: Where it was made.
        allowed: Numbers of the edits among which one was drawn.
        drawn: Place of the drawn one among these.
        log_probability: Of drawing it.
        reward: Improvement that it brought; 0 for `Stop`.
        after: Where it led; `before` for `Stop`.
        terminated: Whether it was `Stop`.
        budget_left: Share of the budget that was left.
    """

    before: Visit
    allowed: list[int]
    drawn: int
    log_probability: float
    reward: float
    after: Visit
    terminated: bool
    budget_left: float


Episode = Generator[Composition, Trial, list[Turn]]


class Rollouts:
    """Walks episodes.

    Attributes:
        visited: What was evaluated, and its graphs.
    """

    def __init__(
        self,
        space: Space,
        budget: int,
        horizon: int,
        restart_probability: float,
        unvisited_only: bool,
        generator: np.random.Generator,
        uses_traits: bool = False,
    ) -> None:
        """Begin with nothing visited.

        Args:
            space: Where to walk.
            budget: Distinct compositions that may be asked for.
            horizon: Edits after which an episode is truncated.
            restart_probability: How often an episode begins at the best composition so far, not at the start.
            unvisited_only: Whether to draw among edits to compositions not evaluated yet, while there are any.
            generator: Source of all randomness.
            uses_traits: Whether graphs hold the traits of operators, not their features.
        """
        self.visited = Visited(space, uses_traits)
        self._budget = budget
        self._horizon = horizon
        self._restart_probability = restart_probability
        self._unvisited_only = unvisited_only
        self._generator = generator

    def episode(self, policy: Policy, start: Visit) -> Episode:
        """Walk one episode; returns its turns."""
        visit = self.visited.best if self._generator.random() < self._restart_probability else start
        turns: list[Turn] = []
        known = len(self.visited.by_id)
        for _ in range(self._horizon):
            allowed = self.visited.unvisited(visit) if self._unvisited_only else []
            allowed = allowed or list(range(len(visit.successors)))
            # An episode that evaluated nothing new does not stop, or a run would end in re-visits.
            allowed += [visit.stop] if len(self.visited.by_id) > known or not allowed else []
            left = 1.0 - len(self.visited.by_id) / self._budget
            with torch.no_grad():
                packed = self.visited.graphs.pack([visit.number], [Context(left, visit.reward)], [allowed])
                logarithms = log_probabilities(policy(packed, self.visited.catalog.operators), packed)
            chances = logarithms.double().exp().numpy()
            drawn = int(self._generator.choice(len(allowed), p=chances / chances.sum()))
            terminated = allowed[drawn] == visit.stop
            after = visit if terminated else self.visited.add((yield visit.successors[allowed[drawn]]))[0]
            reward = after.reward - visit.reward
            turns.append(Turn(visit, allowed, drawn, float(logarithms[drawn]), reward, after, terminated, left))
            if terminated:
                break
            visit = after
        return turns

    def before(self, turns: Sequence[Turn]) -> Packed:
        """Where turns were made, with the edits that were allowed."""
        contexts = [Context(turn.budget_left, turn.before.reward) for turn in turns]
        return self.visited.graphs.pack([t.before.number for t in turns], contexts, [t.allowed for t in turns])

    def after(self, turns: Sequence[Turn]) -> Packed:
        """Where turns led."""
        contexts = [Context(turn.budget_left, turn.after.reward) for turn in turns]
        return self.visited.graphs.pack([t.after.number for t in turns], contexts, [[0]] * len(turns))

    def scored(self, policy: Policy, packed: Packed, turns: Sequence[Turn]) -> tuple[Tensor, Tensor]:
        """Log probability of what was drawn in each turn, and the entropy there, by a policy as it is now.

        Args:
            policy: Scores the edits.
            packed: From `before`, of these turns.
            turns: What was drawn.
        """
        logarithms = log_probabilities(policy(packed, self.visited.catalog.operators), packed)
        ends = np.cumsum([len(turn.allowed) for turn in turns])
        drawn = torch.tensor([end - len(t.allowed) + t.drawn for end, t in zip(ends.tolist(), turns, strict=True)])
        entropy = -torch.zeros(len(turns)).index_add(0, packed.edit_graph, logarithms.exp() * logarithms)
        return logarithms[drawn], entropy
