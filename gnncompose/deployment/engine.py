"""The deployment engine: one composition is live, another may be tried beside it, and swaps drop no request.

A composition is first run aside in a limited process (`served.probe`), then loaded and warmed here, and only then put
in place of the live one by swapping one reference; the old one answers what it has begun. The one before the live one
stays loaded: it answers where the live one fails, and takes over again where that leaves its bounds.
"""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from gnncompose.composition.files import composition_from_json, composition_to_json
from gnncompose.composition.tree import Composition
from gnncompose.deployment.comparison import Comparison
from gnncompose.deployment.history import Deployment, DeploymentError, History
from gnncompose.deployment.ordinary import Ordinary
from gnncompose.deployment.served import Bounds, Probe, Served, probe
from gnncompose.errors import EvaluationError, GnncomposeError
from gnncompose.execution.isolation import Isolate
from gnncompose.execution.worker import Limits
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task

PROBE_ROWS = 16
MIRRORED = 64  # requests that may wait for the one that is tried
Trial = Literal["shadow", "canary"]
log = logging.getLogger(__name__)


class Answered(NamedTuple):
    """An answer.

    Attributes:
        y: [rows, ...] of the output's type.
        version: Of the deployment that gave it.
    """

    y: np.ndarray
    version: int


@dataclass(frozen=True)
class Settings:
    """How an engine serves.

    Attributes:
        bounds: What deployments must keep to.
        limits: What a limited process may take.
        isolate: Whether trusted artifacts may run in this process.
    """

    bounds: Bounds = field(default_factory=Bounds)
    limits: Limits = field(default_factory=Limits)
    isolate: Isolate = "untrusted"


class Answering(NamedTuple):
    """What is live, and what was before it: one reference, so that a swap is one assignment."""

    live: Served | None = None
    before: Served | None = None


class Tried(NamedTuple):
    """A deployment beside the live one: how, and for which share of the requests."""

    served: Served
    how: Trial
    share: float
    comparison: Comparison


class Deployed(NamedTuple):
    """What a command to deploy, or to try, did.

    Attributes:
        version: What was deployed.
        ended: What was tried before and ended for it, in words; None where nothing was.
    """

    version: int
    ended: str | None = None


class Engine:
    """Serves one task; all of it may be used from several threads.

    Attributes:
        task: Whose compositions.
        history: What was deployed.
    """

    def __init__(self, task: Task, history: History, settings: Settings | None = None) -> None:
        """Serve nothing yet; `start` follows.

        Args:
            task: Whose compositions; a few of its clean validation rows try what is deployed.
            history: Where to note what is deployed.
            settings: How to serve.
        """
        self.task = task
        self.history = history
        self._settings = settings or Settings()
        known = task.split("clean", "validation").x
        self._ordinary = Ordinary.of(known)
        self._rows = known[:PROBE_ROWS]
        if self._rows.dtype.kind == "U":
            self._rows = self._rows.astype(object)  # ONNX Runtime takes text as object arrays only
        self._serving = Answering()
        self._tried: Tried | None = None
        self._changing = threading.RLock()  # one change at a time; answers never wait for it
        self._check_due = threading.Lock()
        self._credit = 0.0
        self._credit_lock = threading.Lock()
        self._mirror: queue.Queue[tuple[Tried, np.ndarray, np.ndarray] | None] = queue.Queue(MIRRORED)
        self._mirroring = threading.Thread(target=self._compare, name="shadow", daemon=True)
        self._mirroring.start()

    def start(self, first: Composition | None = None, reason: str = "first") -> None:
        """Serve what was live last, or the best one before it that still runs; or a first composition.

        Args:
            first: What to serve; None to go on with what was live.
            reason: Why it is served.

        Raises:
            DeploymentError: It is refused, or there is nothing that can be served.
        """
        with self._changing:
            problems: list[str] = []
            for deployment in self.history.good():
                try:
                    self._serving = Answering(self._loaded(deployment))
                    break
                except DeploymentError as problem:
                    problems.append(f"version {deployment.version}: {problem}")
                    log.warning("not served again", extra={"version": deployment.version, "why": str(problem)})
            live = self._serving.live
            if first is not None and (live is None or live.composition.id != first.id):
                self.deploy(first, reason)
            if self._serving.live is None:
                said = "; ".join(problems) or "nothing was deployed yet"
                raise DeploymentError(f"there is nothing to serve: {said}; give a composition")

    @property
    def live(self) -> Served:
        """What answers.

        Raises:
            DeploymentError: Nothing does yet.
        """
        live = self._serving.live
        if live is None:
            raise DeploymentError("nothing is served")
        return live

    @property
    def versions(self) -> list[int]:
        """The versions that give answers now: the live one, and a canary."""
        live, tried = self._serving.live, self._tried
        answering = [live, tried.served if tried is not None and tried.how == "canary" else None]
        return [served.version for served in answering if served is not None]

    def is_quick(self, rows: int) -> bool:
        """Whether so many rows are answered sooner than another thread would be woken for them."""
        live, tried = self._serving.live, self._tried
        return live is not None and live.is_quick(rows) and (tried is None or tried.served.is_quick(rows))

    def answer(self, x: np.ndarray) -> Answered:
        """Answer rows by what is live, or by what is tried.

        Args:
            x: [rows, ...] of the task's input type, at least one row.

        Raises:
            EvaluationError: Neither the live composition nor the one before it answers these rows, or the live one
                does not and they are unlike the task's data.
        """
        tried = self._tried
        if tried is None or not self._is_picked(tried.share):
            return self._answer_live(x)
        if tried.how == "canary":
            found = self._answer_of(tried.served, x)
            if found is None:
                found = self._answer_live(x)
                if self._ordinary.fault_of(x) is None:
                    self._failed(tried.served)
            return found
        found = self._answer_live(x)
        try:
            self._mirror.put_nowait((tried, x, found.y))
        except queue.Full:
            tried.comparison.skipped()
        return found

    def _answer_live(self, x: np.ndarray) -> Answered:
        while True:
            serving, live = self._serving, self.live
            if not live.hold():
                continue  # swapped out meanwhile
            try:
                return Answered(live.answer(x), live.version)
            except EvaluationError as problem:
                fault = self._ordinary.fault_of(x)
                if fault is not None:
                    raise EvaluationError(f"version {live.version} gives no answer: {fault}") from problem
                before = serving.before
                found = None if before is None or before is live else self._answer_of(before, x)
                if found is not None:
                    self._failed(live)
                    return found
                if serving.live is self._serving.live:  # most likely these rows are to blame
                    raise
            finally:
                live.let_go()

    def _answer_of(self, served: Served, x: np.ndarray) -> Answered | None:
        """The answer of one that may fail; None where it does."""
        if not served.hold():
            return None
        try:
            return Answered(served.answer(x), served.version)
        except EvaluationError as problem:
            log.warning("failed", extra={"version": served.version, "why": str(problem)})
            return None
        finally:
            served.let_go()

    def _failed(self, served: Served) -> None:
        """Hold a failure against a deployment, since another one answered the same rows."""
        served.health.failed()
        if served.health.complaint() is not None and self._check_due.acquire(blocking=False):
            threading.Thread(target=self._check_aside, name="check", daemon=True).start()

    def _check_aside(self) -> None:
        try:
            self.check()
        finally:
            self._check_due.release()

    def _is_picked(self, share: float) -> bool:
        """Whether this request is among the share; evenly spread, without chance."""
        with self._credit_lock:
            self._credit += share
            picked = self._credit >= 1.0
            self._credit -= picked
        return picked

    def check(self) -> None:
        """End what is tried, or roll back, where bounds were left; a server calls it now and then."""
        with self._changing:
            tried = self._tried
            complaint = None if tried is None else self.complaint(tried.served)
            if complaint is not None:
                self.abort(complaint)
            live, before = self._serving
            complaint = None if live is None else self.complaint(live)
            if complaint is not None and before is not None and self.complaint(before) is None:
                try:
                    self.roll_back(complaint)
                except DeploymentError as problem:
                    log.error("not rolled back", extra={"why": str(problem)})

    def complaint(self, served: Served) -> str | None:
        """What bound a deployment left of late; None where all is well."""
        return served.health.complaint()

    def changed(self) -> None:
        """Is called, with all else waiting, once something else is live or tried; for engines that others follow."""

    def deploy(self, composition: Composition, reason: str) -> Deployed:
        """Make a composition live; what is tried ends.

        Raises:
            DeploymentError: It is refused; what was live still is.
        """
        with self._changing:
            deployment = self.history.add(composition_to_json(composition), reason)
            served = self._verified(deployment, composition)
            ended = self._end_trial(f"version {served.version} was deployed instead")
            self._make_live(served, reason)
            self.changed()
            return Deployed(served.version, ended)

    def try_out(self, composition: Composition, reason: str, how: Trial, share: float) -> Deployed:
        """Try a composition beside the live one: as a shadow its answers are compared, as a canary they are given.

        What was tried before ends.

        Args:
            composition: What to try.
            reason: Why.
            how: `shadow` or `canary`.
            share: Of the requests, over 0 and at most 1.

        Raises:
            DeploymentError: It is refused, or the share is none.
        """
        if how not in ("shadow", "canary"):
            raise DeploymentError(f"how: there is no way {how!r} to try a deployment; choose shadow or canary")
        if not 0.0 < share <= 1.0:
            raise DeploymentError(f"share: {share} is no share of the requests; choose one over 0 and at most 1")
        with self._changing:
            _ = self.live
            deployment = self.history.add(composition_to_json(composition), reason)
            served = self._verified(deployment, composition)
            ended = self._end_trial(f"version {served.version} is tried instead")
            self.history.note(served.version, how, f"{share:.0%} of the requests: {reason}")
            self._tried = Tried(served, how, share, Comparison())
            self.changed()
            return Deployed(served.version, ended)

    def promote(self, reason: str = "promoted") -> int:
        """Make what is tried live; its version.

        Raises:
            DeploymentError: Nothing is tried.
        """
        with self._changing:
            if self._tried is None:
                raise DeploymentError("nothing is tried; begin a shadow or a canary first")
            served, self._tried = self._tried.served, None
            self._make_live(served, reason)
            self.changed()
            return served.version

    def abort(self, reason: str = "aborted") -> int:
        """End what is tried; its version.

        Raises:
            DeploymentError: Nothing is tried.
        """
        with self._changing:
            if self._tried is None:
                raise DeploymentError("nothing is tried")
            version = self._tried.served.version
            self._end_trial(reason)
            self.changed()
            return version

    def roll_back(self, reason: str = "by command") -> int:
        """Make the last good deployment before the live one live again; its version.

        Raises:
            DeploymentError: There is none that runs.
        """
        with self._changing:
            bad = self.live
            for deployment in self.history.good():
                if deployment.version == bad.version:
                    continue
                try:
                    served = self._taken_back(deployment)
                except DeploymentError as problem:
                    log.warning("not rolled back to", extra={"version": deployment.version, "why": str(problem)})
                    continue
                self._end_trial("the live one was rolled back")
                self.history.note(bad.version, "rolled_back", reason)
                self._make_live(served, f"rolled back from version {bad.version}: {reason}")
                self.changed()
                return served.version
            raise DeploymentError("there is no good deployment before the live one")

    def _taken_back(self, deployment: Deployment) -> Served:
        """An earlier deployment, as it is still loaded or loaded anew."""
        before = self._serving.before
        if before is not None and before.version == deployment.version and self.complaint(before) is None:
            return before
        return self._loaded(deployment)

    def reload(self) -> None:
        """Read the task's bundle again, whose catalog has changed; what is live stays live.

        Raises:
            GnncomposeError: The bundle breaks a rule; the task stays as it was.
        """
        fresh = load_task(self.task.directory)
        if (fresh.input.type, fresh.output.type) != (self.task.input.type, self.task.output.type):
            raise DeploymentError("the task takes or gives something else now; serve it anew")
        with self._changing:
            self.task = fresh

    def status(self) -> dict[str, Any]:
        """What is live, what is tried and how that goes, and what stands ready; as plain data."""
        tried, (live, before) = self._tried, self._serving
        return {
            "task": self.task.name,
            "live": None if live is None else _told(live),
            "before": None if before is None else _told(before),
            "tried": None
            if tried is None
            else {**_told(tried.served), "how": tried.how, "share": tried.share, **tried.comparison.told()},
        }

    def close(self) -> None:
        """Let go of all that is loaded, and of the history."""
        with self._changing:
            self._end_trial("the server ended", note=False)
            serving, self._serving = self._serving, Answering()
            for served in serving:
                if served is not None:
                    served.retire()
            self._mirror.put(None)
            self.history.close()

    def _verified(self, deployment: Deployment, composition: Composition) -> Served:
        """A deployment that was tried aside, loaded and warmed; a refusal is noted."""
        try:
            return self._ready(deployment.version, composition)
        except GnncomposeError as problem:
            self.history.note(deployment.version, "refused", str(problem))
            if isinstance(problem, DeploymentError):
                raise
            raise DeploymentError(f"refused: {problem}") from None

    def _loaded(self, deployment: Deployment) -> Served:
        """A deployment of the history, which may hold what the catalog has no more."""
        name, source = f"version {deployment.version}", self.task.input.type
        try:
            composition = composition_from_json(deployment.composition, self.task.catalog, source, name=name)
            return self._ready(deployment.version, composition)
        except DeploymentError:
            raise
        except GnncomposeError as problem:
            raise DeploymentError(f"refused: {problem}") from None

    def _ready(self, version: int, composition: Composition) -> Served:
        settings = self._settings
        kind, wanted = composition.root.type, self.task.output.type
        if not self.task.space.is_answer(kind):
            raise DeploymentError(f"refused: {composition} gives {kind}, not {wanted}")
        seen: Probe = probe(composition, self.task, self._rows, settings.bounds, settings.limits)
        served = Served(composition, version, self.task, seen, settings.bounds, settings.limits, settings.isolate)
        try:
            served.warm(self._rows, seen)
        except BaseException:
            served.retire()
            raise
        return served

    def _make_live(self, served: Served, reason: str) -> None:
        """Note it first: whoever is killed in between begins again with what was found good."""
        self.history.note(served.version, "live", reason)
        oldest, self._serving = self._serving.before, Answering(served, self._serving.live)
        if oldest is not None and oldest is not served:
            oldest.retire()
        log.info("live", extra={"version": served.version, "composition": str(served.composition), "why": reason})

    def _end_trial(self, reason: str, note: bool = True) -> str | None:
        """End what is tried; what that was, in words."""
        tried, self._tried = self._tried, None
        if tried is None:
            return None
        what = f"the {tried.how} of version {tried.served.version}"
        if note:
            self.history.note(tried.served.version, "aborted", f"its {tried.how} ended: {reason}")
        tried.served.retire()
        return what

    def _compare(self) -> None:
        """Answer mirrored requests once more, by what is tried."""
        while (waiting := self._mirror.get()) is not None:
            tried, x, given = waiting
            found = self._answer_of(tried.served, x)
            if found is None and self._ordinary.fault_of(x) is not None:
                tried.comparison.skipped()
                continue
            tried.comparison.tell(given, None if found is None else found.y)
            if found is None:
                self._failed(tried.served)


def _told(served: Served) -> dict[str, Any]:
    return {
        "version": served.version,
        "composition": str(served.composition),
        "document": composition_to_json(served.composition),
        "composition_id": served.composition.id,
        "trusted": served.trusted,
        "row_ms": round(served.row_ms, 4),
    }
