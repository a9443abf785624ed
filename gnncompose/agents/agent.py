"""What an agent is, and the loop that lets it spend a budget.

An agent is a generator: it yields the composition that it wants evaluated and is sent the trial. The same
agent thus runs in a search, and behind ask and tell, without knowing which.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.evaluation import STEPS_PER_EVALUATION, AnsweredRows, Budget, BudgetSpent, Foresees, Trial
from gnncompose.ranges import counts

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


@runtime_checkable
class Recalls(Protocol):
    """An agent that makes use of old trials, such as those of the same task in another condition."""

    def recall(self, trials: Sequence[Trial]) -> None:
        """Take old trials, before `propose`; they are believed as far as new ones bear them out.

        Args:
            trials: Their rewards are of the reward function at hand.
        """
        ...


def nobody(compositions: Iterable[Composition]) -> None:
    """Hears of what an agent will ask for, and makes no use of it."""


class Announces:
    """An agent that knows several compositions ahead, and says so to whoever makes use of it.

    Attributes:
        announce: Is told what will likely be asked for next, in order. Whether it makes use of that changes nothing in
            what the agent asks for.
    """

    announce: Callable[[Iterable[Composition]], None] = staticmethod(nobody)


def search(agent: Agent, space: Space, budget: Budget, generator: np.random.Generator) -> Trial:
    """Let an agent spend its budget, the start first; returns the best trial.

    Ends when the budget or its steps are spent, or when the agent has nothing more to ask for.

    Raises:
        GnncomposeError: It is no agent, or asks for something else than compositions.
    """
    kind = type(agent).__name__
    if not isinstance(agent, Agent):
        raise GnncomposeError(f"agent {kind}: has no propose() or no checkpoint(); see docs/your-own-agent.md")
    budget.evaluate(space.start)
    if isinstance(agent, ReadsRows):
        agent.read_rows(budget.answered_rows)
    if isinstance(agent, Announces) and isinstance(budget.evaluator, Foresees):
        agent.announce = budget.foresee
    proposals = agent.propose(space, budget.limit, generator)
    if not isinstance(proposals, Generator):
        raise GnncomposeError(f"agent {kind}: propose() gives a {type(proposals).__name__}, no generator; yield in it")
    try:
        composition = next(proposals)
        while True:
            if not isinstance(composition, Composition):
                raise GnncomposeError(
                    f"agent {kind}: yields a {type(composition).__name__}, no composition; of a successor, which is "
                    f"an edit and where it leads, yield the second"
                )
            composition = proposals.send(budget.evaluate(composition))
    except (StopIteration, BudgetSpent):
        pass
    finally:
        proposals.close()
        if isinstance(agent, Announces):
            agent.announce = nobody
        budget.foresee(())
    return budget.best


class AskTell:
    """An agent for whoever has evaluations to give and decides when: ask what to evaluate, tell what came of it."""

    def __init__(
        self, agent: Agent, space: Space, budget: int, generator: np.random.Generator, old: Sequence[Trial] = ()
    ) -> None:
        """Begin a search.

        Args:
            agent: Who searches.
            space: Where; its start, such as what is deployed, is asked for first.
            budget: Distinct compositions that will be evaluated, the start included.
            generator: Source of all randomness.
            old: Trials of another condition, for agents that recall.

        Raises:
            GnncomposeError: The budget is no whole number from 1 up.
        """
        counts("", 1, budget=budget)
        if isinstance(agent, Recalls):
            agent.recall(old)
        self._proposals = agent.propose(space, budget, generator)
        self._budget = budget
        self._asked: Composition | None = space.start
        self._told: dict[str, Trial] = {}

    def ask(self) -> Composition | None:
        """The composition to evaluate next, until it was told; None where nothing more is to be evaluated."""
        return self._asked

    def tell(self, trial: Trial) -> None:
        """Say what came of what was asked for; the agent is not asked again about what it was told once.

        Raises:
            ValueError: The trial is of something else.
        """
        if self._asked is None or trial.composition != self._asked:
            raise ValueError(f"{trial.composition} was not asked for, but {self._asked}; tell its trial")
        is_first = not self._told
        self._told[trial.composition.id] = trial
        self._asked = self._next(None if is_first else trial)

    def _next(self, answer: Trial | None) -> Composition | None:
        """Answer the agent until it wants something new."""
        if len(self._told) >= self._budget:
            self._proposals.close()
            return None
        try:
            wanted = next(self._proposals) if answer is None else self._proposals.send(answer)
            for _ in range(STEPS_PER_EVALUATION * self._budget):
                if wanted.id not in self._told:
                    return wanted
                wanted = self._proposals.send(self._told[wanted.id])
        except StopIteration:
            pass
        self._proposals.close()
        return None
