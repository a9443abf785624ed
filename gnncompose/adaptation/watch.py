"""Watches a server from a process of its own, and swaps what it serves when something better is found.

All that is heavy happens here, at the lowest priority: detectors, the agent, and the evaluations that it asks for. The
server only answers, keeps its latest rows, and deploys what it is told to, by its admin address
(`deployment/admin.py`).
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from gnncompose.adaptation.admin import Admin, WatchError
from gnncompose.adaptation.controller import Adapted, Controller, Settings, Trigger, best_single_model
from gnncompose.adaptation.live_rows import LiveRows
from gnncompose.agents.agent import Agent
from gnncompose.composition.files import composition_from_json
from gnncompose.composition.tree import Composition
from gnncompose.errors import CompositionError, GnncomposeError
from gnncompose.evaluation.cost import Prices, load_prices
from gnncompose.evaluation.evaluation import Trial
from gnncompose.ranges import above_zero, at_least, counts, shares
from gnncompose.reward import Reward
from gnncompose.tasks.bundle import CATALOG_FILE, load_task
from gnncompose.tasks.task import Task, World

NICER = 19
log = logging.getLogger(__name__)
T = TypeVar("T")


class Followed(Generic[T]):
    """A file that may change."""

    def __init__(self, path: Path | None, read: Callable[[Path], T]) -> None:
        self._path = path
        self._read = read
        self._stamp = self._stamped()

    def _stamped(self) -> int | None:
        try:
            return None if self._path is None else self._path.stat().st_mtime_ns
        except FileNotFoundError:  # it is being replaced
            return None

    def fresh(self) -> T | None:
        """What it holds, where it has changed since this was asked last and breaks no rule."""
        stamp = self._stamped()
        if self._path is None or stamp in (None, self._stamp):
            return None
        self._stamp = stamp
        try:
            return self._read(self._path)
        except GnncomposeError as problem:
            log.warning("%s has changed, and is left alone until it changes again: %s", self._path, problem)
            return None


@dataclass(frozen=True)
class Watching:
    """How a server is watched.

    Attributes:
        poll_s: How often it is asked for rows.
        kept_rows: Rows that are kept until their labels come.
        shadow_requests: Requests that a new composition answers in the shadow before it goes live.
        shadow_s: How long that may take; then it goes live without.
        failures: Share of these that it may fail.
        resource: Where compositions are measured, as named in the price file.
        load: How requests arrive there.
    """

    poll_s: float = 1.0
    kept_rows: int = 20_000
    shadow_requests: int = 50
    shadow_s: float = 30.0
    failures: float = 0.0
    resource: str = "cpu-1"
    load: str = "single_stream"

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where a number is out of its range."""
        above_zero("watching", poll_s=self.poll_s)
        counts("watching", 1, kept_rows=self.kept_rows)
        counts("watching", 0, shadow_requests=self.shadow_requests)
        at_least("watching", 0, shadow_s=self.shadow_s)
        shares("watching", failures=self.failures)


class Watcher:
    """Watches one server."""

    def __init__(
        self,
        admin: Admin,
        task: Task,
        agent: Agent,
        trigger: Trigger,
        reward: Reward,
        prices: Prices,
        generator: np.random.Generator,
        settings: Settings,
        watching: Watching,
        old: Sequence[Trial] = (),
    ) -> None:
        """Begin with what is live, and with clean validation data as what is usual.

        Raises:
            WatchError: The server cannot be reached, or serves another task.
        """
        self._admin = admin
        self._trigger = trigger
        self._settings = settings
        self._watching = watching
        # Bound once: were its scales to follow prices, a price that doubles would change nothing.
        world = World(task.conditions[0], watching.resource, watching.load)
        self._reward = reward.bind(task.catalog, prices, world)
        self._rows = LiveRows(task, prices, watching.resource, watching.load, watching.kept_rows)
        status = admin.status()
        if status["task"] != task.name:
            raise WatchError(f'the server serves "{status["task"]}", not "{task.name}"; watch that task')
        live = self._read(status["live"]["document"])
        trigger.begin(self._rows.usual(live, task.split(task.conditions[0], "validation")))
        self.controller = Controller(
            live, task.space, agent, trigger, self._rows, self._reward, generator, settings, old
        )
        self._catalog = Followed(task.directory / CATALOG_FILE, lambda path: load_task(path.parent))
        self._price_file = Followed(prices.path, self._priced)
        self._told: str | None = ""  # of drift
        self._since = self._label = self._count = 0
        self._places: deque[tuple[int, int, int]] = deque()  # of stretches: first row there, first number here, rows

    def _read(self, document: dict[str, Any]) -> Composition:
        task = self._rows.task
        return composition_from_json(document, task.catalog, task.input.type, name="what is live")

    def run(self, ended: Callable[[], bool]) -> None:
        """Watch until told to end, at the lowest priority; say what changes, and no more."""
        os.nice(NICER)
        where = f"{self._rows.task.name} at {self._admin.url}, where {self.controller.live} is live"
        needs = f"each on {self._settings.window} labelled rows (POST /labels)"
        log.info("watching %s; searches: %s, %s", where, self._trigger, needs)
        said = None
        while not ended():
            try:
                self.once()
                if said is not None:
                    log.info("the server answers again")
                said = None
            except WatchError as problem:
                if said != str(problem):
                    log.warning("the server does not answer: %s", problem)
                said = str(problem)
            time.sleep(self._watching.poll_s)

    def once(self) -> Adapted | None:
        """Heed what came, and act where that is due; what a search brought.

        Raises:
            WatchError: The server cannot be reached.
        """
        found = self._admin.rows(self._since, self._label)
        if "first" in found:
            self._heed_rows(int(found["first"]), found["x"], found["answers"])
        if len(found["label_rows"]):
            self._heed_labels(found["label_rows"].tolist(), found["labels"].tolist())
        self._label = int(found["next_label"])
        self._heed_news()
        live = self._live()
        if live.id != self.controller.live.id:  # someone else swapped, or the server rolled back
            self.controller.live = live
            log.info("%s is live now, by another's doing", live)
        self._tell_drift()
        if self.controller.due is not None and not self.controller.lacking:
            log.info("searching, at most %d compositions: %s", self._settings.evaluations, self.controller.due)
        adapted = self.controller.act()
        if adapted is None:
            return None
        self._told = ""  # whatever is due now is so for another search
        best, before = max(trial.reward for trial in adapted.trials), adapted.trials[0].reward
        if adapted.swapped:
            log.info("found %s: reward %.4f, of what is live %.4f", adapted.chosen, best, before)
            self._swap(adapted, live)
        else:
            log.info("found nothing better than %s: reward %.4f, of the best one %.4f", live, before, best)
        return adapted

    def _heed_rows(self, first: int, x: np.ndarray, answers: np.ndarray) -> None:
        if not self._places or first != sum(self._places[-1][::2]):
            self._places.append((first, self._count, 0))
        there, here, rows = self._places[-1]
        self._places[-1] = there, here, rows + len(x)
        self._rows.tell(self._count, x, answers)
        self._count += len(x)
        self._since = first + len(x)
        self.controller.rows(x, answers)

    def _heed_labels(self, rows: list[int], labels: list[Any]) -> None:
        numbers = [self._number(row) for row in rows]
        known = [(number, label) for number, label in zip(numbers, labels, strict=True) if number is not None]
        kept, errors = self._rows.label([number for number, _ in known], [label for _, label in known])
        if len(kept):
            self.controller.labels(kept, errors)

    def _number(self, row: int) -> int | None:
        """The number here of a row there; None where it was not seen."""
        for there, here, rows in self._places:
            if there <= row < there + rows:
                return here + row - there
        return None

    def _tell_drift(self) -> None:
        """Say, and let the dashboard show, why a search is due, or that none is."""
        due = self.controller.due
        if due == self._told:
            return
        if due is not None and self.controller.lacking:
            log.info("a search is due, and waits for %d more labelled rows: %s", self.controller.lacking, due)
        since = None if due is None else datetime.now(UTC).isoformat(timespec="seconds")
        state = {"signal": due or "every signal", "value": None, "alarmed": due is not None, "since": since}
        self._admin.change("drift", signals=[state])
        self._told = due

    def _live(self) -> Composition:
        """What is live; where the catalog no longer has it, the best single model takes its place at once.

        Raises:
            WatchError: The server cannot be reached, or refuses.
        """
        told = self._admin.status()["live"]
        try:
            return self._read(told["document"])
        except CompositionError as problem:
            best = best_single_model(self._rows.task.space)
            self._admin.deploy(best, f"{told['composition']} was withdrawn: {problem}")
            return best

    def _heed_news(self) -> None:
        """Go on with a changed catalog or changed prices."""
        task, prices = self._catalog.fresh(), self._price_file.fresh()
        if task is None and prices is None:
            return
        if task is not None:
            self._admin.change("reload")
        self._rows.take(task or self._rows.task, prices or self._rows.prices)
        changed = " and ".join(["the catalog"] * (task is not None) + ["prices"] * (prices is not None))
        self.controller.news(f"{changed} changed", self._rows.task.space, self._reward)

    def _priced(self, path: Path) -> Prices:
        prices = load_prices(path)
        prices.resource(self._watching.resource)
        return prices

    def _swap(self, adapted: Adapted, before: Composition) -> None:
        """Let what was found answer in the shadow, then make it live."""
        reason = f"{adapted.reason}; {adapted.trials[0].reward:.4f} → {max(t.reward for t in adapted.trials):.4f}"
        try:
            self._admin.deploy(adapted.chosen, reason, how="shadow", share=1.0)
            due, patience_s = self._watching.shadow_requests, self._watching.shadow_s
            log.info("%s is a shadow now; it waits for %d requests, or %g s", adapted.chosen, due, patience_s)
            deadline = time.monotonic() + patience_s
            while (tried := self._admin.status()["tried"]) and tried["mirrored"] < due:
                if time.monotonic() > deadline:
                    log.info("only %d of %d requests came in %g s", tried["mirrored"], due, patience_s)
                    break
                time.sleep(min(self._watching.poll_s, 0.1))
            if not tried or tried["failed"] > self._watching.failures * max(tried["mirrored"], 1):
                raise WatchError("it failed in the shadow")
            self._admin.change("promote", reason=reason)
            log.info("swapped: %s: %s", adapted.chosen, reason)
        except WatchError as problem:
            self.controller.live = before
            log.warning("not swapped: %s: %s", adapted.chosen, problem)
