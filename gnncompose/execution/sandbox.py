"""The sandbox: artifacts run in a limited process, and whatever they do there costs that call and nothing else.

A fork server with ONNX Runtime loaded (never torch) gives workers in milliseconds. A worker that crashes, hangs, or
takes more than it may is replaced, and the caller is told why in one line. An artifact comes into a worker only as
bytes that `read_artifact` gave, and is checked there before it is loaded. A host operator is code that the user
installed; it runs there, too, since it works on what artifacts gave.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Concatenate, get_type_hints

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.host import find_host, host_modules
from gnncompose.catalog.operator import Operator
from gnncompose.catalog.reading import entry_name, read_artifact
from gnncompose.composition.tree import Composition, Node
from gnncompose.errors import ArtifactError, BusyError, EvaluationError, GnncomposeError
from gnncompose.execution.forking import ForkServer, forget_when_forked, fork_server
from gnncompose.execution.runner import Answer, Arguments, Workspace
from gnncompose.execution.wire import LARGEST_ANSWER_BYTES, ClosedError, WireError, decode_answer, fits, receive, send
from gnncompose.execution.worker import Limits, admit, admit_host, keep
from gnncompose.tasks.task import Split

LEAN = ("onnxruntime", "gnncompose.execution.memory")
FULL = (*LEAN, "gnncompose.execution.work", "gnncompose.catalog.artifacts")
DYING_S = 1.0
# Share of its time that a worker had to wait for a core before a timeout is blamed on the machine.
STARVED = 0.25
REASONS: dict[int, str] = {
    signal.SIGKILL: "was killed by the system, most likely for lack of memory",
    signal.SIGXCPU: "used more CPU time than it may",
    signal.SIGXFSZ: "tried to write a file",
}


class _Writer(pickle.Pickler):
    """Writes requests; remembers which operators and splits they speak of, and leaves the splits out."""

    def __init__(self, target: BytesIO) -> None:
        super().__init__(target, protocol=pickle.HIGHEST_PROTOCOL)
        self.operators: dict[str, Operator] = {}
        self.splits: dict[str, Split] = {}

    def persistent_id(self, obj: object) -> str | None:
        if isinstance(obj, Operator) and obj.builtin is None:
            self.operators[obj.identity] = obj
        if isinstance(obj, Split):
            self.splits[obj.sha256] = obj
            return obj.sha256
        return None


class Sandbox:
    """A runner in a worker of its own.

    Attributes:
        catalog: Whose artifacts it reads.
        limits: What a worker may take.
    """

    def __init__(
        self, catalog: Catalog, limits: Limits | None = None, *, checked: bool = False, modules: Sequence[str] = FULL
    ) -> None:
        """Prepare; the worker starts with the first call.

        Args:
            catalog: Whose artifacts it reads.
            limits: What a worker may take.
            checked: Whether the artifacts passed `check_artifact` already, or are trusted.
            modules: What workers have loaded; the modules of the catalog's host operators come on top.

        Raises:
            CatalogError: No installed package offers a host operator as the catalog wants it.
        """
        self.catalog = catalog
        self.limits = limits or Limits()
        self._checked = checked
        self._modules = (*modules, *host_modules(catalog.operators))
        self._worker: _Worker | None = None
        self._cores: Sequence[int] = ()
        self._lock = threading.RLock()
        forget_when_forked(self)

    def call(
        self,
        function: Callable[Concatenate[Workspace, Arguments], Answer],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer:
        """Call a function in the worker; see `Runner.call`.

        A call that ends its worker is made once more in a fresh one where others were made before it, so that only
        what a call does by itself is held against it; unless it took its full time, which a fresh worker will not
        change.
        """
        assert not kwargs, "calls are by position"
        with self._lock:
            while True:
                fresh = self._worker is None
                try:
                    return self._attempt(function, args)
                except _Ended as ended:
                    starved, reason = ended.starved, self._bury(ended)
                    if fresh or ended.timed_out:
                        raise (BusyError if starved else EvaluationError)(f"{ended.subject} {reason}") from None
                except GnncomposeError:
                    raise
                except BaseException:  # such as Ctrl-C: an answer to it must not be taken for the next call's
                    self.close()
                    raise

    def _attempt(self, function: Callable[..., Answer], args: tuple[object, ...]) -> Answer:
        target = BytesIO()
        writer = _Writer(target)
        writer.dump((function, args))
        worker = self._worker
        if worker is None:
            worker = self._worker = _Worker(fork_server(self._modules, os.getpid()), self.limits)
            worker.pin(self._cores)
        for key, operator in writer.operators.items():
            if key not in worker.known:
                self._admit(worker, operator)
                worker.known.add(key)
        for key, split in writer.splits.items():
            if key not in worker.known:
                worker.ask(pickle.dumps((keep, (split,))), "the data", None)
                worker.known.add(key)
        named = args and isinstance(args[0], Composition | Node | Operator)
        return worker.ask(target.getbuffer(), str(args[0]) if named else function.__name__, _returned(function))

    def _admit(self, worker: _Worker, operator: Operator) -> None:
        """Hand an operator's code to a worker."""
        where = entry_name(self.catalog, operator)
        if operator.host is not None:
            request = pickle.dumps((admit_host, (operator, find_host(operator).function)))
            return worker.ask(request, f"{where}: {operator.host}", None)
        content = read_artifact(self.catalog, operator)
        request = pickle.dumps((admit, (operator, content, None if self._checked else where)))
        return worker.ask(request, f"{where}: {operator.artifact}: loading it", None)

    def _bury(self, ended: _Ended) -> str:
        """End a worker that did not answer; why it did not."""
        assert self._worker is not None
        code = self._worker.end(DYING_S if ended.closed else 0.0)
        self._worker = None
        if ended.timed_out:
            busy = ", in which the machine was busy with other work" if ended.starved else ""
            return f"did not end within {self.limits.timeout_s:g} s{busy}"
        if ended.out_of_memory:
            return f"needs more memory than the {self.limits.memory_bytes >> 20} MiB that a sandbox has"
        if code is None:
            return f"failed: its process {ended.reason}"
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return f"{REASONS.get(-code, 'crashed')} ({name})"
        return f"ended its process with code {code}"

    @contextmanager
    def pinned(self, cores: Sequence[int]) -> Iterator[None]:
        """Keep the worker on these cores."""
        self._cores = cores
        if self._worker is not None:
            self._worker.pin(cores)
        try:
            yield
        finally:
            self._cores = ()
            if self._worker is not None:
                self._worker.pin(())

    def forget(self) -> None:
        """Let go of a worker that belongs to the process that this one was forked from, without ending it."""
        if self._worker is not None:
            self._worker.forget()
            self._worker = None
        self._lock = threading.RLock()

    def close(self) -> None:
        """End the worker; the next call starts another."""
        with self._lock:
            if self._worker is not None:
                self._worker.end()
                self._worker = None


@cache
def _returned(function: Callable[..., object]) -> Any:  # noqa: ANN401 - a type, as the function's annotation states it
    return get_type_hints(function).get("return", Any)


class _Ended(Exception):  # noqa: N818 - tells `Sandbox.call` how a worker ended; no caller sees it
    def __init__(
        self,
        subject: str,
        reason: str = "",
        *,
        closed: bool = False,
        timed_out: bool = False,
        starved: bool = False,
        out_of_memory: bool = False,
    ) -> None:
        super().__init__(subject)
        self.subject = subject
        self.reason = reason
        self.closed = closed
        self.timed_out = timed_out
        self.starved = starved
        self.out_of_memory = out_of_memory


class _Worker:
    """The caller's side of one worker.

    Attributes:
        known: What it was handed: identities of operators, hashes of splits.
    """

    def __init__(self, server: ForkServer, limits: Limits) -> None:
        self.known: set[str] = set()
        self._server = server
        self._limits = limits
        self._pid, self._connection = server.worker(limits)
        self._finalizer = weakref.finalize(self, _abandon, server, self._pid, self._connection)
        self._finalizer.atexit = False  # the server ends all of them

    def ask(self, request: bytes | memoryview, subject: str, returned: Any) -> Any:  # noqa: ANN401 - a type, and a value
        """Send a request and await its answer, of the type that is `returned`; raises what the function raised.

        Raises:
            _Ended: The worker ended, went over a limit, or sent what is no answer.
        """
        deadline, waited_s = time.monotonic() + self._limits.timeout_s, self._waited_s()
        try:
            with contextlib.suppress(ConnectionError):  # why it took no more of the request may stand in an answer
                send(self._connection, [request], deadline)
            answer = decode_answer(receive(self._connection, deadline, LARGEST_ANSWER_BYTES))
        except TimeoutError:
            starved = self._waited_s() - waited_s > STARVED * self._limits.timeout_s
            raise _Ended(subject, timed_out=True, starved=starved) from None
        except ClosedError as problem:
            raise _Ended(subject, str(problem), closed=True) from None
        except WireError as problem:
            raise _Ended(subject, str(problem)) from None
        match answer:
            case {"value": value} if fits(value, returned):
                return value
            case {"memory": True}:
                raise _Ended(subject, out_of_memory=True)
            case {"failure": str(failure), "catalog": bool(is_catalog)}:
                raise (ArtifactError if is_catalog else EvaluationError)(failure)
        raise _Ended(subject, "sent an answer of another kind")

    def _waited_s(self) -> float:
        """Seconds that its main thread was ready to run and had no core; 0 where the system does not tell."""
        try:
            waited_ns = Path(f"/proc/{self._pid}/schedstat").read_text(encoding="ascii").split()[1]
        except OSError:
            return 0.0
        return int(waited_ns) / 1e9

    def pin(self, cores: Sequence[int]) -> None:
        """Keep its main thread on these cores; on all that this process may use where there are none."""
        if hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(OSError):  # it may just have ended, which the next request tells
                os.sched_setaffinity(self._pid, cores or os.sched_getaffinity(0))

    def end(self, patience_s: float = 0.0) -> int | None:
        """End it; see `ForkServer.end`."""
        self.forget()
        return self._server.end(self._pid, patience_s)

    def forget(self) -> None:
        """Let go of it without ending it."""
        self._finalizer.detach()
        self._connection.close()


def _abandon(server: ForkServer, pid: int, connection: socket.socket) -> None:
    """What becomes of a worker whose sandbox was never closed."""
    connection.close()
    server.abandon(pid)
