"""Turns a loop that asks for evaluations inside out, so that it becomes an agent that yields compositions.

A library's training loop steps an environment, which calls an evaluator; an agent yields and is sent trials. The loop
runs in a thread of its own, and only one of the two ever runs: one waits while the other works, so nothing depends on
the scheduler.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import replace
from queue import SimpleQueue

from gnncompose.agents.peers.randomness import OwnGlobals
from gnncompose.composition.tree import Composition
from gnncompose.errors import EvaluationError
from gnncompose.evaluation.evaluation import Evaluation, Trial
from gnncompose.tasks.task import Task, World


class Ended(Exception):  # noqa: N818 - a signal like StopIteration, no mistake
    """Whoever sent the trials sends no more."""


class AskingEvaluator:
    """An evaluator whose evaluations the agent's caller gives, and so charges to the one budget."""

    name = "asking"

    def __init__(self) -> None:
        self.world = World()  # of no meaning here: the caller's evaluator knows the true one
        self.asked: SimpleQueue[Composition | None] = SimpleQueue()
        self.trials: SimpleQueue[Trial | None] = SimpleQueue()
        self._rewards: dict[str, float] = {}

    @property
    def task(self) -> Task:
        """Never asked for: the loop is given its space beside this."""
        raise AssertionError("the caller's evaluator knows the task")

    @property
    def real(self) -> AskingEvaluator:
        """Itself: it stands for whatever the caller uses."""
        return self

    def charge(self, composition: Composition) -> int:
        """One to an episode's own budget; the caller charges what is due."""
        return 1

    def evaluate(self, composition: Composition, split: str = "validation") -> Evaluation:
        """Ask, and wait for the trial.

        Raises:
            EvaluationError: The evaluation failed.
            Ended: There will be no more trials.
        """
        self.asked.put(composition)
        trial = self.trials.get()
        if trial is None:
            raise Ended
        if trial.evaluation is None:
            raise EvaluationError(trial.failure or "it failed")
        self._rewards[composition.id] = trial.reward
        return replace(trial.evaluation, measurements=1)

    def reward(self, evaluation: Evaluation) -> float:
        """The reward that came with an evaluation."""
        return self._rewards[evaluation.composition_id]


def inverted(loop: Callable[[AskingEvaluator], None], seed: int) -> Generator[Composition, Trial, None]:
    """Yield what a loop asks its evaluator for; ends when the loop does.

    Args:
        loop: Calls the evaluator that it is given, and may use the global random states, which are its own.
        seed: Of these.
    """
    evaluator, own, problems = AskingEvaluator(), OwnGlobals(seed), list[BaseException]()

    def run() -> None:
        try:
            loop(evaluator)
        except Ended:
            pass
        except BaseException as problem:  # raised again in the thread that waits
            problems.append(problem)
        finally:
            evaluator.asked.put(None)

    thread = threading.Thread(target=run, daemon=True)
    trial: Trial | None = None
    try:
        while True:
            with own:  # the loop runs while this thread waits
                if trial is None:
                    thread.start()
                else:
                    evaluator.trials.put(trial)
                composition = evaluator.asked.get()
            if composition is None:
                break
            trial = yield composition
    finally:
        with own:
            evaluator.trials.put(None)
            thread.join()
    if problems:
        raise problems[0]
