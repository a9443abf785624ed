"""The best composition of a space, where an evaluator knows all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from gnncompose.evaluation.evaluation import Evaluation, Evaluator


@runtime_checkable
class Complete(Protocol):
    """An evaluator that knows every composition of the space, hence the best one."""

    def optimum(self, reward: Callable[[Evaluation], float]) -> float:
        """The largest of these rewards."""
        ...


def known_optimum(evaluator: Evaluator, reward: Callable[[Evaluation], float]) -> float | None:
    """Reward of the best composition of the space; None where the evaluator does not know it."""
    return evaluator.optimum(reward) if isinstance(evaluator, Complete) else None
