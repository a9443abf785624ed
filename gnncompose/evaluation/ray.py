"""Real evaluations by several workers on Ray, on this machine or on others.

A worker is an actor that measures as `OnnxEvaluator` does, on cores of its own machine. It reads and writes no store:
that is the driver's, the process that searches. So a worker needs no way to the database, and a store on one disk
serves any number of machines.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from gnncompose.composition.tree import Composition
from gnncompose.errors import ClusterError, EvaluationError, GnncomposeError, StoreError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.crew import Crew, WorkerLostError
from gnncompose.evaluation.evaluation import Evaluation
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.evaluation.ray_worker import Failure, Post, Ready, Worker, packed
from gnncompose.execution import private_ray
from gnncompose.execution.isolation import Isolate
from gnncompose.execution.private_ray import first_line
from gnncompose.provenance import hardware, versions
from gnncompose.tasks.task import Task, World

if TYPE_CHECKING:
    from ray.actor import ActorHandle

SAME = ("python", "gnncompose", "onnxruntime")  # whose versions are to be equal wherever something is measured
LONG_S, KNOCK_S = 60.0, 10.0


class RayEvaluator(OnnxEvaluator):
    """Evaluates as `OnnxEvaluator`, by workers on Ray; several at once where it is told what will be asked for.

    What a store knows is not measured. Row-level answers, and the times of single nodes, come from this process.
    """

    name = "ray"

    def __init__(
        self,
        task: Task,
        world: World,
        prices: Prices,
        *,
        address: str | None = None,
        workers: int = 2,
        retries: int = 2,
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
        """Prepare; Ray and the workers start with the first evaluation that no store knows.

        Args:
            task: Whose compositions are evaluated; a bundle, which is sent to machines that have no such folder.
            world: In which condition, on which resource, under which load.
            prices: Turns resource use into money.
            address: Of a Ray cluster, as `ray.init` takes it; None for a Ray of this process's own on this machine.
            workers: How many measure at once, each on as many cores as the resource has threads.
            retries: How often an evaluation is asked of another worker after one is gone.
            rows: As of `OnnxEvaluator`, and so are all further ones.
            repeats: See there.
            seconds: See there.
            cache_bytes: See there; of each worker.
            store: See there; only this process reads and writes it.
            measure_memory: See there.
            isolate: See there; the trust file is that of the worker's machine.
            timeout_s: See there.
            memory_bytes: See there.

        Raises:
            ClusterError: A number is out of range.
            GnncomposeError: What `OnnxEvaluator` raises.
        """
        if workers < 1 or retries < 0:
            raise ClusterError(f"workers={workers}, retries={retries}: give 1 or more workers and 0 or more retries")
        measuring = {"rows": rows, "repeats": repeats, "seconds": seconds, "measure_memory": measure_memory}
        running = {"isolate": isolate, "timeout_s": timeout_s, "memory_bytes": memory_bytes, "cache_bytes": cache_bytes}
        super().__init__(task, world, prices, store=store, **measuring, **running)
        directory = task.directory.resolve()
        self._post = Post(directory, task.catalog.sha256, world, prices, measuring | running)
        self._address = address
        self._workers = workers
        self._retries = retries
        self._crew: Crew | None = None
        self._in_store: set[str] = set()
        self._handles: set[ActorHandle] = set()
        self._cpus: set[str] = set()
        self._lock = threading.Lock()
        self._own = threading.local()

    def foresee(self, compositions: Sequence[Composition]) -> None:
        """Let idle workers measure what will likely be asked for; see `Foresees`.

        At most two per worker are begun that were not asked for. What is measured and never asked for costs nothing of
        a budget, and stays in the store.
        """
        new = [composition for composition in compositions if not self._is_stored(composition)]
        if self._crew is not None or len(new) > 1:
            self._started().foresee(new)

    def evaluate(self, composition: Composition, split: str = "validation") -> Evaluation:
        """Let a worker run a composition, or read it from the store.

        Raises:
            EvaluationError: It could not be run, now or when the store was told, or ended the workers one by one.
            StoreError: The store cannot be read or written.
            ClusterError: Ray or the workers cannot be used; the message says why.
        """
        started, found = time.perf_counter(), None
        if self._crew is None or not self._crew.holds(composition, split):
            found = self._stored(composition, split)
        if found is None:
            found = self._started().evaluate(composition, split)
        return replace(found, wall_s=time.perf_counter() - started)

    def run(self, composition: Composition, split: str) -> Evaluation:
        """Let this thread's worker run a composition.

        Raises:
            WorkerLostError: It is gone.
            GnncomposeError: The composition could not be run, or there can be no worker.
        """
        import ray
        from ray.exceptions import RayActorError

        sha256 = self.task.split(self.world.condition, split).sha256
        worker: ActorHandle | None = getattr(self._own, "worker", None)
        try:
            worker = self._own.worker = worker or self._hired()
            answer = cast("Evaluation | Failure", ray.get(worker.run.remote(composition, split, sha256)))
        except RayActorError as problem:
            self._own.worker = None
            self._dismiss(worker)
            if self._crew is not None:
                print(f"a worker is gone, another one is asked: {composition}", file=sys.stderr)
            raise WorkerLostError(first_line(problem)) from None
        if isinstance(answer, Failure):
            raise answer.problem from answer.cause
        return answer

    def processes(self) -> list[int]:
        """Process ids of the workers, each on its machine."""
        import ray

        with self._lock:
            handles = list(self._handles)
        return ray.get([handle.process.remote() for handle in handles])

    def let_go(self) -> None:
        """End the workers; see `LetsGo`. A Ray of this process's own ends with the process."""
        crew, self._crew = self._crew, None
        if crew is not None:
            _end(crew, self._handles)

    def _is_stored(self, composition: Composition) -> bool:
        if composition.id in self._in_store:
            return True
        if self._crew is not None and self._crew.holds(composition, "validation"):
            return False
        try:
            known = self._stored(composition, "validation") is not None
        except EvaluationError:  # known to fail
            known = True
        if known:
            self._in_store.add(composition.id)
        return known

    def _started(self) -> Crew:
        if self._crew is None:
            self._connect()
            itself = weakref.ref(self)  # a thread that only waits is not to keep it

            def measured(composition: Composition, split: str) -> Evaluation:
                evaluator = itself()
                if evaluator is None:
                    raise WorkerLostError("nobody asks any more")
                return evaluator._measured(composition, split)

            self._crew = Crew(measured, self._workers, self._retries)
            weakref.finalize(self, _end, self._crew, self._handles)
        return self._crew

    def _measured(self, composition: Composition, split: str) -> Evaluation:
        try:
            return self._run_and_store(composition, split)
        except (EvaluationError, StoreError, ClusterError):
            raise
        except GnncomposeError as problem:
            raise EvaluationError(str(problem)) from None

    def _connect(self) -> None:
        """Have a Ray with enough CPUs.

        Raises:
            ClusterError: There is none.
        """
        own = self._address is None
        if own:
            private_ray.set_up()
        try:
            import ray
        except ModuleNotFoundError:
            raise ClusterError("evaluator=ray needs Ray; run pip install 'gnncompose[ray]'") from None
        _keep_quiet()
        quiet: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}
        where = "this machine" if own else self._address
        try:
            if not ray.is_initialized() and own:
                ray.init(address="local", num_cpus=int(hardware()["cores"] or 1), include_dashboard=False, **quiet)
            elif not ray.is_initialized():
                _knock(self._address)
                ray.init(address=self._address, **quiet)
            there = int(ray.cluster_resources().get("CPU", 0))
        except Exception as problem:  # Ray tells of one and the same trouble by many kinds of error
            hint = "free memory, or look into /tmp/ray" if own else "is it there? ray start --head makes one"
            raise ClusterError(f"no Ray on {where}: {first_line(problem)}; {hint}") from None
        needed = self._workers * self.limits.threads
        if needed > there:
            raise ClusterError(
                f"evaluator.workers={self._workers}: these need {needed} CPUs, one a thread of the resource, and the "
                f"Ray on {where} has {there}; give fewer workers, or add machines"
            )

    def _hired(self) -> ActorHandle:
        """A new worker that has the bundle.

        Raises:
            ClusterError: It cannot measure what this process would.
        """
        import ray

        options = {"num_cpus": self.limits.threads, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        worker = cast("ActorHandle", ray.remote(**options)(Worker).remote(self._post))
        with self._lock:
            self._handles.add(worker)
        try:
            said = self._answer(worker.take_up.remote())
            if not said.has_bundle:
                said = self._answer(worker.take_up.remote(packed(self.task)))
            self._compare(said)
        except BaseException:
            self._dismiss(worker)
            raise
        return worker

    def _compare(self, said: Ready) -> None:
        """Hold a worker's machine against this one and the others.

        Raises:
            ClusterError: It has other versions of what measures.
        """
        here = versions()
        for name in SAME:
            if said.versions.get(name) != here[name]:
                raise ClusterError(
                    f"a worker has {name} {said.versions.get(name)}, and here is {here[name]}; install the same there"
                )
        with self._lock:
            if said.cpu not in self._cpus:
                self._cpus.add(said.cpu)
                if len(self._cpus) > 1:
                    kinds = " and ".join(sorted(self._cpus))
                    print(f"warning: workers measure on {kinds}; their times do not compare", file=sys.stderr)

    def _answer(self, reference: Any) -> Ready:  # noqa: ANN401 - of Ray
        import ray

        if not ray.wait([reference], timeout=LONG_S)[0]:
            print("a worker waits for free CPUs of the Ray cluster", file=sys.stderr)
        said = cast("Ready | Failure", ray.get(reference))
        if isinstance(said, Failure):
            raise ClusterError(f"a worker cannot start: {said.problem}")
        return said

    def _dismiss(self, worker: ActorHandle | None) -> None:
        import ray

        with self._lock:
            self._handles.discard(cast("ActorHandle", worker))
        if worker is not None:
            with suppress(Exception):  # it is gone, or out of reach
                ray.kill(worker)


def _knock(address: str | None) -> None:
    """Raise `OSError` where nobody listens at HOST:PORT; Ray itself would wait for more than a minute."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), KNOCK_S).close()


def _keep_quiet() -> None:
    """Keep Ray from printing what becomes of workers, for which it has no setting; this module tells of it."""
    from ray._private import worker

    worker.print_to_stdstream = lambda *_, **__: None


def _end(crew: Crew, handles: set[ActorHandle]) -> None:
    """End threads and workers, which the threads may wait for."""
    import ray

    def let_workers_go() -> None:
        while handles:
            with suppress(Exception):  # it is gone already, or Ray is
                ray.kill(handles.pop())

    crew.end(let_workers_go)
