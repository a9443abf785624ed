"""The engine of a replica: it serves what the front tells it to, and changes nothing by itself."""

from __future__ import annotations

import logging
import os
from typing import Any, NamedTuple

from gnncompose.deployment.comparison import Comparison
from gnncompose.deployment.engine import Answering, Engine, Settings, Trial, Tried
from gnncompose.deployment.history import Deployment, DeploymentError, History
from gnncompose.deployment.served import Served
from gnncompose.tasks.task import Task

log = logging.getLogger(__name__)


class Trying(NamedTuple):
    """What is to be tried, how, and for which share of the requests."""

    deployment: Deployment
    how: Trial
    share: float


class Target(NamedTuple):
    """What all replicas are to serve.

    Attributes:
        number: Counts up with each change.
        live: Answers.
        before: Stands ready.
        tried: Is tried beside the live one.
    """

    number: int
    live: Deployment
    before: Deployment | None = None
    tried: Trying | None = None


class Report(NamedTuple):
    """How a replica does.

    Attributes:
        number: Of the target that it serves.
        complaints: What bound a deployment left, by its version.
        comparison: What the shadow's comparison tells; None where nothing is tried.
        pid: Of its process.
    """

    number: int
    complaints: dict[int, str]
    comparison: dict[str, Any] | None
    pid: int


class Follower(Engine):
    """Serves a target; all of it may be used from several threads.

    Attributes:
        number: Of the target that is served; 0 for none yet.
    """

    def __init__(self, task: Task, settings: Settings | None = None) -> None:
        """Serve nothing yet; `follow` comes next.

        Args:
            task: Whose compositions.
            settings: How to serve.
        """
        super().__init__(task, History(None), settings)
        self.number = 0
        self._prepared: Served | None = None

    def prepare(self, deployment: Deployment) -> None:
        """Try a deployment aside, load it and warm it; it answers nothing before a target has it.

        Raises:
            DeploymentError: It is refused.
        """
        with self._changing:
            self.forget()
            self._prepared = self._loaded(deployment)

    def forget(self) -> None:
        """Unload what was prepared: another replica refused it."""
        with self._changing:
            prepared, self._prepared = self._prepared, None
            if prepared is not None:
                prepared.retire()

    def follow(self, target: Target) -> None:
        """Serve a target, and load what of it is not there yet; what is served already stays as it is.

        Raises:
            DeploymentError: What is to be live is refused; what was served still is.
        """
        with self._changing:
            if target.number == self.number:
                return
            known = {served.version: served for served in self._at_hand()}
            live = known.get(target.live.version) or self._loaded(target.live)
            before = self._spare(target.before, known)
            tried = None if target.tried is None else self._spare(target.tried.deployment, known)
            self._tried = None if target.tried is None or tried is None else self._trial(target.tried, tried)
            self._serving = Answering(live, before)
            self._prepared = None
            self.number = target.number
            for served in known.values():
                if served not in (live, before, tried):
                    served.retire()

    def report(self) -> Report:
        """How it does."""
        complaints = {served.version: served.health.complaint() for served in self._at_hand()}
        tried = self._tried
        return Report(
            self.number,
            {version: complaint for version, complaint in complaints.items() if complaint is not None},
            None if tried is None else tried.comparison.told(),
            os.getpid(),
        )

    def check(self) -> None:
        """Do nothing: the front hears of complaints, and decides for all replicas."""

    def close(self) -> None:
        """Let go of all that is loaded."""
        self.forget()
        super().close()

    def _at_hand(self) -> list[Served]:
        live, before = self._serving
        tried = self._tried
        loaded = [live, before, None if tried is None else tried.served, self._prepared]
        return [served for served in loaded if served is not None]

    def _spare(self, deployment: Deployment | None, known: dict[int, Served]) -> Served | None:
        """What can be done without where it does not load."""
        if deployment is None or deployment.version in known:
            return None if deployment is None else known[deployment.version]
        try:
            return self._loaded(deployment)
        except DeploymentError as problem:
            log.warning("not loaded", extra={"version": deployment.version, "why": str(problem)})
            return None

    def _trial(self, trying: Trying, served: Served) -> Tried:
        """The trial that is under way, whose comparison goes on, or a new one."""
        tried = self._tried
        if tried is not None and tried.served is served and (tried.how, tried.share) == (trying.how, trying.share):
            return tried
        return Tried(served, trying.how, trying.share, Comparison())
