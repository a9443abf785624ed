"""Evaluations that are predicted; a few real ones calibrate the model beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from gnncompose.composition.tree import Composition
from gnncompose.errors import EvaluationError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.cost_model.artifact import load
from gnncompose.evaluation.cost_model.model import CostModel
from gnncompose.evaluation.cost_model.outcomes import Outcomes
from gnncompose.evaluation.cost_model.sampling import ShapedSampler
from gnncompose.evaluation.evaluation import Evaluation, Evaluator
from gnncompose.tasks.task import Task, World

EvaluatorFactory = Callable[[Task, World, Prices], Evaluator]
MOST_CALIBRATION = 10
POOL = 100
POOL_SEED = 20260103


@runtime_checkable
class Rowwise(Protocol):
    """An evaluator that tells what nodes answered on every row."""

    def outcomes(self, composition: Composition, split: str = "validation") -> Outcomes:
        """Row-level answers of the nodes of a composition that was evaluated."""
        ...


class CostModelEvaluator:
    """Predicts; the first evaluation really measures a few compositions, which the budget is charged.

    Attributes:
        name: What evaluations say they came from.
        world: In which world.
        model: Predicts, and knows what was measured.
    """

    name = "cost_model"

    def __init__(
        self,
        task: Task,
        world: World,
        prices: Prices,
        *,
        inner: EvaluatorFactory,
        artifact: str | None = None,
        calibration: int = MOST_CALIBRATION,
    ) -> None:
        """Prepare; nothing is run yet.

        Args:
            task: Whose compositions are evaluated.
            world: In which world.
            prices: Turns resource use into money.
            inner: Makes the evaluator that really runs.
            artifact: File of the fitted model; None for the one that comes with the package.
            calibration: Compositions that are really measured first, at most 10; 0 for none.

        Raises:
            EvaluationError: The file, the resource or the load is not usable, or more calibration is asked for.
        """
        if not 0 <= calibration <= MOST_CALIBRATION:
            raise EvaluationError(
                f"calibration={calibration}: is no whole number from 0 to {MOST_CALIBRATION}; give one"
            )
        self.world = world
        self.model = CostModel(task, world, prices, load(artifact))
        self._real = inner(task, world, prices)
        self._left = calibration

    @property
    def task(self) -> Task:
        """Whose compositions it evaluates."""
        return self.model.task

    @property
    def real(self) -> Evaluator:
        """The evaluator that really runs compositions."""
        return self._real

    def charge(self, composition: Composition) -> int:
        """The calibration, before the first prediction; nothing afterwards."""
        return self._left

    def evaluate(self, composition: Composition, split: str = "validation") -> Evaluation:
        """Predict a composition, after the calibration where that is still to be done.

        Raises:
            EvaluationError: An operator was not profiled.
        """
        measured = self._calibrate()
        (evaluation,) = self.model.predict([composition], split)
        return replace(evaluation, measurements=measured)

    def _calibrate(self) -> int:
        """Measure what is left to be measured: the start, then what the model is least sure of; returns how many."""
        measured, self._left = self._left, 0
        space = self.model.task.space
        sampler = ShapedSampler(space, np.random.default_rng(POOL_SEED))
        pool = [space.start, *space.single_models(), *(drawn for _, drawn in sampler.sample(POOL))] if measured else []
        for number in range(measured):
            chosen = pool[0]
            if number:
                doubts = [(evaluation.deviation or {})["score"] for evaluation in self.model.predict(pool)]
                chosen = pool[int(np.argmax(doubts))]
            pool = [composition for composition in pool if composition.id != chosen.id]
            try:
                measure(self._real, self.model, chosen)
            except EvaluationError:  # it counts as measured; the others calibrate
                continue
        return measured


def measure(real: Evaluator, model: CostModel, composition: Composition) -> Evaluation:
    """Evaluate for real, and let the model learn from it.

    Raises:
        EvaluationError: It could not be run.
    """
    evaluation = real.evaluate(composition)
    outcomes = real.outcomes(composition) if isinstance(real, Rowwise) else None
    model.observe(composition, evaluation, outcomes)
    return evaluation
