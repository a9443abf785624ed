"""Real evaluations: compositions run in ONNX Runtime on the task's data."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gnncompose.composition.tree import Composition
from gnncompose.errors import CatalogError, EvaluationError, GnncomposeError, StoreError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.evaluation import Evaluation, Measurement
from gnncompose.evaluation.metrics import find_metric
from gnncompose.execution.latency import PROTOCOL, measure, sample_rows
from gnncompose.execution.memory import MemoryProbe
from gnncompose.execution.outputs import OutputCache, whole_split_output
from gnncompose.execution.plan import Plan
from gnncompose.execution.sessions import SessionPool
from gnncompose.tasks.task import Task, World

if TYPE_CHECKING:
    from gnncompose.evaluation.store import Key

BATCH = 1


class OnnxEvaluator:
    """Evaluates by running: score on all rows of a split, speed on sampled rows of it at batch 1.

    Attributes:
        name: What evaluations say they came from.
        task: Whose compositions are evaluated.
        world: In which condition, on which resource.
        prices: Turns resource use into money.
        cache: Outputs of nodes on whole splits.
        sessions: Open sessions of the catalog's artifacts.
    """

    name = "onnx"

    def __init__(
        self,
        task: Task,
        world: World,
        prices: Prices,
        *,
        rows: int = 48,
        repeats: int = 5,
        cache_bytes: int = 1 << 30,
        store: str | None = None,
        measure_memory: bool = True,
    ) -> None:
        """Prepare; nothing is run yet.

        Args:
            task: Whose compositions are evaluated.
            world: In which condition, on which resource.
            prices: Turns resource use into money.
            rows: Rows of the split that are timed; always the same ones.
            repeats: How often each of them is timed.
            cache_bytes: Most bytes of node outputs that are kept.
            store: URL of an evaluation store, such as `sqlite:///evaluations.db`; None for none.
            measure_memory: Whether a process of its own tells the peak memory; else it is given as 0.

        Raises:
            TaskError: The metric or the condition is unknown.
            EvaluationError: The resource is unknown.
            StoreError: The store cannot be opened.
        """
        self.task = task
        self.world = world
        self.prices = prices
        self.cache = OutputCache(cache_bytes)
        self.threads = prices.resource(world.resource).threads
        self.sessions = SessionPool(task.catalog, self.threads)
        self._metric = find_metric(task.metric)
        self._rows = rows
        self._repeats = repeats
        self._probe = MemoryProbe() if measure_memory else None
        self._artifact_bytes: dict[str, int] = {}
        task.split(world.condition, "validation")
        self._store = None
        if store is not None:
            from gnncompose.evaluation.store import EvaluationStore  # SQLAlchemy takes a third of a second

            self._store = EvaluationStore(store)

    @property
    def real(self) -> OnnxEvaluator:
        """Itself: it runs what it evaluates."""
        return self

    def charge(self, composition: Composition) -> int:
        """One, also where a store knows it from another run."""
        return 1

    @property
    def protocol(self) -> str:
        """What a stored evaluation must have been measured by to stand for one of this evaluator."""
        memory = "" if self._probe else " no-memory"
        return f"{PROTOCOL} {self.task.metric} {self._rows}x{self._repeats}{memory}"

    def evaluate(self, composition: Composition, split: str = "validation") -> Evaluation:
        """Run a composition on a split of the world's condition, or read it from the store.

        Raises:
            EvaluationError: It could not be run, now or when the store was told; the message gives the reason.
            StoreError: The store cannot be read or written.
        """
        started = time.perf_counter()
        try:
            found = self._stored(composition, split)
            if found is None:
                found = self._run_and_store(composition, split)
        except (EvaluationError, StoreError):
            raise
        except GnncomposeError as problem:
            raise EvaluationError(str(problem)) from None
        return replace(found, wall_s=time.perf_counter() - started)

    def measure(self, composition: Composition, split: str = "validation") -> Measurement:
        """Speed and resource use of a composition, without its score.

        Raises:
            EvaluationError: It could not be run.
        """
        x = self.task.split(self.world.condition, split).x
        plan = Plan(composition, self.sessions)
        inputs = [x[row : row + 1].copy() for row in sample_rows(len(x), self._rows)]
        timing = measure(plan.run, inputs, self._repeats, self.threads)
        memory = 0
        if self._probe is not None:
            memory = self._probe.peak_memory_bytes(composition, self.task.catalog, x, self.threads)
        return Measurement(
            samples_ms=timing.samples_ms,
            cpu_ms=timing.cpu_ms,
            throughput_per_s=1000 / float(np.median(timing.samples_ms, axis=1).mean()),
            peak_memory_bytes=memory,
            artifact_bytes=self.artifact_bytes(composition),
            reference_ms=timing.reference_ms,
            noise=1.0,
        )

    def artifact_bytes(self, composition: Composition) -> int:
        """Size of the distinct artifacts of a composition."""
        total = 0
        for operator in {node.operator.sha256: node.operator for node in composition.nodes}.values():
            if operator.sha256 is not None:
                if operator.sha256 not in self._artifact_bytes:
                    self._artifact_bytes[operator.sha256] = self.task.catalog.artifact_path(operator).stat().st_size
                total += self._artifact_bytes[operator.sha256]
        return total

    def _stored(self, composition: Composition, split: str) -> Evaluation | None:
        if self._store is None:
            return None
        return self._store.get(self._key(composition, split), self.world, split, self.prices)

    def _run_and_store(self, composition: Composition, split: str) -> Evaluation:
        started = time.perf_counter()
        try:
            found = self._run(composition, split)
            if self._store is not None:
                found = replace(found, wall_s=time.perf_counter() - started)
                self._store.put(self._key(composition, split), found)
        except EvaluationError as problem:
            # What a catalog lacks (a missing or altered file) the user mends, and the composition keeps its id.
            if self._store is not None and not isinstance(problem.__cause__, CatalogError):
                wall_s, key = time.perf_counter() - started, self._key(composition, split)
                self._store.put_failure(key, str(problem), evaluator=self.name, wall_s=wall_s)
            raise
        return found

    def _key(self, composition: Composition, split: str) -> Key:
        from gnncompose.evaluation.store import Key

        data = self.task.split(self.world.condition, split)
        return Key(composition.id, data.sha256, self.world.resource, self.world.load, BATCH, self.protocol)

    def _run(self, composition: Composition, split: str) -> Evaluation:
        data = self.task.split(self.world.condition, split)
        output = whole_split_output(composition, data, self.sessions, self.cache)
        metric = self._metric.compute(output, data.y)
        measured = self.measure(composition, split)
        mean = measured.latency_ms_mean
        return Evaluation(
            composition_id=composition.id,
            world=self.world,
            split=split,
            metric=metric,
            score=self._metric.score(metric),
            latency_ms_mean=mean,
            latency_ms_p50=measured.latency_ms_percentile(50),
            latency_ms_p90=measured.latency_ms_percentile(90),
            latency_ms_p95=measured.latency_ms_percentile(95),
            latency_ms_p99=measured.latency_ms_percentile(99),
            throughput_per_s=measured.throughput_per_s,
            cpu_ms=measured.cpu_ms,
            cost_usd_per_million=self.prices.usd_per_million(
                self.world.resource, measured.cpu_ms, measured.peak_memory_bytes, mean
            ),
            peak_memory_bytes=measured.peak_memory_bytes,
            artifact_bytes=measured.artifact_bytes,
            evaluator=self.name,
            measurement=measured,
        )
