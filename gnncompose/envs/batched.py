"""Thousands of compositions of a closed space, stepped at once: states are rows, edits are numbers, rewards an array.

Edits and rewards are those of `ComposeEnv` with improvements as rewards; a test walks both side by side. Legal edits
are listed beforehand, so no mask is made.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gnncompose.composition.transitions import Transitions

Array = Any  # of numbers; what an element is, numba knows and a checker does not


class Steps(NamedTuple):
    """One step of every environment; arrays [environments].

    Attributes:
        before: int32: rows that the edits were made on.
        edit: int32: numbers of the edits among those of their rows; the number after the last is `Stop`.
        after: int32: rows that the edits led to; those that were left, for `Stop`.
        reward: float64: by how much the reward rose.
        terminated: bool: whether the edit was `Stop`.
        truncated: bool: whether the horizon was reached by another edit.
    """

    before: np.ndarray
    edit: np.ndarray
    after: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class BatchedEnv:
    """Steps many compositions; an episode that is over begins anew at its start row before the next step.

    Attributes:
        transitions: Edits of the space.
        rewards: float64[rows]: reward of each composition, from a table or a model.
        horizon: Edits after which an episode is truncated.
        rows: int32[environments]: where each stands.
        starts: int32[environments]: where each begins its next episode; whoever learns may set them.
        steps: int32[environments]: edits of each in its episode so far.
    """

    def __init__(
        self, transitions: Transitions, rewards: np.ndarray, start: int, environments: int, horizon: int
    ) -> None:
        """Stand everywhere at the start.

        Args:
            transitions: Edits of the space.
            rewards: float64[rows].
            start: Row where episodes begin.
            environments: How many.
            horizon: Edits after which an episode is truncated.

        Raises:
            ValueError: There is no reward for each row.
        """
        if rewards.shape != (len(transitions.space),):
            raise ValueError(f"rewards have shape {rewards.shape}, not one for each of {len(transitions.space)} rows")
        self.transitions = transitions
        self.rewards = rewards
        self.horizon = horizon
        self.starts = np.full(environments, start, dtype=np.int32)
        self.rows = self.starts.copy()
        self.steps = np.zeros(environments, dtype=np.int32)

    def reset(self) -> np.ndarray:
        """Begin all episodes anew; returns int32[environments], their rows."""
        self.rows[:] = self.starts
        self.steps[:] = 0
        return self.rows

    def edit_counts(self) -> np.ndarray:
        """int64[environments]: legal edits of each but `Stop`, whose number this is."""
        return self.transitions.offsets[self.rows + 1] - self.transitions.offsets[self.rows]

    def step(self, edits: np.ndarray) -> Steps:
        """Make one edit in each environment.

        Args:
            edits: int32[environments]: numbers among those of the rows, the number after the last for `Stop`.

        Raises:
            ValueError: A number is none of an edit; nothing was changed then.
        """
        if np.any((edits < 0) | (edits > self.edit_counts())):
            wrong = int(np.flatnonzero((edits < 0) | (edits > self.edit_counts()))[0])
            raise ValueError(f"environment {wrong} has edits 0 to {self.edit_counts()[wrong]}, not {edits[wrong]}")
        return self._stepped(edits, np.zeros(0))

    def random_step(self, generator: np.random.Generator) -> Steps:
        """Make one edit, drawn uniformly from the legal ones, `Stop` included, in each environment."""
        return self._stepped(np.empty(len(self.rows), dtype=np.int32), generator.random(len(self.rows)))

    def _stepped(self, edits: np.ndarray, drawn: np.ndarray) -> Steps:
        count = len(self.rows)
        steps = Steps(
            before=self.rows.copy(),
            edit=edits,
            after=np.empty(count, dtype=np.int32),
            reward=np.empty(count),
            terminated=np.empty(count, dtype=np.bool_),
            truncated=np.empty(count, dtype=np.bool_),
        )
        here = (self.rows, self.starts, self.steps)
        _step(steps, drawn, here, self.transitions.offsets, self.transitions.target, self.rewards, self.horizon)
        return steps


@njit(cache=True)
def _step(found: Steps, drawn: Array, here: Array, offsets: Array, target: Array, rewards: Array, horizon: int) -> None:
    """Step all; draws the edits where there are numbers from 0 to 1 to draw them by."""
    rows, starts, steps = here
    for number in range(len(rows)):
        row = rows[number]
        first, count = offsets[row], offsets[row + 1] - offsets[row]
        if len(drawn):
            found.edit[number] = int(drawn[number] * (count + 1))
        edit = found.edit[number]
        after = row if edit == count else target[first + edit]
        steps[number] += 1
        found.after[number] = after
        found.reward[number] = rewards[after] - rewards[row]
        found.terminated[number] = edit == count
        found.truncated[number] = edit != count and steps[number] >= horizon
        if edit == count or steps[number] >= horizon:
            rows[number] = starts[number]
            steps[number] = 0
        else:
            rows[number] = after
