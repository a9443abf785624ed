"""Real evaluations: compositions run in ONNX Runtime on the task's data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnncompose.catalog.reading import read_artifact
from gnncompose.composition.tree import Composition
from gnncompose.errors import ArtifactError, BusyError, CatalogError, EvaluationError, GnncomposeError, StoreError
from gnncompose.evaluation.contributions import NodeTime
from gnncompose.evaluation.cost import Prices, require_provider
from gnncompose.evaluation.cost_model.outcomes import Outcomes, run_on_split
from gnncompose.evaluation.evaluation import AnsweredRows, Evaluation, Measurement
from gnncompose.evaluation.metrics import find_metric
from gnncompose.execution.cores import claimed_cores
from gnncompose.execution.isolation import Isolate, Isolation
from gnncompose.execution.latency import PROTOCOL, Effort, Timing
from gnncompose.execution.load import parse_load
from gnncompose.execution.memory import peak_memory_bytes
from gnncompose.execution.outputs import check_answers
from gnncompose.execution.reference import baseline_ns
from gnncompose.execution.work import answers, timed, timed_nodes
from gnncompose.execution.worker import Limits
from gnncompose.provenance import hardware
from gnncompose.ranges import above_zero, at_least, counts
from gnncompose.tasks.task import Split, Task, World

if TYPE_CHECKING:
    from gnncompose.evaluation.store import Key


class OnnxEvaluator:
    """Evaluates by running: score on all rows of a split, speed on sampled rows of it under the world's load.

    Attributes:
        name: What evaluations say they came from.
        task: Whose compositions are evaluated.
        world: In which condition, on which resource, under which load.
        load: How requests arrive while speed is measured.
        effort: How much is timed.
        prices: Turns resource use into money.
        limits: What running a composition may take.
        isolation: Decides which compositions run in this process, and which in the sandbox.
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
        seconds: float = 0.3,
        cache_bytes: int = 1 << 30,
        store: str | None = None,
        measure_memory: bool = True,
        isolate: Isolate = "untrusted",
        timeout_s: float = 60.0,
        memory_bytes: int = 4 << 30,
    ) -> None:
        """Prepare; nothing is run yet.

        Args:
            task: Whose compositions are evaluated.
            world: In which condition, on which resource, under which load.
            prices: Turns resource use into money.
            rows: Rows of the split that are timed; always the same ones.
            repeats: How often each of them is timed, at least.
            seconds: Time within which they are timed more often, until the samples tell the 99th percentile.
            cache_bytes: Most bytes of node outputs that are kept.
            store: URL of an evaluation store, such as `sqlite:///evaluations.db`; None for none.
            measure_memory: Whether a process of its own tells the peak memory; else it is given as 0.
            isolate: Whether only `untrusted` artifacts run in the sandbox, or `all`.
            timeout_s: How long the sandbox lets a composition answer the split, and be timed.
            memory_bytes: How much memory the sandbox lets it take.

        Raises:
            TaskError: The metric or the condition is unknown.
            EvaluationError: The resource or the load is unknown, or this ONNX Runtime cannot use the resource.
            StoreError: The store cannot be opened.
            GnncomposeError: A number is out of its range.
        """
        counts("evaluator", 1, rows=rows, repeats=repeats, memory_bytes=memory_bytes)
        counts("evaluator", 0, cache_bytes=cache_bytes)
        at_least("evaluator", 0.0, seconds=seconds)
        above_zero("evaluator", timeout_s=timeout_s)
        self.task = task
        self.world = world
        self.prices = prices
        resource = prices.resource(world.resource)
        require_provider(resource)
        self.load = parse_load(world.load)
        self.effort = Effort(rows, repeats, seconds)
        self.limits = Limits(memory_bytes, timeout_s, resource.threads, cache_bytes, resource.providers)
        self.isolation = Isolation(task.catalog, self.limits, isolate)
        self._metric = find_metric(task.metric)
        self._measure_memory = measure_memory
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

    def keep(self, path: Path) -> None:
        """Keep what is measured in a store of its own, where no other was chosen; see `Keeps`.

        Raises:
            StoreError: The store cannot be opened.
        """
        if self._store is None:
            from gnncompose.evaluation.store import EvaluationStore

            self._store = EvaluationStore(f"sqlite:///{path}")

    def charge(self, composition: Composition) -> int:
        """One, also where a store knows it from another run."""
        return 1

    @property
    def protocol(self) -> str:
        """What a stored evaluation must have been measured by to stand for one of this evaluator."""
        memory = "" if self._measure_memory else " no-memory"
        return (
            f"{PROTOCOL} {self.task.metric} {self.effort.rows}x{self.effort.repeats}+{self.effort.seconds:g}s{memory}"
        )

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
        data = self.task.split(self.world.condition, split)
        timing = Timing(*self._on_own_cores(timed, composition, data))
        memory = 0
        if self._measure_memory:
            limits = replace(self.limits, cache_bytes=0)
            memory = peak_memory_bytes(composition, self.task.catalog, data.x, limits, self.load.batch)
        return Measurement(
            samples_ms=timing.samples_ms,
            cpu_ms=timing.cpu_ms,
            throughput_per_s=timing.throughput_per_s,
            peak_memory_bytes=memory,
            artifact_bytes=self.artifact_bytes(composition),
            reference_ms=timing.reference_ms,
            noise=timing.noise,
        )

    def node_times(self, composition: Composition) -> dict[str, NodeTime]:
        """What each node takes under the world's load; see `TimesNodes`.

        Raises:
            GnncomposeError: It could not be run.
        """
        data = self.task.split(self.world.condition, "validation")
        milliseconds, shares = self._on_own_cores(timed_nodes, composition, data)
        rows = zip(composition.nodes, milliseconds.tolist(), shares.tolist(), strict=True)
        return {node.id: NodeTime(taken, share) for node, taken, share in rows}

    def _on_own_cores(self, work: Callable[..., Any], composition: Composition, data: Split) -> Any:  # noqa: ANN401
        """What timing work of `execution.work` finds, on cores that nothing else is timed on meanwhile."""
        threads, runner = self.limits.threads, self.isolation.runner(composition)
        cpu = str(hardware()["cpu"])  # asked before this thread is pinned, since it also counts the usable cores
        with claimed_cores(threads) as cores, runner.pinned(cores):
            return runner.call(work, composition, data, self.load.name, self.effort, threads, baseline_ns(cpu))

    def outcomes(self, composition: Composition, split: str = "validation") -> Outcomes:
        """What the nodes of a composition answer on every row; what `evaluate` ran is not run again.

        Raises:
            EvaluationError: It could not be run.
        """
        data = self.task.split(self.world.condition, split)
        return run_on_split(self.isolation.runner(composition), composition, data, self.task.output.type)

    def answered_rows(self, composition: Composition) -> AnsweredRows:
        """What a composition answers on every row of the validation split, with the task's score for such answers.

        Raises:
            EvaluationError: It could not be run.
        """
        labels = self.task.split(self.world.condition, "validation").y
        answers = self.outcomes(composition).outputs[composition.id]
        return AnsweredRows(answers, lambda given: self._metric.score(self._metric.compute(given, labels)))

    def artifact_bytes(self, composition: Composition) -> int:
        """Size of the distinct artifacts of a composition."""
        total = 0
        for operator in {node.operator.sha256: node.operator for node in composition.nodes}.values():
            if operator.sha256 is not None:
                if operator.sha256 not in self._artifact_bytes:
                    self._artifact_bytes[operator.sha256] = len(read_artifact(self.task.catalog, operator))
                total += self._artifact_bytes[operator.sha256]
        return total

    def _stored(self, composition: Composition, split: str) -> Evaluation | None:
        if self._store is None:
            return None
        return self._store.get(self._key(composition, split), self.world, split, self.prices)

    def _run_and_store(self, composition: Composition, split: str) -> Evaluation:
        started = time.perf_counter()
        try:
            found = self.run(composition, split)
            if self._store is not None:
                found = replace(found, wall_s=time.perf_counter() - started)
                self._store.put(self._key(composition, split), found)
        except (EvaluationError, CatalogError) as problem:
            if self._store is not None and _is_lasting(problem):
                wall_s, key = time.perf_counter() - started, self._key(composition, split)
                self._store.put_failure(key, str(problem), evaluator=self.name, wall_s=wall_s)
            raise
        return found

    def _key(self, composition: Composition, split: str) -> Key:
        from gnncompose.evaluation.store import Key

        data = self.task.split(self.world.condition, split)
        return Key(composition.id, data.sha256, self.world.resource, self.load.name, self.load.batch, self.protocol)

    def run(self, composition: Composition, split: str) -> Evaluation:
        """Run a composition, whatever a store knows of it.

        Raises:
            GnncomposeError: It could not be run.
        """
        data = self.task.split(self.world.condition, split)
        output = self.isolation.runner(composition).call(answers, composition, data)
        check_answers(output, composition, len(data.x))
        metric = self._metric.compute(output, data.y)
        measured = self.measure(composition, split)
        return Evaluation(
            composition_id=composition.id,
            world=self.world,
            split=split,
            metric=metric,
            score=self._metric.score(metric),
            latency_ms_mean=measured.latency_ms_mean,
            latency_ms_p50=measured.latency_ms_median,
            latency_ms_p90=measured.latency_ms_percentile(90),
            latency_ms_p95=measured.latency_ms_percentile(95),
            latency_ms_p99=measured.latency_ms_percentile(99),
            throughput_per_s=measured.throughput_per_s,
            cpu_ms=measured.cpu_ms,
            cost_usd_per_million=self.prices.usd_per_million(
                self.world.resource, measured.cpu_ms, measured.peak_memory_bytes, 1000 / measured.throughput_per_s
            ),
            peak_memory_bytes=measured.peak_memory_bytes,
            artifact_bytes=measured.artifact_bytes,
            evaluator=self.name,
            measurement=measured,
        )


def _is_lasting(problem: GnncomposeError) -> bool:
    """Whether a composition failed by itself; a missing or altered file the user mends, and its id stays."""
    if isinstance(problem, BusyError):
        return False
    cause = problem.__cause__ or problem
    return isinstance(cause, ArtifactError) or not isinstance(cause, CatalogError)
