"""A composition that is loaded to answer requests, in this process or in a limited one."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gnncompose.composition.tree import Composition
from gnncompose.deployment.figures import FEW
from gnncompose.deployment.history import DeploymentError
from gnncompose.deployment.probing import answered, probed
from gnncompose.errors import EvaluationError, GnncomposeError
from gnncompose.execution.isolation import Isolate, Isolation
from gnncompose.execution.outputs import check_answers
from gnncompose.execution.plan import Plan
from gnncompose.execution.sandbox import FULL
from gnncompose.execution.worker import Limits
from gnncompose.tasks.task import Task

MODULES = (*FULL, "gnncompose.deployment.probing")
NICENESS = 15  # of what is tried aside: those who are served meanwhile go first
QUICK_MS = 0.5
LARGEST_DEVIATION = 1e-2  # of a row that is answered together with others from the same row alone, as for operators


@dataclass(frozen=True)
class Bounds:
    """What a deployment must keep to.

    Attributes:
        latency_ms: Of the median row alone when it is probed, and of the 95th percentile of what is served; None for
            no bound.
        failures: Share of the latest answers that may fail.
        window: How many answers these are.
        least: Answers before which nothing is held against it.
    """

    latency_ms: float | None = None
    failures: float = 0.05
    window: int = 200
    least: int = 20


class Health:
    """How the latest answers went; may be told and asked from several threads."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._latest: deque[float | None] = deque(maxlen=bounds.window)

    def answered(self, row_ms: float) -> None:
        """Note an answer, and what each of its rows took."""
        self._latest.append(row_ms)

    def failed(self) -> None:
        """Note that it failed where another one answered."""
        self._latest.append(None)

    def complaint(self) -> str | None:
        """What bound was left; None where all is well."""
        latest = self._latest.copy()  # at once, while others append
        if len(latest) < self._bounds.least:
            return None
        taken_ms = [row_ms for row_ms in latest if row_ms is not None]
        failures = 1.0 - len(taken_ms) / len(latest)
        if failures > self._bounds.failures:
            return f"{failures:.0%} of the latest {len(latest)} answers failed"
        most_ms = self._bounds.latency_ms
        if most_ms is not None and taken_ms:
            p95_ms = float(np.percentile(taken_ms, 95))
            if p95_ms > most_ms:
                return f"the latest {len(latest)} answers have a 95th percentile of {p95_ms:.3g} ms, over {most_ms:g}"
        return None


@dataclass(frozen=True, eq=False)
class Probe:
    """What was seen of a composition before it serves.

    Attributes:
        answers: [rows, ...]: on the probe rows.
        row_ms: Median time of a row alone.
    """

    answers: np.ndarray
    row_ms: float


def probe(composition: Composition, task: Task, rows: np.ndarray, bounds: Bounds, limits: Limits) -> Probe:
    """Run a composition aside, in a process of its own, whether it is trusted or not.

    Args:
        composition: What is to serve.
        task: Whose catalog it is from.
        rows: [rows, ...] to try it on.
        bounds: What it must keep to.
        limits: What the process may take.

    Raises:
        DeploymentError: It does not run, mixes rows, takes too long, or gives what is no answer of the task.
    """
    isolation = Isolation(task.catalog, replace(limits, niceness=NICENESS), "all", MODULES)
    try:
        together, alone, taken_ms = isolation.sandbox.call(probed, composition, rows)
        for output in (together, alone):
            check_answers(output, composition, len(rows))
    except GnncomposeError as problem:
        raise DeploymentError(f"refused: {problem}") from None
    finally:
        isolation.close()
    if together.dtype.kind == "f":
        deviation = float(np.abs(together - alone).max())
        if deviation > LARGEST_DEVIATION:
            raise DeploymentError(
                f"refused: {composition} answers a row otherwise when others are beside it, by {deviation:.2g}; export "
                f"its operators so that rows do not mix"
            )
    row_ms = float(np.median(taken_ms))
    if bounds.latency_ms is not None and row_ms > bounds.latency_ms:
        raise DeploymentError(
            f"refused: {composition} takes {row_ms:.3g} ms for a row, over the bound of {bounds.latency_ms:g} ms"
        )
    return Probe(together, row_ms)


class Served:
    """A composition that answers, from its loading until its last answer was given.

    Attributes:
        composition: Which.
        version: Of its deployment.
        row_ms: Median time of a row alone, when it was probed.
        trusted: Whether it runs in this process.
        health: How its latest answers went.
    """

    def __init__(
        self,
        composition: Composition,
        version: int,
        task: Task,
        seen: Probe,
        bounds: Bounds,
        limits: Limits,
        isolate: Isolate = "untrusted",
    ) -> None:
        """Load it.

        Args:
            composition: What serves.
            version: Of its deployment.
            task: Whose catalog it is from.
            seen: What was seen of it aside.
            bounds: What it must keep to.
            limits: What a limited process may take for it.
            isolate: Whether trusted artifacts may run in this process.

        Raises:
            DeploymentError: It does not load.
        """
        self.composition = composition
        self.version = version
        self.row_ms = seen.row_ms
        self._sizes, self._dtype = seen.answers.shape[1:], seen.answers.dtype
        self.health = Health(bounds)
        self._isolation = Isolation(task.catalog, limits, isolate, MODULES)
        self.trusted = self._isolation.is_trusted(composition)
        self._answers = 0
        self._retired = False
        self._lock = threading.Lock()
        try:
            self._run = self._runner()
        except GnncomposeError as problem:
            self._isolation.close()
            raise DeploymentError(f"refused: {problem}") from None

    def _runner(self) -> Callable[[np.ndarray], np.ndarray]:
        if self.trusted:
            return Plan(self.composition, self._isolation.local.workspace.sessions).run
        return lambda x: self._isolation.sandbox.call(answered, self.composition, x)

    def warm(self, rows: np.ndarray, seen: Probe) -> None:
        """Answer the probe rows here, and hold the answers to those that were given aside.

        Raises:
            DeploymentError: They differ.
        """
        try:
            found = self.answer(rows)
        except EvaluationError as problem:
            raise DeploymentError(f"refused: {problem}") from None
        same = np.array_equal(found, seen.answers)
        if not same and not (found.dtype.kind == "f" and np.allclose(found, seen.answers, rtol=0.0, atol=1e-5)):
            raise DeploymentError(f"refused: {self.composition} does not answer here as it did aside")

    def answer(self, x: np.ndarray) -> np.ndarray:
        """[rows, ...]: answers on rows.

        That it failed is for the caller to hold against it, who knows whether another one answers the same rows.

        Raises:
            EvaluationError: It failed on these rows, or gave what is no answer.
        """
        started = time.perf_counter()
        found = self._run(x)
        if not self._is_usual(found, len(x)):
            check_answers(found, self.composition, len(x))
        self.health.answered(1e3 * (time.perf_counter() - started) / len(x))
        return found

    def is_quick(self, rows: int) -> bool:
        """Whether so many rows are answered sooner than another thread would be woken for them."""
        return self.trusted and rows * self.row_ms < QUICK_MS

    def _is_usual(self, found: np.ndarray, rows: int) -> bool:
        """Whether an answer is one without a doubt, which is told sooner than `check_answers` tells what is wrong."""
        is_alike = found.shape == (rows, *self._sizes) and found.dtype == self._dtype
        if not is_alike or found.dtype.kind != "f":
            return False
        # One that is not finite makes the sum so, too.
        return math.isfinite(sum(found.ravel().tolist()) if found.size <= FEW else found.sum())

    def hold(self) -> bool:
        """Keep it loaded until it is let go of as often; False where it was unloaded already."""
        with self._lock:
            is_there = not (self._retired and not self._answers)
            self._answers += is_there
        return is_there

    def let_go(self) -> None:
        """Undo one `hold`."""
        with self._lock:
            self._answers -= 1
            last = self._retired and not self._answers
        if last:
            self._isolation.close()

    def retire(self) -> None:
        """Let go of it once its last answer was given."""
        with self._lock:
            idle = not self._retired and not self._answers
            self._retired = True
        if idle:
            self._isolation.close()
