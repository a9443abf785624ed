"""What policy-gradient agents do alike: walk episodes by a policy, and score edits again when they learn."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gnncompose.agents.evaluations import Evaluations
from gnncompose.agents.restarts import Restarts
from gnncompose.agents.settings import Settings
from gnncompose.agents.visited import Visit, Visited
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.evaluation.evaluation import Trial
from gnncompose.packing import Context, Packed
from gnncompose.policies.checkpoints import Policy
from gnncompose.policies.policy import log_probabilities
from gnncompose.policies.setting_head import share_entropy, share_log_density


class Turn(NamedTuple):
    """One decision of an episode.

    Attributes:
        before: Where it was made.
        allowed: Numbers of the edits among which one was drawn.
        drawn: Place of the drawn one among these.
        share: Where in its range a parameter was set, as it was drawn, before any rounding; None for other edits.
        log_probability: Of drawing the edit, and the share.
        reward: Improvement that it brought; 0 for `Stop`.
        after: Where it led; `before` for `Stop`.
        terminated: Whether it was `Stop`.
        budget_left: Share of the budget that was left.
        known: Compositions that had been evaluated.
    """

    before: Visit
    allowed: list[int]
    drawn: int
    share: float | None
    log_probability: float
    reward: float
    after: Visit
    terminated: bool
    budget_left: float
    known: int


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
        policy: Policy,
    ) -> None:
        """Begin with nothing visited.

        Args:
            space: Where to walk.
            budget: Distinct compositions that may be asked for.
            horizon: Edits after which an episode is truncated.
            restart_probability: How often an episode begins at the best composition so far, not at the start.
            unvisited_only: Whether to draw among edits to compositions not evaluated yet, while there are any.
            generator: Source of all randomness.
            policy: Walks the episodes: says what it is to be told, and whether it sets parameters off the grid.
        """
        self.visited = Visited(space, policy.uses_traits)
        self._evaluations = Evaluations(policy.history)
        self._settings = Settings(space) if policy.continuous else None
        self._budget = budget
        self._horizon = horizon
        self._restarts = Restarts(self.visited, restart_probability, generator)
        self._unvisited_only = unvisited_only
        self._generator = generator

    def take_in(self, trial: Trial) -> Visit:
        """Remember a trial; returns its visit."""
        is_new = trial.composition not in self.visited
        visit, _ = self.visited.add(trial)
        if is_new and self._evaluations.most:
            self._evaluations.add(trial, self.visited.graphs.pack([visit.number], [Context(0.0, 0.0)], [[0]]).x)
        return visit

    def episode(self, policy: Policy, start: Visit) -> Episode:
        """Walk one episode; returns its turns."""
        visit = self._restarts.begin(start)
        turns: list[Turn] = []
        known = len(self.visited.by_id)
        for _ in range(self._horizon):
            allowed = self.visited.unvisited(visit) if self._unvisited_only else []
            allowed = allowed or list(range(len(visit.successors)))
            # An episode that evaluated nothing new does not stop, or a run would end in re-visits.
            evaluated = len(self.visited.by_id)
            allowed += [visit.stop] if evaluated > known or not allowed else []
            left = 1.0 - evaluated / self._budget
            offered = allowed if self._settings is None else self._settings.merged(visit, allowed)
            with torch.no_grad():
                packed = self._packed([visit], [left], [evaluated], [offered])
                judged = policy.judge(packed, self.visited.catalog.operators)
                logarithms = log_probabilities(judged.scores, packed)
            chances = logarithms.double().exp().numpy()
            drawn = int(self._generator.choice(len(offered), p=chances / chances.sum()))
            edit, log_probability, share = offered[drawn], float(logarithms[drawn]), None
            if judged.concentrations is not None and packed.is_setting[drawn]:
                chosen = judged.concentrations[drawn : drawn + 1]
                share = float(self._generator.beta(*chosen[0].tolist()))
                log_probability += float(share_log_density(chosen, torch.tensor([share])))
            terminated = edit == visit.stop
            after = visit if terminated else self.take_in((yield self._target(visit, edit, share, allowed)))
            self._restarts.step()
            reward = after.reward - visit.reward
            turn = Turn(visit, offered, drawn, share, log_probability, reward, after, terminated, left, evaluated)
            turns.append(turn)
            if terminated:
                break
            visit = after
        return turns

    def _target(self, visit: Visit, edit: int, share: float | None, allowed: Sequence[int]) -> Composition:
        """Where an edit leads, which sets a parameter where a share of its range was drawn."""
        if self._settings is None or share is None:
            return visit.successors[edit]
        return self._settings.composition(visit, edit, share, allowed)

    def before(self, turns: Sequence[Turn]) -> Packed:
        """Where turns were made, with the edits that were allowed."""
        left, known = [turn.budget_left for turn in turns], [turn.known for turn in turns]
        return self._packed([turn.before for turn in turns], left, known, [turn.allowed for turn in turns])

    def after(self, turns: Sequence[Turn]) -> Packed:
        """Where turns led."""
        left = [turn.budget_left for turn in turns]
        # Visits are numbered in the order of their evaluations, and where a turn led was evaluated by then.
        known = [max(turn.known, turn.after.number + 1) for turn in turns]
        return self._packed([turn.after for turn in turns], left, known, [[0]] * len(turns))

    def _packed(
        self, visits: Sequence[Visit], left: Sequence[float], known: Sequence[int], edits: Sequence[Sequence[int]]
    ) -> Packed:
        """Visits with some of their edits, such shares of the budget, and what had been evaluated."""
        contexts = [Context(share, visit.reward) for share, visit in zip(left, visits, strict=True)]
        packed = self.visited.graphs.pack([visit.number for visit in visits], contexts, edits)
        packed = packed if self._settings is None else packed.without_values()
        return replace(packed, history=self._evaluations.before(known)) if self._evaluations.most else packed

    def scored(self, policy: Policy, packed: Packed, turns: Sequence[Turn]) -> tuple[Tensor, Tensor]:
        """Log probability of what was drawn in each turn, and the entropy there, by a policy as it is now.

        Where a parameter was set, the density of the share that was drawn is a factor, whatever it was rounded to: this
        is what the policy decided; to round is a matter of the space.

        Args:
            policy: Scores the edits.
            packed: From `before`, of these turns.
            turns: What was drawn.
        """
        judged = policy.judge(packed, self.visited.catalog.operators)
        logarithms = log_probabilities(judged.scores, packed)
        ends = np.cumsum([len(turn.allowed) for turn in turns])
        drawn = torch.tensor([end - len(t.allowed) + t.drawn for end, t in zip(ends.tolist(), turns, strict=True)])
        entropy = -torch.zeros(len(turns)).index_add(0, packed.edit_graph, logarithms.exp() * logarithms)
        chosen = logarithms[drawn]
        if judged.concentrations is not None:
            sets, which = packed.is_setting, [number for number, turn in enumerate(turns) if turn.share is not None]
            spread = logarithms[sets].exp() * share_entropy(judged.concentrations[sets])
            entropy = entropy.index_add(0, packed.edit_graph[sets], spread)
            shares = torch.tensor([turn.share for turn in turns if turn.share is not None])
            density = share_log_density(judged.concentrations[drawn[which]], shares)
            chosen = chosen.index_add(0, torch.tensor(which, dtype=torch.long), density)
        return chosen, entropy
