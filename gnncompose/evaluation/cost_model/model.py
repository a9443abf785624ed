"""The cost model of one world: predicts evaluations, learns from real ones, and draws from what it believes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gnncompose.composition.tree import Composition
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.cost_model.artifact import Fitted
from gnncompose.evaluation.cost_model.behaviour import HALF, SCORE, link, unlink
from gnncompose.evaluation.cost_model.knowledge import WorldKnowledge
from gnncompose.evaluation.cost_model.latency import Usage
from gnncompose.evaluation.cost_model.memory import artifact_bytes
from gnncompose.evaluation.cost_model.outcomes import Outcomes
from gnncompose.evaluation.cost_model.speeds import CPU, LATENCY, SpeedBelief, Speeds
from gnncompose.evaluation.cost_model.waiting import service_ms, throughput_per_s, waiting_ms
from gnncompose.evaluation.evaluation import Evaluation
from gnncompose.evaluation.metrics import find_metric
from gnncompose.execution.latency import Effort
from gnncompose.execution.load import parse_load
from gnncompose.tasks.task import Task, World

MEMORY_DEVIATION = 0.05


@dataclass(frozen=True, eq=False)
class _Asked:
    """Compositions that are predicted together, and what was found out about them so far.

    Attributes:
        compositions: Which.
        speeds: What the networks say of their speed.
        known: Scores that were measured or replayed, by composition id.
        open: Those whose score is not known.
    """

    compositions: Sequence[Composition]
    speeds: Speeds
    known: dict[str, float]
    open: tuple[Composition, ...]


class CostModel:
    """Predicts in one world; the more it observes there, the better.

    Attributes:
        task: Whose compositions are predicted.
        world: In which world.
        prices: Turns resource use into money.
        name: What evaluations say they came from.
    """

    name = "cost_model"

    def __init__(
        self, task: Task, world: World, prices: Prices, fitted: Fitted, *, effort: Effort | None = None
    ) -> None:
        """Begin with what was learned elsewhere; nothing is run, and no artifact is opened.

        Args:
            task: Whose compositions are predicted.
            world: In which world; the name of its condition is used for nothing but the rows of its split.
            prices: Turns resource use into money.
            fitted: From `artifact.load`.
            effort: How the real evaluator times, which says which rows it samples.

        Raises:
            EvaluationError: The resource or the load is unknown.
        """
        self.task = task
        self.world = world
        self.prices = prices
        self.load = parse_load(world.load)
        self._threads = prices.resource(world.resource).threads
        self._fitted = fitted
        split = task.split(world.condition, "validation")
        self._metric = find_metric(task.metric)
        self._knowledge = WorldKnowledge(task, split, fitted.accuracy, fitted.escalation)
        self._scores = self._knowledge.scores
        self._requests = self.load.requests(len(split.x), effort or Effort())
        self._speeds = SpeedBelief(fitted.latency, fitted.effects)
        self._measured: dict[str, Evaluation] = {}
        self._memory_errors: list[float] = []

    def __len__(self) -> int:
        return len(self._measured)

    def observe(self, composition: Composition, evaluation: Evaluation, outcomes: Outcomes | None = None) -> None:
        """Learn from a real evaluation.

        Args:
            composition: What was measured.
            evaluation: What was measured of it on validation data.
            outcomes: What its nodes answered in it, row by row, where that was kept; without, only the score of the
                whole is learned from, and nothing can be replayed.
        """
        self._measured[composition.id] = evaluation
        if outcomes is not None:
            self._knowledge.observe(composition, outcomes)
        self._scores.observe(SCORE, [composition.root], [float(link(evaluation.score))])
        (usage,) = self._usages([composition])
        served_ms = service_ms(self.load, evaluation.latency_ms_mean)
        self._speeds.observe(composition, usage, served_ms, evaluation.cpu_ms * self.load.batch)
        predicted = self._fitted.memory.predict(composition, self.task.catalog)
        if evaluation.peak_memory_bytes > 0 and predicted > 0:
            self._memory_errors.append(float(np.log(evaluation.peak_memory_bytes / predicted)))

    def predict(self, compositions: Sequence[Composition], split: str = "validation") -> list[Evaluation]:
        """What each composition would be measured to do, with standard deviations.

        What was measured is given as it was measured.

        Raises:
            EvaluationError: An operator was not profiled.
        """
        started = time.perf_counter()
        asked = self._ask(compositions)
        told, variance = self._scores.predict(SCORE, [composition.root for composition in asked.open])
        scores = {c.id: float(unlink(value)) for c, value in zip(asked.open, told, strict=True)} | asked.known
        spread = {c.id: float(np.sqrt(value)) for c, value in zip(asked.open, variance, strict=True)}
        logs, variances = self._speeds.predict(asked.speeds)
        wall_s = (time.perf_counter() - started) / max(len(compositions), 1)
        found: list[Evaluation] = []
        for number, composition in enumerate(compositions):
            score, doubt = scores[composition.id], spread.get(composition.id, 0.0)
            evaluation = self._evaluation(
                composition,
                split,
                score,
                latency_ms=float(np.exp(logs[LATENCY, number])),
                usual_ms=float(asked.speeds.usual_ms[number] * np.exp(logs - asked.speeds.logs)[LATENCY, number]),
                cpu_ms=float(np.exp(logs[CPU, number])),
            )
            deviation = {
                "score": HALF * score * (1.0 - score) * doubt,
                "latency_ms_mean": evaluation.latency_ms_mean * float(np.sqrt(variances[LATENCY, number])),
                "cpu_ms": evaluation.cpu_ms * float(np.sqrt(variances[CPU, number])),
                "cost_usd_per_million": evaluation.cost_usd_per_million * float(np.sqrt(variances[CPU, number])),
                "peak_memory_bytes": evaluation.peak_memory_bytes * MEMORY_DEVIATION,
            }
            found.append(self._as_measured(replace(evaluation, deviation=deviation, wall_s=wall_s), composition))
        return found

    def sample(
        self, generator: np.random.Generator, compositions: Sequence[Composition], draws: int = 1
    ) -> list[list[Evaluation]]:
        """Joint draws from what is believed, as Thompson sampling needs them.

        Args:
            generator: Source of all randomness.
            compositions: Of which.
            draws: How many draws.

        Returns:
            A list of evaluations, in the order of the compositions, for each draw.
        """
        asked = self._ask(compositions)
        told = unlink(self._scores.sample(SCORE, [composition.root for composition in asked.open], generator, draws))
        times = np.exp(self._speeds.sample(asked.speeds, generator, draws))
        numbers = {composition.id: number for number, composition in enumerate(asked.open)}
        deviation = {"score": 0.0}
        drawn: list[list[Evaluation]] = []
        for draw in range(draws):
            evaluations: list[Evaluation] = []
            for number, composition in enumerate(compositions):
                known = asked.known.get(composition.id)
                score = float(told[draw, numbers[composition.id]]) if known is None else known
                latency_ms, cpu_ms = float(times[LATENCY, draw, number]), float(times[CPU, draw, number])
                one = self._evaluation(composition, "validation", score, latency_ms, latency_ms, cpu_ms)
                evaluations.append(self._as_measured(replace(one, deviation=deviation), composition))
            drawn.append(evaluations)
        return drawn

    def replays(self, composition: Composition) -> bool:
        """Whether the score follows from what ran already."""
        return self._knowledge.replay.output(composition.root) is not None

    def _ask(self, compositions: Sequence[Composition]) -> _Asked:
        scores = {composition.id: self._known_score(composition) for composition in compositions}
        known = {key: score for key, score in scores.items() if score is not None}
        distinct = {c.id: c for c in compositions if c.id not in known}
        speeds = self._speeds.raw(compositions, self._usages(compositions))
        return _Asked(compositions, speeds, known, tuple(distinct.values()))

    def _usages(self, compositions: Sequence[Composition]) -> list[Usage]:
        return self._knowledge.usages(compositions, self._requests, self._threads)

    def _known_score(self, composition: Composition) -> float | None:
        measured = self._measured.get(composition.id)
        return self._knowledge.score(composition) if measured is None else measured.score

    def _evaluation(
        self, composition: Composition, split: str, score: float, latency_ms: float, usual_ms: float, cpu_ms: float
    ) -> Evaluation:
        """Figures put together; times are of a request."""
        memory = self._fitted.memory.predict(composition, self.task.catalog)
        # measurements so far say how far the base is off; one of them counts as much as the prior
        memory *= float(np.exp(sum(self._memory_errors) / (len(self._memory_errors) + 1)))
        waits_ms, throughput = waiting_ms(self.load, latency_ms), throughput_per_s(self.load, latency_ms)
        cpu_ms /= self.load.batch
        return Evaluation(
            composition_id=composition.id,
            world=self.world,
            split=split,
            metric=self._metric.value(score),
            score=score,
            latency_ms_mean=latency_ms + waits_ms,
            latency_ms_p50=usual_ms + waits_ms,
            latency_ms_p90=None,
            latency_ms_p95=None,
            latency_ms_p99=None,
            throughput_per_s=throughput,
            cpu_ms=cpu_ms,
            cost_usd_per_million=self.prices.usd_per_million(
                self.world.resource, cpu_ms, int(memory), 1000.0 / throughput
            ),
            peak_memory_bytes=int(memory),
            artifact_bytes=artifact_bytes(composition),
            evaluator=self.name,
            measurements=0,
        )

    def _as_measured(self, predicted: Evaluation, composition: Composition) -> Evaluation:
        """A prediction with the figures that were measured, where the composition was."""
        measured = self._measured.get(composition.id)
        if measured is None:
            return predicted
        return replace(
            measured,
            split=predicted.split,
            evaluator=self.name,
            cached=False,
            wall_s=predicted.wall_s,
            measurements=0,
            deviation=dict.fromkeys(predicted.deviation or (), 0.0),
            measurement=None,
        )
