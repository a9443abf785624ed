"""Serving by several replicas on Ray Serve.

The process that was started is the front. It has the addresses, the admin API and the history, as it would have without
Ray; what it is asked it lets replicas answer, each an engine in a process of its own. A deployment is first loaded and
held to its bounds here, then in every replica, and only where all of them take it is it noted on disk and do they swap.
Which composition is live stands on a board, too, which replicas read that start later.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from gnncompose.composition.files import composition_to_json
from gnncompose.composition.tree import Composition
from gnncompose.deployment.comparison import together
from gnncompose.deployment.engine import Answered, Engine, Settings
from gnncompose.deployment.follower import Report, Target, Trying
from gnncompose.deployment.history import Deployment, DeploymentError, History
from gnncompose.deployment.replicas import Scale, set_up_ray, started
from gnncompose.deployment.served import Served
from gnncompose.errors import EvaluationError
from gnncompose.execution.private_ray import first_line
from gnncompose.tasks.task import Task

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.serve.handle import DeploymentHandle

ANSWER_S, REPORT_S, POST_S, MARGIN_S = 30.0, 5.0, 10.0, 30.0
ASKED = 3  # replicas, at most, for one answer: rows that end a process may not end all of them
log = logging.getLogger(__name__)


class Front(Engine):
    """The engine of the front: what it lets replicas answer is loaded here, too, and tried here first."""

    def __init__(self, task: Task, history: History, settings: Settings, scale: Scale) -> None:
        """Serve nothing yet; `start` follows.

        Args:
            task: Whose compositions.
            history: Where to note what is deployed.
            settings: How to serve.
            scale: How many replicas there are.

        Raises:
            DeploymentError: Ray is not installed.
        """
        set_up_ray()
        super().__init__(task, history, settings)
        self._scale = scale
        self._patience_s = settings.limits.timeout_s + MARGIN_S
        self._target: Target | None = None
        self._reports: list[Report] = []
        self._replicas: DeploymentHandle[Any] | None = None
        self._board: ActorHandle | None = None

    def start(self, first: Composition | None = None, reason: str = "first") -> None:
        """Serve what was live last or a first composition, as `Engine.start`, by replicas.

        Raises:
            DeploymentError: It is refused, there is nothing that can be served, or no replica starts.
        """
        super().start(first, reason)
        with self._changing:
            try:
                self._board, self._replicas = started(self.task.directory, self._settings, self._scale, self._aim())
            except Exception as problem:
                self.close()
                raise DeploymentError(f"the replicas do not start: {first_line(problem)}") from None

    def is_quick(self, rows: int) -> bool:
        """Never: another process is asked."""
        return False

    def answer(self, x: np.ndarray) -> Answered:
        """Let a replica answer, and another one where it ends meanwhile.

        Args:
            x: [rows, ...] of the task's input type, at least one row.

        Raises:
            EvaluationError: No deployment answers these rows.
            DeploymentError: No replica answers.
        """
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        if self._replicas is None:
            raise DeploymentError("no replica runs")
        said = ""
        for _ in range(ASKED):
            try:
                found = self._replicas.answer.remote(x).result(timeout_s=ANSWER_S)
            except TimeoutError:
                raise DeploymentError(f"no replica answers within {ANSWER_S:g} s") from None
            except (RayError, RayServeException) as problem:
                said = first_line(problem)
                log.warning("a replica did not answer", extra={"why": said})
                continue
            if isinstance(found, str):
                raise EvaluationError(found)
            return found
        raise DeploymentError(f"no replica answers: {said}")

    def changed(self) -> None:
        """Let all replicas swap to what is live and tried now; who does not hear it is told again by `check`."""
        self._reports = []
        if self._replicas is not None:
            self._tell(self._aim())

    def check(self) -> None:
        """Hear how the replicas do, tell those again that are behind, and end or roll back what left its bounds."""
        with self._changing:
            if self._target is None or self._replicas is None:
                return
            self._reports = [report for report in self._asked("report", REPORT_S) if isinstance(report, Report)]
            if any(report.number != self._target.number for report in self._reports):
                self._tell(self._target)
            else:
                self._post(self._target)  # the board may have been started anew
            super().check()

    def complaint(self, served: Served) -> str | None:
        """What bound a deployment left of late in one of the replicas; None where all is well."""
        complaints = (report.complaints.get(served.version) for report in self._reports)
        return next((complaint for complaint in complaints if complaint is not None), None)

    def reload(self) -> None:
        """Read the task's bundle again, whose catalog has changed, here and in all replicas.

        Raises:
            GnncomposeError: The bundle breaks a rule; what is live stays live.
        """
        super().reload()
        for problem in self._asked("reload", self._patience_s):
            if problem is not None:
                raise DeploymentError(f"a replica did not read it again: {problem}")

    def status(self) -> dict[str, Any]:
        """As `Engine.status`, with the replicas that run, and whether they are behind what is live."""
        status, reports, target = super().status(), list(self._reports), self._target
        compared = [report.comparison for report in reports if report.comparison is not None]
        if status["tried"] is not None and compared:
            status["tried"] |= together(compared)
        running = [{"pid": one.pid, "behind": target is None or one.number != target.number} for one in reports]
        return status | {"replicas": running}

    def close(self) -> None:
        """Let go of all that is loaded, of the replicas and of the history."""
        import ray
        from ray import serve

        with self._changing:
            self._replicas = None
            if ray.is_initialized():  # or else Ray Serve would look for somebody else's
                with suppress(Exception):  # whatever is left of Ray ends with this process
                    serve.shutdown()
                ray.shutdown()
        super().close()

    def _ready(self, version: int, composition: Composition) -> Served:
        """What runs here and in every replica."""
        served = super()._ready(version, composition)
        if self._replicas is None:
            return served
        told = self._asked("prepare", self._patience_s, _deployment(served))
        refusals = [problem for problem in told if problem is not None]
        if refusals:
            self._asked("forget", self._patience_s)
            served.retire()
            said = str(refusals[0]).removeprefix("refused: ")
            raise DeploymentError(f"refused: {len(refusals)} of {len(told)} replicas: {said}")
        return served

    def _aim(self) -> Target:
        """What replicas are to serve from now on."""
        live, before = self._serving
        tried, number = self._tried, 1 if self._target is None else self._target.number + 1
        if live is None:
            raise DeploymentError("nothing is served")
        trying = None if tried is None else Trying(_deployment(tried.served), tried.how, tried.share)
        self._target = Target(number, _deployment(live), None if before is None else _deployment(before), trying)
        return self._target

    def _tell(self, target: Target) -> None:
        self._post(target)
        for problem in self._asked("follow", self._patience_s, target):
            if problem is not None:
                log.warning("a replica is behind", extra={"version": target.live.version, "why": str(problem)})

    def _post(self, target: Target) -> None:
        import ray
        from ray.exceptions import RayError

        try:
            if self._board is not None:
                ray.get(self._board.post.remote(target), timeout=POST_S)
        except RayError as problem:
            log.warning("the board is not there", extra={"why": first_line(problem)})

    def _asked(self, method: str, patience_s: float, *arguments: object) -> list[Any]:
        """What each replica returns; in place of it what went wrong, as a `DeploymentError`."""
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        if self._replicas is None:
            return []
        try:
            broadcast = self._replicas.broadcast(method, *arguments)
            found = broadcast.results(timeout_s=patience_s, return_exceptions=True)
        except (RayError, RayServeException, TimeoutError) as problem:
            found = [problem]
        return [DeploymentError(first_line(one)) if isinstance(one, Exception) else one for one in found]


def _deployment(served: Served) -> Deployment:
    return Deployment(served.version, composition_to_json(served.composition), "", "")
