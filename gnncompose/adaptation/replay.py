"""Replays a stream against recorded evaluations: what an adapted deployment gives up against one that always knows.

Answers are real: every composition that is deployed or searched answers the data of each state once, by its artifacts.
Latency, cost, and how good each composition really is in a state, on test data that nobody searches on, are the task's
recorded table. Worlds change, too: what the catalog has, what resources cost, how requests come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Int

from gnncompose.adaptation.circumstances import USUAL, Circumstances
from gnncompose.adaptation.controller import Adapted, Controller, Settings, Trigger, stand_in
from gnncompose.adaptation.drift import Reference, errors_of
from gnncompose.adaptation.recorded import SPLIT, Recorded
from gnncompose.adaptation.stream import Stream
from gnncompose.agents.agent import Agent
from gnncompose.composition.tree import Composition
from gnncompose.evaluation.evaluation import Evaluation, Trial
from gnncompose.evaluation.metrics import find_metric
from gnncompose.tasks.task import Task

BLOCK = 32  # rows that come at once


class StreamedRows:
    """The rows of a stream, as a controller asks for them.

    Attributes:
        around: The circumstances in which compositions are evaluated now.
    """

    def __init__(self, recorded: Recorded, stream: Stream) -> None:
        self._recorded = recorded
        self._stream = stream
        self.around = stream.around(0)

    def evaluator(self, rows: Int[np.ndarray, " row"]) -> WindowEvaluator:
        """See `Seen.evaluator`."""
        return WindowEvaluator(self._recorded, self._stream, rows, self.around)

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

    def __init__(
        self, recorded: Recorded, stream: Stream, rows: Int[np.ndarray, " row"], around: Circumstances = USUAL
    ) -> None:
        """Begin.

        Args:
            recorded: What is known.
            stream: Where the rows are from.
            rows: Their numbers in it.
            around: The circumstances, of whenever the rows are.
        """
        self._recorded = recorded
        self._rows, self._seen = rows, StreamedRows(recorded, stream)
        self._conditions = tuple(dict.fromkeys(name for name, _ in stream.places(rows)))
        self._worlds = [recorded.world(condition, around) for condition in self._conditions]
        self.world = self._worlds[0].world
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
        told = [world.evaluate(composition) for world in self._worlds]
        metric = self._metric.compute(self._seen.answers(composition, self._rows), self._y)
        return replace(
            told[0],
            metric=metric,
            score=self._metric.score(metric),
            latency_ms_mean=float(np.mean([evaluation.latency_ms_mean for evaluation in told])),
            cpu_ms=float(np.mean([evaluation.cpu_ms for evaluation in told])),
            cost_usd_per_million=float(np.mean([evaluation.cost_usd_per_million for evaluation in told])),
        )


@dataclass(frozen=True)
class Moment:
    """What has just become of a deployment.

    Attributes:
        row: Number of rows that have come.
        regret: What the live composition gave up in the latest block.
        static_regret: What would have been given up without adapting.
        live: What is live now.
        adapted: What a search has just brought.
    """

    row: int
    regret: float
    static_regret: float
    live: Composition
    adapted: Adapted | None


@dataclass(frozen=True, eq=False)
class Replayed:
    """What became of a deployment on a stream.

    Attributes:
        regret: float64[blocks]: what the live composition gave up in each block against the best one.
        rows: int64[blocks]: number of each block's first row.
        live: Ids of the live compositions, block by block.
        adapted: What searches brought.
        gain: float64[blocks]: what the best composition has more than the one that was live at first, or stands in for
            it since it was withdrawn.
        best: float64[blocks]: the reward of the best composition.
        news: What changed around the data, and at which row.
    """

    regret: np.ndarray
    rows: np.ndarray
    live: tuple[str, ...]
    adapted: tuple[Adapted, ...]
    gain: np.ndarray
    best: np.ndarray
    news: tuple[tuple[int, str], ...] = ()


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
    tell: Callable[[Moment], None] = lambda moment: None,
) -> Replayed:
    """Let a deployment live through a stream.

    What changes around the data is known at once, as a catalog's file and a price list are read and requests are
    counted. What is deployed and was withdrawn is replaced at once (`controller.stand_in`), whatever searches.

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
        tell: Is told what became of each block.
    """
    seen = StreamedRows(recorded, stream)
    space = recorded.space(seen.around)
    controller = Controller(first, space, agent, trigger, seen, recorded.reward, generator, settings, old)
    trigger.begin(recorded.usual(first, stream.conditions[0]))
    static, news = first, []
    regret, gain, bests, live, adapted = [], [], [], [], []
    given: list[np.ndarray] = []
    for block in range(0, len(stream) // BLOCK * BLOCK, BLOCK):
        rows, around = np.arange(block, block + BLOCK), stream.around(block)
        if around != seen.around:
            what, space = around.news(seen.around), recorded.space(around)
            seen.around = around
            before, controller.live = controller.live, stand_in(controller.live, space)
            static = stand_in(static, space)
            controller.news(what, space, recorded.reward)
            news.append((block, what if controller.live == before else f"{what}; {controller.live} stands in"))
        shares = stream.shares[rows].mean(axis=0)
        best = recorded.best(shares, around)
        regret.append(best - float(shares @ recorded.truth(controller.live, around)))
        gain.append(best - float(shares @ recorded.truth(static, around)))
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
        tell(Moment(block + BLOCK, regret[-1], gain[-1], controller.live, found))
    return Replayed(
        regret=np.array(regret),
        rows=np.arange(len(regret)) * BLOCK,
        live=tuple(live),
        adapted=tuple(adapted),
        gain=np.array(gain),
        best=np.array(bests),
        news=tuple(news),
    )
