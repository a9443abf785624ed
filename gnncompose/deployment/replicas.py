"""The replicas of a server on Ray Serve, and the Ray in which they run."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gnncompose.deployment.engine import Answered, Settings
from gnncompose.deployment.follower import Follower, Report, Target
from gnncompose.deployment.history import Deployment, DeploymentError
from gnncompose.deployment.server import go_last
from gnncompose.deployment.serving import SWITCH_S
from gnncompose.errors import EvaluationError, GnncomposeError
from gnncompose.execution import private_ray
from gnncompose.tasks.bundle import load_task

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.serve.handle import DeploymentHandle

NAME = "gnncompose"
LOOK_S = 0.1  # of a new replica, for what it is to serve
HEALTH_S = 2.0  # between looks at whether a replica still lives
SLACK = 4  # batches that a replica takes per worker, so that the front's choice of replicas may be uneven
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scale:
    """How many replicas there are.

    Attributes:
        least: At least.
        most: At most; as many as answers are waited for, where it is more than `least`.
        workers: Batches that each of them answers at once.
    """

    least: int = 1
    most: int = 1
    workers: int = 2

    @classmethod
    def read(cls, text: str, workers: int) -> Scale:
        """What a user wrote: a number, or MIN:MAX.

        Raises:
            DeploymentError: It is neither.
        """
        least, colon, most = text.partition(":")
        most = most if colon else least
        if not (least.isdecimal() and most.isdecimal() and 1 <= int(least) <= int(most)):
            raise DeploymentError(f"--replicas: {text!r} is neither a number nor MIN:MAX; say 2, or 1:4")
        return cls(int(least), int(most), workers)


class Board:
    """Has the target where replicas find it that start after it was told."""

    def __init__(self) -> None:
        self._target: Target | None = None

    def post(self, target: Target) -> None:
        """Put the target up."""
        self._target = target

    def posted(self) -> Target | None:
        """The target; None where the board itself was started anew and not told yet."""
        return self._target


class Replica:
    """One of several processes that answer."""

    def __init__(self, directory: Path, settings: Settings, board: ActorHandle, workers: int) -> None:
        """Load what is live.

        Args:
            directory: Of the task's bundle.
            settings: How to serve.
            board: Has the target.
            workers: Batches that are answered at once.

        Raises:
            DeploymentError: It does not run here; Ray Serve tries again.
        """
        import ray

        sys.setswitchinterval(SWITCH_S)
        self._engine = Follower(load_task(directory), settings)
        self._answers = ThreadPoolExecutor(workers, "answer")
        self._changes = ThreadPoolExecutor(1, "changes", go_last)
        while (target := cast("Target | None", ray.get(board.posted.remote()))) is None:
            time.sleep(LOOK_S)
        self._engine.follow(target)

    async def answer(self, x: np.ndarray) -> Answered | str:
        """The answer to rows, or why there is none."""
        if self._engine.is_quick(len(x)):
            return self._answered(x)
        return await asyncio.get_running_loop().run_in_executor(self._answers, self._answered, x)

    def _answered(self, x: np.ndarray) -> Answered | str:
        try:
            return self._engine.answer(x)
        except EvaluationError as problem:
            return str(problem)

    async def prepare(self, deployment: Deployment) -> str | None:
        """Load a deployment aside; why it is refused, or None."""
        return await self._changed(lambda: self._engine.prepare(deployment))

    async def forget(self) -> str | None:
        """Unload what was prepared."""
        return await self._changed(self._engine.forget)

    async def follow(self, target: Target) -> str | None:
        """Swap to a target; why not, or None."""
        return await self._changed(lambda: self._engine.follow(target))

    async def reload(self) -> str | None:
        """Read the bundle again; why not, or None."""
        return await self._changed(self._engine.reload)

    async def report(self) -> Report:
        """How it does."""
        return self._engine.report()

    async def _changed(self, change: Callable[[], None]) -> str | None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._changes, change)
        except GnncomposeError as problem:
            return str(problem)
        except Exception as problem:  # a change that goes wrong is no reason to end what serves
            log.exception("a change failed")
            return f"{type(problem).__name__}: {problem}"
        return None


def set_up_ray() -> None:
    """Settings that Ray reads when it is first imported: nobody but this user's own processes gets at it.

    Raises:
        DeploymentError: It is not installed.
    """
    private_ray.set_up()
    os.environ |= {
        "RAY_SERVE_ENABLE_HA_PROXY": "0",  # this and the next one would listen at all interfaces
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
    }
    os.environ.setdefault("RAY_SERVE_USE_GRPC_BY_DEFAULT", "1")  # takes half the time of calls by Ray's scheduler
    try:
        import ray.serve  # noqa: F401 - reads the settings
    except ModuleNotFoundError:
        raise DeploymentError("--engine ray needs Ray Serve; run pip install 'gnncompose[ray]'") from None
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).handlers.clear()  # the root logger writes JSON
        logging.getLogger(name).setLevel(logging.WARNING)


def started(
    directory: Path, settings: Settings, scale: Scale, target: Target
) -> tuple[ActorHandle, DeploymentHandle[Any]]:
    """A Ray of its own on this machine, the board and the replicas, which answer already."""
    import ray
    from ray import serve

    ray.init(
        address="local",
        num_cpus=scale.most,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
    )
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    serve.start(proxy_location="Disabled", logging_config=quiet)
    board = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Board).remote()
    ray.get(board.post.remote(target))
    varies = scale.least < scale.most
    replicas = serve.deployment(
        Replica,
        num_replicas=None if varies else scale.least,
        autoscaling_config={
            "min_replicas": scale.least,
            "max_replicas": scale.most,
            "target_ongoing_requests": scale.workers,
        }
        if varies
        else None,
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=SLACK * scale.workers,
        health_check_period_s=HEALTH_S,
        logging_config=quiet,
    )
    bound = replicas.bind(directory, settings, board, scale.workers)
    return cast("ActorHandle", board), serve.run(bound, name=NAME, route_prefix=None)
