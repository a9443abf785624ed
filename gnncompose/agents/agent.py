"""What an agent is, and the loop that lets it spend a budget.

An agent is a generator: it yields the composition that it wants evaluated and is sent the trial. The same
agent thus runs in a search, and behind ask and tell, without knowing which.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.evaluation.evaluation import AnsweredRows, Budget, BudgetSpent, Trial

Proposals = Generator[Composition, Trial, None]


@runtime_checkable
class Agent(Protocol):
    """A learner or searcher that spends a budget."""

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield compositions of the space; each `yield` returns its trial.

        The caller ends the generator when the budget is spent; the start has been charged before the first
        `yield`, so asking for it is free.

        Args:
            space: Where to search.
            budget: Distinct compositions that may be asked for, the start included.
            generator: Source of all randomness.
        """
        ...

    def checkpoint(self) -> dict[str, Any] | None:
        """What was learned, as plain data and tensors; None where nothing was."""
        ...


@runtime_checkable
class ReadsRows(Protocol):
    """An agent that also reads what its compositions answered row by row, where the evaluator tells that."""

    def read_rows(self, answered_rows: Callable[[Composition], AnsweredRows | None]) -> None:
        """Take what gives the row-level answers of a composition that was measured, or None; before `propose`."""
        ...


def search(agent: Agent, space: Space, budget: Budget, generator: np.random.Generator) -> Trial:
    """Let an agent spend its budget, the start first; returns the best trial.

    Ends when the budget or its steps are spent, or when the agent has nothing more to ask for.
    """
    budget.evaluate(space.start)
    if isinstance(agent, ReadsRows):
        agent.read_rows(budget.answered_rows)
    proposals = agent.propose(space, budget.limit, generator)
    try:
        composition = next(proposals)
        while True:
            composition = proposals.send(budget.evaluate(composition))
    except (StopIteration, BudgetSpent):
        pass
    finally:
        proposals.close()
    return budget.best
