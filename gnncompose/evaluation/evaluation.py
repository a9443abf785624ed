"""What was measured of a composition in a world, the evaluator protocol, and the budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from gnncompose.composition.tree import Composition
from gnncompose.errors import EvaluationError
from gnncompose.tasks.task import World

STEPS_PER_EVALUATION = 50
FAILED_REWARD = -1.0


@dataclass(frozen=True, eq=False)
class Measurement:
    """Speed and resource use of one composition, with the raw samples.

    Attributes:
        samples_ms: float64[rows, repeats]: every timed run at batch 1, of sampled validation rows.
        cpu_ms: CPU time of one row.
        peak_memory_bytes: Largest resident memory of a process that serves only this composition.
        artifact_bytes: Size of the artifacts on disk.
        reference_ms: Median of the reference operator run in between; tells how fast the machine was.
    """

    samples_ms: np.ndarray
    cpu_ms: float
    peak_memory_bytes: int
    artifact_bytes: int
    reference_ms: float

    @property
    def latency_ms_mean(self) -> float:
        """Mean over rows of each row's median time; the reward's latency."""
        return float(np.median(self.samples_ms, axis=1).mean())

    def latency_ms_percentile(self, percent: float) -> float:
        """Percentile over all timed runs."""
        return float(np.percentile(self.samples_ms, percent))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured of one composition in one world.

    Attributes:
        composition_id: Whose evaluation it is.
        world: In which world.
        split: On which split.
        metric: Value of the task's metric.
        score: The metric as higher-is-better.
        latency_ms_mean: Mean over rows of each row's median time at batch 1.
        latency_ms_p50: Median of all timed runs; `_p95` and `_p99` likewise.
        cpu_ms: CPU time of one row.
        cost_usd_per_million: Price of a million requests at batch 1.
        peak_memory_bytes: Largest resident memory of a process that serves only this composition.
        artifact_bytes: Size of the artifacts on disk.
        evaluator: Name of the evaluator that gave it.
        cached: Whether it came from a store and not from a new run.
        wall_s: Seconds that it took.
        measurement: The raw samples, where the evaluator keeps them.
    """

    composition_id: str
    world: World
    split: str
    metric: float
    score: float
    latency_ms_mean: float
    latency_ms_p50: float
    latency_ms_p95: float
    latency_ms_p99: float
    cpu_ms: float
    cost_usd_per_million: float
    peak_memory_bytes: int
    artifact_bytes: int
    evaluator: str
    cached: bool = False
    wall_s: float = 0.0
    measurement: Measurement | None = None


@runtime_checkable
class Evaluator(Protocol):
    """Gives evaluations of compositions of one task in one world."""

    name: str
    world: World

    def evaluate(self, composition: Composition, split: str = "validation") -> Evaluation:
        """Evaluate one composition.

        Raises:
            EvaluationError: It could not be evaluated; the message gives the reason.
        """
        ...


class BudgetSpent(Exception):  # noqa: N818 - a signal like StopIteration, no mistake
    """No further distinct composition, or step, is left."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One distinct composition that an agent asked for.

    Attributes:
        index: 1 for the first distinct composition of the run.
        composition: What was asked for.
        evaluation: What was measured; None where the evaluation failed.
        reward: Its reward; `FAILED_REWARD` where the evaluation failed.
        best_reward: Best reward of the run so far, this one included.
        failure: Why the evaluation failed.
    """

    index: int
    composition: Composition
    evaluation: Evaluation | None
    reward: float
    best_reward: float
    failure: str | None = None


@dataclass(eq=False)
class Budget:
    """Counts the distinct compositions of one run, for every agent alike.

    A re-visit is free and returns the same trial; steps end at 50 times the limit.

    Attributes:
        evaluator: Gives the evaluations.
        reward: Turns an evaluation into a number.
        limit: How many distinct compositions may be asked for, the start included.
        on_trial: Called with each new trial, in order.
    """

    evaluator: Evaluator
    reward: Callable[[Evaluation], float]
    limit: int
    on_trial: Callable[[Trial], None] = lambda trial: None
    trials: list[Trial] = field(default_factory=list)
    steps: int = 0
    _by_id: dict[str, Trial] = field(default_factory=dict, repr=False)

    @property
    def left(self) -> int:
        """Distinct compositions still to be had."""
        return self.limit - len(self.trials)

    @property
    def best(self) -> Trial:
        """The best trial so far; the earliest of equals."""
        return max(self.trials, key=lambda trial: trial.reward)

    def evaluate(self, composition: Composition) -> Trial:
        """The trial of a composition, charged where it is new.

        Raises:
            BudgetSpent: The composition is new and none is left, or the steps are used up.
        """
        self.steps += 1
        known = self._by_id.get(composition.id)
        if self.steps > STEPS_PER_EVALUATION * self.limit or (known is None and self.left <= 0):
            raise BudgetSpent
        if known is not None:
            return known
        started, evaluation, failure = time.perf_counter(), None, None
        try:
            evaluation = self.evaluator.evaluate(composition)
            reward = self.reward(evaluation)
        except EvaluationError as problem:
            reward, failure = FAILED_REWARD, f"{problem} (after {time.perf_counter() - started:.1f} s)"
        best = max(reward, self.trials[-1].best_reward) if self.trials else reward
        trial = Trial(len(self.trials) + 1, composition, evaluation, reward, best, failure)
        self.trials.append(trial)
        self._by_id[composition.id] = trial
        self.on_trial(trial)
        return trial
