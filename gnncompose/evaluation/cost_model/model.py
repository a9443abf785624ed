"""The cost model of one world: predicts evaluations, learns from real ones, and draws from what it believes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gnncompose.composition.tree import Composition, Node
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.cost_model.accuracy import CONFIDENCES, HALF, TOLD, link, unlink
from gnncompose.evaluation.cost_model.artifact import Fitted
from gnncompose.evaluation.cost_model.latency import Usage
from gnncompose.evaluation.cost_model.memory import artifact_bytes
from gnncompose.evaluation.cost_model.outcomes import Outcomes
from gnncompose.evaluation.cost_model.replay import Replay
from gnncompose.evaluation.cost_model.scores import CONFIDENT, SCORE, ScoreBelief
from gnncompose.evaluation.cost_model.speeds import CPU, LATENCY, SpeedBelief, Speeds
from gnncompose.evaluation.cost_model.usage import branching_nodes, open_stages, usage_of
from gnncompose.evaluation.cost_model.waiting import service_ms, throughput_per_s, waiting_ms
from gnncompose.evaluation.evaluation import Evaluation
from gnncompose.evaluation.metrics import find_metric
from gnncompose.execution.combiners import confidence, threshold_of
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
        self._labels = split.y
        self._metric = find_metric(task.metric)
        self._outcomes = Outcomes()
        self._replay = Replay(self._outcomes, len(split.x))
        self._requests = self.load.requests(len(split.x), effort or Effort())
        self._scores = ScoreBelief(fitted.accuracy)
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
            self._outcomes.update(outcomes)
            self._observe_outcomes(composition, outcomes)
        self._scores.observe(SCORE, [composition.root], [float(link(evaluation.score))])
        (usage,) = self._usages([composition])
        served_ms = service_ms(self.load, evaluation.latency_ms_mean)
        self._speeds.observe(composition, usage, served_ms, evaluation.cpu_ms * self.load.batch)
        predicted = self._fitted.memory.predict(composition, self.task.catalog)
        if evaluation.peak_memory_bytes > 0 and predicted > 0:
            self._memory_errors.append(float(np.log(evaluation.peak_memory_bytes / predicted)))

    def _observe_outcomes(self, composition: Composition, outcomes: Outcomes) -> None:
        nodes = [node for node in composition.nodes if node.id in outcomes.outputs]
        outputs = [outcomes.outputs[node.id] for node in nodes]
        scores = [self._score_of(output) for output in outputs]
        self._scores.observe(SCORE, nodes, [float(link(score)) for score in scores])
        self._scores.observe(CONFIDENT, nodes, [float(link(_confident(output))) for output in outputs])

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
        return self._replay.output(composition.root) is not None

    def _ask(self, compositions: Sequence[Composition]) -> _Asked:
        scores = {composition.id: self._known_score(composition) for composition in compositions}
        known = {key: score for key, score in scores.items() if score is not None}
        distinct = {c.id: c for c in compositions if c.id not in known}
        speeds = self._speeds.raw(compositions, self._usages(compositions))
        return _Asked(compositions, speeds, known, tuple(distinct.values()))

    def _usages(self, compositions: Sequence[Composition]) -> list[Usage]:
        estimate, told = self._estimate(compositions), self._told(compositions)
        return [usage_of(c, self._replay, self._requests, self._threads, estimate, told)[0] for c in compositions]

    def _told(self, compositions: Sequence[Composition]) -> dict[str, tuple[float, float]]:
        """Linked score and share of confident rows of all nodes whose operators branch."""
        nodes = {
            node.id: node
            for composition in compositions
            for node in branching_nodes(composition)
            if self.task.output.type.accepts(node.type, {})
        }
        found: dict[str, tuple[float, float]] = {}
        for key, node in nodes.items():
            output = self._outcomes.outputs.get(key)
            if output is not None:
                found[key] = float(link(self._score_of(output))), float(link(_confident(output)))
        left = [node for key, node in nodes.items() if key not in found]
        scores, _ = self._scores.predict(SCORE, left)
        shares, _ = self._scores.predict(CONFIDENT, left)
        told = zip(scores.tolist(), shares.tolist(), strict=True)
        return found | dict(zip((node.id for node in left), told, strict=True))

    def _known_score(self, composition: Composition) -> float | None:
        if composition.id in self._measured:
            return self._measured[composition.id].score
        output = self._replay.output(composition.root)
        return None if output is None else self._score_of(output)

    def _score_of(self, output: np.ndarray) -> float:
        return self._metric.score(self._metric.compute(output, self._labels))

    def _estimate(self, compositions: Sequence[Composition]) -> Callable[[Node, int], float]:
        """Shares that go on where replay does not know; asks for all stages of all compositions at once."""
        stages = {node.id: node for composition in compositions for node in open_stages(composition, self._replay)}
        told, _ = self._scores.predict(CONFIDENT, list(stages.values()))
        values = dict(zip(stages, told, strict=True))
        escalation = self._fitted.escalation

        def estimate(node: Node, port: int) -> float:
            if node.operator.kind == "router":
                return 1.0 / len(node.branches)
            unsure = float(escalation.unsure(values[node.inputs[port - 1].id], float(threshold_of(node))))
            return escalation.handed_on(unsure, port - 1)

        return estimate

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


def _confident(output: np.ndarray) -> float:
    """Share of the rows that are confident."""
    return float((confidence(output) >= CONFIDENCES[TOLD]).mean())
