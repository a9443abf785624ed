"""The cost model screens, real execution decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gnncompose.composition.tree import Composition
from gnncompose.errors import EvaluationError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.cost_model.artifact import load
from gnncompose.evaluation.cost_model.evaluator import EvaluatorFactory, measure
from gnncompose.evaluation.cost_model.model import CostModel
from gnncompose.evaluation.evaluation import Evaluation, Evaluator, Foresees
from gnncompose.tasks.task import Task, World

DRAWS = 64
DRAW_SEED = 20260104


class HybridEvaluator:
    """Really measures what may beat the best so far, and predicts the rest; what it measures, the model learns.

    Which compositions may, the reward says, which `aim` hands over; without one, everything is measured. The longer
    nothing seemed worth a measurement, the less it takes, so that a budget is not left over.

    Attributes:
        name: What it is called; its evaluations carry the names of those that gave them.
        world: In which world.
        model: Predicts, and knows what was measured.
    """

    name = "hybrid"

    def __init__(
        self,
        task: Task,
        world: World,
        prices: Prices,
        *,
        inner: EvaluatorFactory,
        artifact: str | None = None,
        initial: int = 3,
        chance: float = 0.2,
        patience: int = 40,
    ) -> None:
        """Prepare; nothing is run yet.

        Args:
            task: Whose compositions are evaluated.
            world: In which world.
            prices: Turns resource use into money.
            inner: Makes the evaluator that really runs.
            artifact: File of the fitted model; None for the one that comes with the package.
            initial: Compositions that are measured whatever the model says.
            chance: Probability of a better reward from which a composition is measured.
            patience: Predictions in a row after which anything is measured; the needed chance falls linearly to there.

        Raises:
            EvaluationError: The file, the resource, the load or a number is not usable.
        """
        if not 0.0 <= chance <= 1.0:
            raise EvaluationError(f"chance={chance}: is no probability; give a number from 0 to 1")
        if initial < 1 or patience < 1:
            raise EvaluationError(f"initial={initial}, patience={patience}: both are whole numbers from 1 up")
        self.world = world
        self.model = CostModel(task, world, prices, load(artifact))
        self._real = inner(task, world, prices)
        self._initial = initial
        self._chance = chance
        self._patience = patience
        self._reward: Callable[[Evaluation], float] | None = None
        self._best = -np.inf
        self._tried = 0
        self._skipped = 0
        self._decided: dict[str, Evaluation | None] = {}
        self._generator = np.random.default_rng(DRAW_SEED)

    @property
    def task(self) -> Task:
        """Whose compositions it evaluates."""
        return self.model.task

    @property
    def real(self) -> Evaluator:
        """The evaluator that really runs compositions."""
        return self._real

    def aim(self, reward: Callable[[Evaluation], float]) -> None:
        """Say what is sought; what was measured before counts, too."""
        self._reward = reward

    def foresee(self, compositions: Sequence[Composition]) -> None:
        """Pass on those that are measured whatever the model says; see `Foresees`."""
        if isinstance(self._real, Foresees):
            sure = max(0, self._initial - self._tried) if self._reward is not None else len(compositions)
            self._real.foresee(compositions[:sure])

    def charge(self, composition: Composition) -> int:
        """One where it is worth a measurement, else nothing; decided once for each composition."""
        if composition.id not in self._decided:
            self._decided[composition.id] = self._screened(composition)
        return int(self._decided[composition.id] is None)

    def evaluate(self, composition: Composition, split: str = "validation") -> Evaluation:
        """Measure or predict a composition, as `charge` says.

        Raises:
            EvaluationError: It could not be run, or an operator was not profiled.
        """
        if split != "validation":
            return self._real.evaluate(composition, split)
        self.charge(composition)
        predicted = self._decided.pop(composition.id)
        if predicted is not None:
            self._skipped += 1
            return predicted
        self._skipped, self._tried = 0, self._tried + 1
        evaluation = measure(self._real, self.model, composition)
        if self._reward is not None:
            self._best = max(self._best, self._reward(evaluation))
        return evaluation

    def _screened(self, composition: Composition) -> Evaluation | None:
        """The prediction of what is not worth a measurement; None for what is."""
        if self._reward is None or self._tried < self._initial:
            return None
        needed = self._chance * (1.0 - self._skipped / self._patience)
        (predicted,) = self.model.predict([composition])
        return None if self._chance_of_better(predicted) >= needed else predicted

    def _chance_of_better(self, predicted: Evaluation) -> float:
        """Share of draws from the prediction whose reward beats the best that was measured."""
        assert self._reward is not None
        return float(np.mean([self._reward(drawn) > self._best for drawn in draws(predicted, self._generator, DRAWS)]))


def draws(predicted: Evaluation, generator: np.random.Generator, count: int) -> list[Evaluation]:
    """Evaluations that a prediction holds possible: score, latency and cost as its deviations spread them."""
    deviation = predicted.deviation or {}
    noise = generator.standard_normal((count, 2))
    relative_ms = deviation.get("latency_ms_mean", 0.0) / max(predicted.latency_ms_mean, 1e-9)
    relative_usd = deviation.get("cost_usd_per_million", 0.0) / max(predicted.cost_usd_per_million, 1e-12)
    return [
        replace(
            predicted,
            score=predicted.score + deviation.get("score", 0.0) * float(of_score),
            latency_ms_mean=predicted.latency_ms_mean * float(np.exp(relative_ms * of_time)),
            cost_usd_per_million=predicted.cost_usd_per_million * float(np.exp(relative_usd * of_time)),
        )
        for of_score, of_time in noise
    ]
