"""What was measured of a composition in a world, the evaluator protocol, and the budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from gnncompose.composition.tree import Composition
from gnncompose.errors import EvaluationError, GnncomposeError
from gnncompose.execution.percentiles import why_withheld
from gnncompose.tasks.task import Task, World

STEPS_PER_EVALUATION = 50
FAILED_REWARD = -1.0


@dataclass(frozen=True, eq=False)
class Measurement:
    """Speed and resource use of one composition, with the raw samples.

    Attributes:
        samples_ms: float64[requests, repeats]: latency of every timed request.
        cpu_ms: CPU time of one row.
        throughput_per_s: Rows answered in a second.
        peak_memory_bytes: Largest resident memory of a process that serves only this composition.
        artifact_bytes: Size of the artifacts on disk.
        reference_ms: Median of the reference operator run in between; tells how fast the machine was.
        noise: How unsteady the machine was, as `execution.latency.Timing` defines it; 1 for perfectly steady.
        origin: Hardware, versions and commit as a store notes them, where another machine measured; None for here.
    """

    samples_ms: np.ndarray
    cpu_ms: float
    throughput_per_s: float
    peak_memory_bytes: int
    artifact_bytes: int
    reference_ms: float
    noise: float
    origin: Mapping[str, str | None] | None = None

    @property
    def latency_ms_mean(self) -> float:
        """Mean over requests of each one's median time; the reward's latency."""
        return float(np.median(self.samples_ms, axis=1).mean())

    @property
    def latency_ms_median(self) -> float:
        """Median over all timed requests."""
        return float(np.median(self.samples_ms))

    def latency_ms_percentile(self, percent: float) -> float | None:
        """Percentile over all timed requests; None where it is withheld."""
        return None if self.why_withheld(percent) else float(np.percentile(self.samples_ms, percent))

    def why_withheld(self, percent: float) -> str | None:
        """Why a percentile is withheld: too few samples, or too noisy a machine; None where it is not."""
        return why_withheld(self.samples_ms.size, self.noise, percent)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured, or predicted, of one composition in one world.

    Attributes:
        composition_id: Whose evaluation it is.
        world: In which world.
        split: On which split.
        metric: Value of the task's metric.
        score: The metric as higher-is-better.
        latency_ms_mean: Mean over requests of each one's median time.
        latency_ms_p50: Median of all timed requests; `_p90`, `_p95` and `_p99` likewise, but None where the
            samples are too few to tell, or the machine was too noisy.
        throughput_per_s: Rows answered in a second.
        cpu_ms: CPU time of one row.
        cost_usd_per_million: Price of a million rows.
        peak_memory_bytes: Largest resident memory of a process that serves only this composition.
        artifact_bytes: Size of the artifacts on disk.
        evaluator: Name of the evaluator that gave it.
        cached: Whether it came from a store and not from a new run.
        wall_s: Seconds that it took.
        measurements: Compositions that were really measured to give it; what the budget is charged.
        deviation: Of a prediction, the standard deviation of each uncertain figure by its name; None where
            it was measured.
        measurement: The raw samples, where the evaluator keeps them.
    """

    composition_id: str
    world: World
    split: str
    metric: float
    score: float
    latency_ms_mean: float
    latency_ms_p50: float
    latency_ms_p90: float | None
    latency_ms_p95: float | None
    latency_ms_p99: float | None
    throughput_per_s: float
    cpu_ms: float
    cost_usd_per_million: float
    peak_memory_bytes: int
    artifact_bytes: int
    evaluator: str
    cached: bool = False
    wall_s: float = 0.0
    measurements: int = 1
    deviation: Mapping[str, float] | None = None
    measurement: Measurement | None = None

    @property
    def is_predicted(self) -> bool:
        """Whether a model told it, and no run."""
        return self.deviation is not None


@runtime_checkable
class Evaluator(Protocol):
    """Gives evaluations of compositions of one task in one world."""

    name: str
    world: World

    @property
    def task(self) -> Task:
        """Whose compositions it evaluates; a search keeps to its space."""
        ...

    @property
    def real(self) -> Evaluator:
        """The evaluator that really runs compositions: itself, or the one behind a model."""
        ...

    def charge(self, composition: Composition) -> int:
        """How many compositions would be really measured to evaluate this one; what a budget must have left."""
        ...

    def evaluate(self, composition: Composition, split: str = "validation") -> Evaluation:
        """Evaluate one composition.

        Raises:
            EvaluationError: It could not be evaluated; the message gives the reason.
        """
        ...


@dataclass(frozen=True, eq=False)
class AnsweredRows:
    """What a composition answered on every row of a split, and how such answers are scored.

    Attributes:
        answers: [rows, ...], the output of the composition.
        score: From answers on all rows to the score that the task's metric gives them.
    """

    answers: np.ndarray
    score: Callable[[np.ndarray], float]


@runtime_checkable
class TellsRows(Protocol):
    """An evaluator that can say what a composition answered row by row."""

    def answered_rows(self, composition: Composition) -> AnsweredRows:
        """What an evaluated composition answered on the validation split.

        Raises:
            EvaluationError: It could not be run.
        """
        ...


@runtime_checkable
class Aimed(Protocol):
    """An evaluator that decides by what is sought which compositions are worth a measurement."""

    def aim(self, reward: Callable[[Evaluation], float]) -> None:
        """Say what is sought."""
        ...


@runtime_checkable
class Keeps(Protocol):
    """An evaluator that can keep what it measures in a file, and reads there what was measured before."""

    def keep(self, path: Path) -> None:
        """Keep it from now on, unless it is kept elsewhere already."""
        ...


@runtime_checkable
class Foresees(Protocol):
    """An evaluator that makes use of knowing what it will be asked for."""

    def foresee(self, compositions: Sequence[Composition]) -> None:
        """Say what will likely be asked for next on the validation split, in order; takes the place of what was said.

        Nothing is charged for it, and what goes wrong is told when it is asked for.
        """
        ...


@runtime_checkable
class LetsGo(Protocol):
    """An evaluator that holds processes."""

    def let_go(self) -> None:
        """End them; asked again, it starts others."""
        ...


class BudgetSpent(Exception):  # noqa: N818 - a signal like StopIteration, no mistake
    """No further distinct composition, or step, is left."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One distinct composition that an agent asked for.

    Attributes:
        index: 1 for the first distinct composition of the run.
        composition: What was asked for.
        evaluation: What was measured or predicted; None where the evaluation failed.
        reward: Its reward; `FAILED_REWARD` where the evaluation failed.
        best_reward: Best reward of the run so far, this one included; what was measured goes before predictions.
        failure: Why the evaluation failed.
    """

    index: int
    composition: Composition
    evaluation: Evaluation | None
    reward: float
    best_reward: float
    failure: str | None = None

    @property
    def measurements(self) -> int:
        """What the budget was charged for it."""
        return 1 if self.evaluation is None else self.evaluation.measurements

    @property
    def is_predicted(self) -> bool:
        """Whether a model told it, and no run."""
        return self.evaluation is not None and self.evaluation.is_predicted

    @property
    def rank(self) -> tuple[bool, float]:
        """Larger for better: what was measured beats what is only predicted."""
        return self.evaluation is not None and not self.is_predicted, self.reward


@dataclass(eq=False)
class Budget:
    """Counts the distinct compositions that are measured in one run, for every agent alike.

    A re-visit is free and returns the same trial, and so is a model's prediction; steps end at 50 times the limit.

    Attributes:
        evaluator: Gives the evaluations.
        reward: Turns an evaluation into a number.
        limit: How many distinct compositions may be measured, the start included.
        on_trial: Called with each new trial, in order.
    """

    evaluator: Evaluator
    reward: Callable[[Evaluation], float]
    limit: int
    on_trial: Callable[[Trial], None] = lambda trial: None
    trials: list[Trial] = field(default_factory=list)
    steps: int = 0
    spent: int = 0
    _by_id: dict[str, Trial] = field(default_factory=dict, repr=False)
    _best: Trial | None = field(default=None, repr=False)

    @property
    def left(self) -> int:
        """Distinct compositions that may still be measured."""
        return self.limit - self.spent

    @property
    def best(self) -> Trial:
        """The best trial so far, the earliest of equals; what was measured goes before predictions."""
        assert self._best is not None, "nothing was asked for yet"
        return self._best

    def foresee(self, compositions: Iterable[Composition]) -> None:
        """Say what will be asked for next, in order; an evaluator hears of no more than what is left.

        Args:
            compositions: Read only as far as needed.
        """
        if not isinstance(self.evaluator, Foresees):
            return
        new: dict[str, Composition] = {}
        for composition in compositions:
            if len(new) >= self.left:
                break
            if composition.id not in self._by_id:
                new[composition.id] = composition
        self.evaluator.foresee(list(new.values()))

    def answered_rows(self, composition: Composition) -> AnsweredRows | None:
        """Row-level answers of a composition that was measured; None where it was not, or the evaluator has none."""
        trial, real = self._by_id.get(composition.id), self.evaluator.real
        if trial is None or trial.evaluation is None or trial.is_predicted or not isinstance(real, TellsRows):
            return None
        return real.answered_rows(composition)

    def evaluate(self, composition: Composition) -> Trial:
        """The trial of a composition, charged where it is new and really measured.

        Raises:
            BudgetSpent: The composition is new and would cost more than what is left, or the steps are used up.
            GnncomposeError: The reward is no finite number.
        """
        self.steps += 1
        known = self._by_id.get(composition.id)
        if self.steps > STEPS_PER_EVALUATION * self.limit:
            raise BudgetSpent
        if known is not None:
            return known
        if self.evaluator.charge(composition) > self.left:
            raise BudgetSpent
        started, evaluation, failure = time.perf_counter(), None, None
        try:
            evaluation = self.evaluator.evaluate(composition)
            reward = self._rewarded(composition, evaluation)
        except EvaluationError as problem:
            reward, failure = FAILED_REWARD, f"{problem} (after {time.perf_counter() - started:.1f} s)"
        trial = Trial(len(self.trials) + 1, composition, evaluation, reward, reward, failure)
        if self._best is not None and trial.rank <= self._best.rank:
            trial = replace(trial, best_reward=self._best.reward)
        else:
            self._best = trial
        self.trials.append(trial)
        self.spent += trial.measurements
        self._by_id[composition.id] = trial
        self.on_trial(trial)
        return trial

    def _rewarded(self, composition: Composition, evaluation: Evaluation) -> float:
        reward = self.reward(evaluation)
        if not isinstance(reward, Real) or not math.isfinite(reward):
            raise GnncomposeError(f"reward: gives {reward} for {composition}; it must give a finite number")
        return float(reward)
