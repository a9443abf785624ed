"""Replays a stream against recorded evaluations: what an adapted deployment gives up against one that always knows.

Answers are real: every composition that is deployed or searched answers the data of each state once, by its artifacts.
Latency, cost, and how good each composition really is in a state, on test data that nobody searches on, are the task's
recorded table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from gnncompose.adaptation.controller import Adapted, Controller, Settings, Trigger
from gnncompose.adaptation.drift import Reference, errors_of
from gnncompose.adaptation.stream import Stream
from gnncompose.agents.agent import Agent, search
from gnncompose.composition.files import composition_from_json, composition_to_json
from gnncompose.composition.tree import Composition
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.evaluation import Budget, Evaluation, Trial
from gnncompose.evaluation.metrics import find_metric
from gnncompose.evaluation.table import TableEvaluator
from gnncompose.execution.isolation import Isolation
from gnncompose.execution.work import answers as answers_of
from gnncompose.execution.worker import Limits
from gnncompose.reward import Reward
from gnncompose.tasks.task import Split, Task, World

BLOCK = 32  # rows that come at once
SPLIT = "validation"
CACHE_BYTES = 1 << 30


class Recorded:
    """A task with its recorded table, and real answers of its compositions.

    Attributes:
        built: The task with its data and artifacts.
        task: The recorded part of it.
    """

    def __init__(self, task: Task, prices: Prices, reward: Reward, conditions: Sequence[str]) -> None:
        """Open the tables.

        Args:
            task: Built, with a recorded table.
            prices: What resources cost.
            reward: Says how good an evaluation is.
            conditions: The states.

        Raises:
            TableError: There is no table, or it lacks a condition.
        """
        self.conditions = tuple(conditions)
        self.built = task
        self._evaluators = [TableEvaluator(task, World(condition), prices) for condition in conditions]
        self.task = self._evaluators[0].task
        self._bound = [reward.bind(self.task.catalog, prices, World(condition)) for condition in conditions]
        self._isolation = Isolation(task.catalog, Limits(cache_bytes=CACHE_BYTES))
        self._answers: dict[tuple[str, str], np.ndarray] = {}
        self._truth: np.ndarray | None = None

    def reward(self, evaluation: Evaluation) -> float:
        """How good an evaluation is; of a world it depends on the resource alone, which is the same everywhere."""
        return self._bound[0](evaluation)

    def evaluation(self, composition: Composition, condition: str) -> Evaluation:
        """What the table tells of a composition on validation data."""
        return self._evaluators[self.conditions.index(condition)].evaluate(composition)

    def split(self, condition: str) -> Split:
        """The data of a condition that streams are drawn from."""
        return self.built.split(condition, SPLIT)

    def answers(self, composition: Composition, condition: str) -> np.ndarray:
        """[rows, ...]: what a composition really answers on the data of a condition.

        Artifacts that were trained on another machine than the table's may differ from the recorded ones; then it is
        the composition of operators of these names that answers.
        """
        key = composition.id, condition
        if key not in self._answers:
            document = composition_to_json(composition) | {"catalog": None}
            built = composition_from_json(document, self.built.catalog, self.built.input.type, name=str(composition))
            runner = self._isolation.runner(built)
            self._answers[key] = runner.call(answers_of, built, self.split(condition))
        return self._answers[key]

    def usual(self, composition: Composition, condition: str) -> Reference:
        """What is usual in a condition: inputs, what a composition answers, and its errors."""
        split, answers = self.split(condition), self.answers(composition, condition)
        return Reference.of(split.x, answers, split.y)

    def truth(self, composition: Composition) -> Float[np.ndarray, " state"]:
        """The rewards of a composition in each state, on test data."""
        return self._truths()[:, self._evaluators[0].table.row(composition)]

    def best(self, shares: Float[np.ndarray, " state"]) -> float:
        """The largest reward that any composition has on test data, where states are mixed like this."""
        return float((shares @ self._truths()).max())

    def best_on_validation(self, condition: str) -> Composition:
        """The composition that is best on validation data of a condition, as the table tells."""
        number = self.conditions.index(condition)
        rewards = self._evaluators[number].rewards(self._bound[number])
        return self._evaluators[number].table.space.composition(int(rewards.argmax()))

    def searched(self, agent: Agent, condition: str, budget: int, generator: np.random.Generator) -> list[Trial]:
        """What an agent finds in a condition by the table."""
        number = self.conditions.index(condition)
        spent = Budget(self._evaluators[number], self._bound[number], budget)
        search(agent, self.task.space, spent, generator)
        return spent.trials

    def _truths(self) -> np.ndarray:
        if self._truth is None:
            pairs = zip(self._evaluators, self._bound, strict=True)
            self._truth = np.stack([evaluator.rewards(bound, "test") for evaluator, bound in pairs])
        return self._truth


class StreamedRows:
    """The rows of a stream, as a controller asks for them."""

    def __init__(self, recorded: Recorded, stream: Stream) -> None:
        self._recorded = recorded
        self._stream = stream

    def evaluator(self, rows: Int[np.ndarray, " row"]) -> WindowEvaluator:
        """See `Seen.evaluator`."""
        return WindowEvaluator(self._recorded, self._stream, rows)

    def reference(self, composition: Composition, rows: Int[np.ndarray, " row"]) -> Reference:
        """See `Seen.reference`."""
        return Reference.of(self.gathered(rows, "x"), self.answers(composition, rows), self.gathered(rows, "y"))

    def answers(self, composition: Composition, rows: Int[np.ndarray, " row"]) -> np.ndarray:
        """[rows, ...]: what a composition really answers on rows."""
        places = self._stream.places(rows)
        return np.stack([self._recorded.answers(composition, name)[row] for name, row in places])

    def gathered(self, rows: Int[np.ndarray, " row"], what: Literal["x", "y"]) -> np.ndarray:
        """[rows, ...]: inputs or labels."""
        places = self._stream.places(rows)
        return np.stack([getattr(self._recorded.split(name), what)[row] for name, row in places])


class WindowEvaluator:
    """Evaluates on labelled rows of a stream: scores by real answers on these rows, latency and cost by the table.

    Attributes:
        name: What evaluations say they came from.
        world: The world of the first row.
    """

    name = "table"

    def __init__(self, recorded: Recorded, stream: Stream, rows: Int[np.ndarray, " row"]) -> None:
        """Begin.

        Args:
            recorded: What is known.
            stream: Where the rows are from.
            rows: Their numbers in it.
        """
        self._recorded = recorded
        self._rows, self._seen = rows, StreamedRows(recorded, stream)
        self._conditions = tuple(dict.fromkeys(name for name, _ in stream.places(rows)))
        self.world = World(self._conditions[0])
        self._metric = find_metric(recorded.task.metric)
        self._y = self._seen.gathered(rows, "y")

    @property
    def task(self) -> Task:
        """The recorded part of the task."""
        return self._recorded.task

    @property
    def real(self) -> WindowEvaluator:
        """Itself."""
        return self

    def charge(self, composition: Composition) -> int:
        """One."""
        return 1

    def evaluate(self, composition: Composition, split: str = SPLIT) -> Evaluation:
        """See `Evaluator.evaluate`; latency and cost are the mean of the conditions that the rows are in."""
        told = [self._recorded.evaluation(composition, condition) for condition in self._conditions]
        metric = self._metric.compute(self._seen.answers(composition, self._rows), self._y)
        return replace(
            told[0],
            metric=metric,
            score=self._metric.score(metric),
            latency_ms_mean=float(np.mean([evaluation.latency_ms_mean for evaluation in told])),
            cpu_ms=float(np.mean([evaluation.cpu_ms for evaluation in told])),
            cost_usd_per_million=float(np.mean([evaluation.cost_usd_per_million for evaluation in told])),
        )


@dataclass(frozen=True, eq=False)
class Replayed:
    """What became of a deployment on a stream.

    Attributes:
        regret: float64[blocks]: what the live composition gave up in each block against the best one.
        rows: int64[blocks]: number of each block's first row.
        live: Ids of the live compositions, block by block.
        adapted: What searches brought.
        gain: float64[blocks]: what the best composition has more than the one that was live at first.
        best: float64[blocks]: the reward of the best composition.
    """

    regret: np.ndarray
    rows: np.ndarray
    live: tuple[str, ...]
    adapted: tuple[Adapted, ...]
    gain: np.ndarray
    best: np.ndarray


def replay(
    recorded: Recorded,
    stream: Stream,
    agent: Agent,
    trigger: Trigger,
    first: Composition,
    generator: np.random.Generator,
    settings: Settings,
    late: int = 4 * BLOCK,
    old: Sequence[Trial] = (),
    tell: Callable[[int], None] = lambda rows: None,
) -> Replayed:
    """Let a deployment live through a stream.

    Args:
        recorded: What is known.
        stream: What comes.
        agent: Who searches.
        trigger: Says when.
        first: What is live at first.
        generator: Source of all randomness of the agent.
        settings: How to adapt.
        late: Rows after which a row's label comes, whole blocks.
        old: Trials of the first state, for agents that recall.
        tell: Is told how many rows have come since.
    """
    seen = StreamedRows(recorded, stream)
    controller = Controller(first, recorded.task.space, agent, trigger, seen, recorded.reward, generator, settings, old)
    trigger.begin(recorded.usual(first, stream.conditions[0]))
    start = recorded.truth(first)
    regret, gain, bests, live, adapted = [], [], [], [], []
    given: list[np.ndarray] = []
    for block in range(0, len(stream) // BLOCK * BLOCK, BLOCK):
        rows = np.arange(block, block + BLOCK)
        shares = stream.shares[rows].mean(axis=0)
        best = recorded.best(shares)
        regret.append(best - float(shares @ recorded.truth(controller.live)))
        gain.append(best - float(shares @ start))
        bests.append(best)
        live.append(controller.live.id)
        answers = seen.answers(controller.live, rows)
        given.append(answers)
        controller.rows(seen.gathered(rows, "x"), answers)
        past = block - late
        if past >= 0:
            due = np.arange(past, past + BLOCK)
            controller.labels(due, errors_of(given[past // BLOCK], seen.gathered(due, "y")))
        found = controller.act()
        if found is not None:
            adapted.append(found)
        tell(BLOCK)
    return Replayed(
        regret=np.array(regret),
        rows=np.arange(len(regret)) * BLOCK,
        live=tuple(live),
        adapted=tuple(adapted),
        gain=np.array(gain),
        best=np.array(bests),
    )
