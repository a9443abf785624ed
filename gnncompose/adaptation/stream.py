"""Streams of rows whose state changes: at once, little by little, back and forth, or row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from gnncompose.adaptation.circumstances import USUAL, Circumstances
from gnncompose.composition.tree import Composition
from gnncompose.errors import TaskError
from gnncompose.ranges import counts
from gnncompose.tasks.task import Scenario, Task

Turns = tuple[tuple[int, Circumstances], ...]


@dataclass(frozen=True, eq=False)
class Stream:
    """Rows in the order in which they come.

    Attributes:
        conditions: Names of the states that rows can be in.
        state: int64[rows]: number of the state that each row is in.
        row: int64[rows]: which row of that state's split it is.
        shares: float64[rows, state]: how likely each state was; what compositions are judged by.
        changes: Numbers of the rows at which something begins to change.
        turns: Circumstances, and the row from which they hold; the first from row 0.
    """

    conditions: tuple[str, ...]
    state: Int[np.ndarray, " row"]
    row: Int[np.ndarray, " row"]
    shares: Float[np.ndarray, "row state"]
    changes: tuple[int, ...]
    turns: Turns = ((0, USUAL),)

    def __len__(self) -> int:
        return len(self.state)

    def places(self, rows: Int[np.ndarray, " row"]) -> list[tuple[str, int]]:
        """The state of each of some rows, and which row of its split it is."""
        return [(self.conditions[self.state[row]], int(self.row[row])) for row in rows]

    def around(self, row: int) -> Circumstances:
        """The circumstances of a row."""
        return [around for first, around in self.turns if first <= row][-1]


class Change(Protocol):
    """How worlds follow one another: states of the data, and circumstances."""

    def scenario(self, given: Scenario) -> Scenario:
        """What comes, of a scenario of the task."""
        ...

    def shares(self, scenario: Scenario) -> tuple[Float[np.ndarray, "row state"], tuple[int, ...]]:
        """How likely each of the scenario's states is at each row, as `states_of` has them, and where that changes."""
        ...

    def circumstances(self, scenario: Scenario, best: Composition, service_ms: float) -> Turns:
        """Which circumstances hold from which row on.

        Args:
            scenario: What comes.
            best: The best composition in its first state, under usual circumstances.
            service_ms: How long that one takes for a row.
        """
        ...


class DataChange:
    """The data change; all around them stays."""

    def scenario(self, given: Scenario) -> Scenario:
        """See `Change.scenario`: all of it."""
        return given

    def circumstances(self, scenario: Scenario, best: Composition, service_ms: float) -> Turns:
        """See `Change.circumstances`: none."""
        return ((0, USUAL),)


def states_of(scenario: Scenario) -> tuple[str, ...]:
    """The conditions of a scenario, each once."""
    return tuple(dict.fromkeys(step.condition for step in scenario.steps))


def stream_of(
    task: Task,
    scenario: Scenario,
    change: Change,
    split: str,
    generator: np.random.Generator,
    turns: Turns = ((0, USUAL),),
) -> Stream:
    """Draw a stream: each row's state, and a row of that state's split with replacement.

    Args:
        task: Has the data.
        scenario: Which conditions, for how many rows.
        change: How they follow one another.
        split: Of the data.
        generator: Source of all randomness.
        turns: Circumstances, and the row from which they hold.

    Raises:
        TaskError: The task lacks a condition.
    """
    shares, changes = change.shares(scenario)
    names = states_of(scenario)
    state = (generator.random((len(shares), 1)) > np.cumsum(shares, axis=1)[:, :-1]).sum(axis=1)
    counts = np.array([len(task.split(name, split).y) for name in names])
    changes = tuple(sorted({*changes, *(row for row, _ in turns[1:])}))
    return Stream(names, state, generator.integers(counts[state]), shares, changes, turns)


def _steps(scenario: Scenario) -> tuple[Float[np.ndarray, "row state"], tuple[int, ...]]:
    """One state at a time."""
    names = states_of(scenario)
    state = np.repeat([names.index(step.condition) for step in scenario.steps], [step.rows for step in scenario.steps])
    return np.eye(len(names))[state], tuple(np.cumsum([step.rows for step in scenario.steps])[:-1].tolist())


@dataclass(frozen=True)
class Sudden(DataChange):
    """Each state gives way to the next one at once, as the scenario has it."""

    def shares(self, scenario: Scenario) -> tuple[Float[np.ndarray, "row state"], tuple[int, ...]]:
        """See `Change.shares`."""
        return _steps(scenario)


@dataclass(frozen=True)
class Gradual(DataChange):
    """Each state gives way to the next one over some rows, of which ever more are in the new state.

    Attributes:
        over: How many rows.
    """

    over: int = 400

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where it is no whole number from 1 up."""
        counts("change", 1, over=self.over)

    def shares(self, scenario: Scenario) -> tuple[Float[np.ndarray, "row state"], tuple[int, ...]]:
        """See `Change.shares`."""
        shares, changes = _steps(scenario)
        found = shares.copy()
        for first in changes:
            rows = np.arange(first, min(first + self.over, len(shares)))
            new = ((rows - first + 1) / self.over)[:, None]
            found[rows] = (1.0 - new) * shares[first - 1] + new * shares[rows]
        return found, changes


@dataclass(frozen=True)
class Recurring(DataChange):
    """The scenario's first two states, in turn.

    Attributes:
        turns: Stretches in all.
    """

    turns: int = 6

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where it is no whole number from 2 up."""
        counts("change", 2, turns=self.turns)

    def shares(self, scenario: Scenario) -> tuple[Float[np.ndarray, "row state"], tuple[int, ...]]:
        """See `Change.shares`.

        Raises:
            TaskError: There is but one state.
        """
        if len(states_of(scenario)) < 2:
            raise TaskError(f'scenario "{scenario.name}" has one state only; nothing can recur in it')
        first, second = states_of(scenario)[:2]
        step = scenario.steps[0]
        names = [first if turn % 2 == 0 else second for turn in range(self.turns)]
        shares, changes = _steps(Scenario.of(scenario.name, step.rows, names))
        padded = np.zeros((len(shares), len(states_of(scenario))))
        padded[:, : shares.shape[1]] = shares
        return padded, changes


@dataclass(frozen=True)
class Mixed(DataChange):
    """After the first state, every row is in any of the scenario's states, all equally likely."""

    def shares(self, scenario: Scenario) -> tuple[Float[np.ndarray, "row state"], tuple[int, ...]]:
        """See `Change.shares`."""
        shares, changes = _steps(scenario)
        shares[changes[0] :] = 1.0 / shares.shape[1]
        return shares, changes[:1]


def scenario_of(task: Task, name: str | None) -> Scenario:
    """A scenario of a task: the one of that name, or its first.

    Raises:
        TaskError: There is none.
    """
    if name is None:
        names: Sequence[str] = tuple(task.scenarios)
        if not names:
            raise TaskError(f'task "{task.name}" has no scenario; add one under scenarios in task.yaml')
        return task.scenarios[names[0]]
    return task.scenario(name)
