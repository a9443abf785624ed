"""The controller: decides when a deployment is to be searched anew, lets an agent do it, and swaps.

It does not know where rows come from, nor who serves: it is told of rows and labels, and asked to act. Something is due
when its trigger says so; then labelled rows are collected that came after that, an agent spends a few evaluations on
them, and what it finds goes live where it is better than what is live on the very same rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from gnncompose.adaptation.detectors import Detector
from gnncompose.adaptation.drift import DETECTORS, Alarm, DriftMonitor, Reference
from gnncompose.agents.agent import Agent, Recalls, search
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.evaluation.evaluation import Budget, Evaluation, Evaluator, Trial
from gnncompose.ranges import at_least, counts


@dataclass(frozen=True)
class Settings:
    """How a deployment is adapted.

    Attributes:
        window: Labelled rows that a search needs.
        evaluations: Compositions that a search may measure, the live one included.
        margin: By how much the reward has to grow, on these rows.
        rounds: Searches for one reason, at most: as long as it pays, the next one goes on from what the last one found,
            on later rows.
        remembered: Trials of earlier searches that an agent recalls, at most.
    """

    window: int = 300
    evaluations: int = 10
    margin: float = 0.005
    rounds: int = 1
    remembered: int = 200

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where a number is out of its range."""
        counts("settings", 1, window=self.window, evaluations=self.evaluations, rounds=self.rounds)
        counts("settings", 0, remembered=self.remembered)
        at_least("settings", 0, margin=self.margin)


class Trigger(Protocol):
    """Says when a search is due; it is told what is usual before the first rows come.

    As a text it says when, for people.
    """

    def begin(self, reference: Reference) -> None:
        """Watch from here on, against what is usual now."""
        ...

    def rows(self, x: np.ndarray, answers: np.ndarray) -> str | None:
        """Heed rows that were answered; why a search is due, or None."""
        ...

    def errors(self, rows: np.ndarray, errors: np.ndarray) -> str | None:
        """Heed errors, whose labels came late; why a search is due, or None."""
        ...

    def news(self, what: str) -> str | None:
        """Heed that the catalog, prices or the load have changed; why a search is due, or None."""
        ...


class Never:
    """What is deployed stays."""

    def __str__(self) -> str:
        return "never"

    def begin(self, reference: Reference) -> None:
        """See `Trigger`."""

    def rows(self, x: np.ndarray, answers: np.ndarray) -> str | None:
        """See `Trigger`."""
        return None

    def errors(self, rows: np.ndarray, errors: np.ndarray) -> str | None:
        """See `Trigger`."""
        return None

    def news(self, what: str) -> str | None:
        """See `Trigger`."""
        return None


class Every(Never):
    """A search is due every so many rows."""

    def __init__(self, rows: int) -> None:
        """Begin to count.

        Args:
            rows: How many.

        Raises:
            GnncomposeError: It is no whole number from 1 up.
        """
        counts("trigger", 1, rows=rows)
        self._every = rows
        self._since = 0
        self._rounds = 0

    def __str__(self) -> str:
        return f"every {self._every} rows"

    def rows(self, x: np.ndarray, answers: np.ndarray) -> str | None:
        """See `Trigger`."""
        self._since += len(x)
        if self._since < self._every:
            return None
        self._since = 0
        return f"{self._every} rows came"


class OnDrift:
    """A search is due when inputs, answers or errors are no longer what they were, or what is around them."""

    def __init__(self, detectors: Sequence[Detector] | None = None, rows_between_false_alarms: int = 100_000) -> None:
        """Set how to watch; see `DriftMonitor`.

        Args:
            detectors: What watches; None for the usual ones.
            rows_between_false_alarms: Mean number of rows until any of them errs, at least.

        Raises:
            GnncomposeError: The latter is no whole number from 1 up.
        """
        counts("trigger", 1, rows_between_false_alarms=rows_between_false_alarms)
        self._detectors = DETECTORS if detectors is None else tuple(detectors)
        self._rows_between_false_alarms = rows_between_false_alarms
        self._monitor: DriftMonitor | None = None
        self._heeds_errors = False

    def __str__(self) -> str:
        return "when inputs, answers, errors, the catalog or prices change"

    def begin(self, reference: Reference) -> None:
        """See `Trigger`."""
        self._heeds_errors = reference.errors is not None
        if self._monitor is None:
            self._monitor = DriftMonitor(reference, self._detectors, self._rows_between_false_alarms)
        else:
            self._monitor.rebase(reference)

    def rows(self, x: np.ndarray, answers: np.ndarray) -> str | None:
        """See `Trigger`."""
        assert self._monitor is not None
        return _first(self._monitor.update(x, answers))

    def errors(self, rows: np.ndarray, errors: np.ndarray) -> str | None:
        """See `Trigger`."""
        assert self._monitor is not None
        return _first(self._monitor.update_errors(rows, errors)) if self._heeds_errors else None

    def news(self, what: str) -> str | None:
        """See `Trigger`."""
        return what


def _first(alarms: tuple[Alarm, ...]) -> str | None:
    return alarms[0].message if alarms else None


@dataclass(frozen=True)
class Adapted:
    """What a search brought.

    Attributes:
        row: Number of rows that had come by then.
        reason: Why it was due.
        due: Number of rows that had come when it became due.
        trials: What was measured, the composition that was live first.
        chosen: What is live now.
        swapped: Whether that is another one than before.
    """

    row: int
    reason: str
    due: int
    trials: tuple[Trial, ...] = field(repr=False)
    chosen: Composition
    swapped: bool


class Seen(Protocol):
    """The rows that have come, by their numbers."""

    def evaluator(self, rows: Int[np.ndarray, " row"]) -> Evaluator:
        """What evaluates compositions on labelled rows."""
        ...

    def reference(self, composition: Composition, rows: Int[np.ndarray, " row"]) -> Reference:
        """Inputs of labelled rows, what a composition answers on them, and its errors."""
        ...


def stand_in(composition: Composition, space: Space) -> Composition:
    """What stays deployed where the catalog may have lost a part of it: itself, else the best single model."""
    is_whole = all(node.operator.name in space.catalog.by_name for node in composition.nodes)
    return composition if is_whole else best_single_model(space)


def best_single_model(space: Space) -> Composition:
    """The model with the best score on clean data by its profile; where none has one, the space's start."""
    models = [c for c in space.single_models() if c.root.operator.profile.score is not None]
    return max(models, key=lambda c: c.root.operator.profile.score or 0.0, default=space.start)


class Controller:
    """Adapts one deployment.

    Attributes:
        live: What is deployed, as far as the controller knows.
        due: Why a search is due; None where none is.
    """

    def __init__(
        self,
        live: Composition,
        space: Space,
        agent: Agent,
        trigger: Trigger,
        seen: Seen,
        reward: Callable[[Evaluation], float],
        generator: np.random.Generator,
        settings: Settings | None = None,
        old: Sequence[Trial] = (),
    ) -> None:
        """Begin to watch; the trigger has its reference.

        Args:
            live: What is deployed.
            space: Where to search.
            agent: Who searches.
            trigger: Says when.
            seen: Has the rows that come.
            reward: Says how good an evaluation is.
            generator: Source of all randomness.
            settings: How.
            old: Trials of earlier searches, for agents that recall.
        """
        self.live = live
        self.due: str | None = None
        self._space = space
        self._agent = agent
        self._trigger = trigger
        self._seen = seen
        self._reward = reward
        self._generator = generator
        self._settings = settings or Settings()
        self._labelled: deque[int] = deque(maxlen=self._settings.window)
        self._old = list(old)
        self._rows = 0
        self._noticed = 0
        self._since = 0
        self._rounds = 0

    def rows(self, x: np.ndarray, answers: np.ndarray) -> None:
        """Heed rows that were answered, the next ones in order."""
        self._rows += len(x)
        self._heed(self._trigger.rows(x, answers))

    def labels(self, rows: Int[np.ndarray, " label"], errors: Float[np.ndarray, " label"] | None) -> None:
        """Heed labels, whenever they come.

        Args:
            rows: Number of each row, 0 for the first.
            errors: From 0 for a right answer to 1 for a wrong one; None where the task has no such.
        """
        self._labelled.extend(rows.tolist())
        if errors is not None:
            self._heed(self._trigger.errors(rows, errors))

    def take(self, space: Space, reward: Callable[[Evaluation], float]) -> None:
        """Search another space from here on, since the catalog or prices have changed."""
        self._space = space
        self._reward = reward

    def demand(self, reason: str) -> None:
        """Have a search made for another reason than rows and errors, on the latest labelled rows."""
        self.due, self._since, self._noticed = reason, 0, self._rows

    def news(self, what: str, space: Space, reward: Callable[[Evaluation], float]) -> None:
        """Go on in a world whose catalog, prices or load have changed; its trigger says whether to search for that."""
        self.take(space, reward)
        reason = self._trigger.news(what)
        if reason is not None:
            self.demand(reason)

    def _heed(self, reason: str | None) -> None:
        if reason is not None and self.due is None:
            self.due, self._since, self._noticed = reason, self._rows, self._rows

    @property
    def lacking(self) -> int:
        """Labelled rows that a search would have to wait for now."""
        return self._settings.window - len(self._usable())

    def _usable(self) -> list[int]:
        """The labelled rows that a search may use: those that came since it became due."""
        return [row for row in self._labelled if row >= self._since]

    def act(self) -> Adapted | None:
        """Search where that is due and there are labelled rows enough; what it brought.

        Raises:
            GnncomposeError: What is live cannot be evaluated.
        """
        if self.due is None or self.lacking:
            return None
        rows = np.array(self._usable(), dtype=np.int64)
        reason, noticed, self.due = self.due, self._noticed, None
        trials = self._searched(self._seen.evaluator(rows))
        best = max(trials, key=lambda trial: trial.rank)
        swapped = best.composition.id != self.live.id and best.reward > trials[0].reward + self._settings.margin
        if swapped:
            self.live = best.composition
        self._trigger.begin(self._seen.reference(self.live, rows))
        self._rounds += 1
        if swapped and self._rounds < self._settings.rounds:
            self._heed(reason)
        else:
            self._rounds = 0
        return Adapted(self._rows, reason, noticed, tuple(trials), self.live, swapped)

    def _searched(self, evaluator: Evaluator) -> list[Trial]:
        """What the agent measured, what is live first."""
        space = replace(self._space, initial=self.live)
        budget = Budget(evaluator, self._reward, self._settings.evaluations)
        if isinstance(self._agent, Recalls):
            self._agent.recall(self._old)
        search(self._agent, space, budget, self._generator)
        self._old = [*self._old, *budget.trials][-self._settings.remembered :]
        return budget.trials
