"""The sandbox: artifacts run in a limited process, and whatever they do there costs that call and nothing else.

A fork server with ONNX Runtime loaded (never torch) gives workers in milliseconds. A worker that crashes, hangs, or
takes more than it may is replaced, and the caller is told why in one line. An artifact comes into a worker only as
bytes that `read_artifact` gave, and is checked there before it is loaded.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Concatenate

import gnncompose
from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import Operator
from gnncompose.catalog.reading import entry_name, read_artifact
from gnncompose.errors import ArtifactError, EvaluationError, GnncomposeError
from gnncompose.execution.runner import Answer, Arguments, Workspace
from gnncompose.execution.wire import LARGEST_ANSWER_BYTES, WireError, decode_answer, receive, send
from gnncompose.execution.worker import Limits, admit, keep
from gnncompose.tasks.task import Split

LEAN = ("onnxruntime", "gnncompose.execution.memory")
FULL = (*LEAN, "gnncompose.execution.work", "gnncompose.catalog.artifacts")
START_TIMEOUT_S = 60.0
REASONS = {
    signal.SIGKILL: "was killed by the system, most likely for lack of memory",
    signal.SIGXCPU: "used more CPU time than it may",
    signal.SIGXFSZ: "tried to write a file",
}


class ForkServer:
    """The process that workers are forked from; started when first needed, and again where it died."""

    def __init__(self, modules: Sequence[str]) -> None:
        """Name what it loads before it forks.

        Args:
            modules: Modules that hold the functions to be called, and what these need.
        """
        self.modules = tuple(modules)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket
        self._lock = threading.Lock()
        self._abandoned: list[int] = []
        _INHERITABLE.add(self)

    def worker(self, limits: Limits) -> tuple[int, socket.socket]:
        """A fresh worker: its process id and the connection to it.

        Raises:
            EvaluationError: No process can be started.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            answer = self._ask({"limits": asdict(limits)}, [theirs.fileno()])
        return int(answer["pid"]), ours

    def end(self, pid: int) -> int:
        """End a worker; its exit code, or minus the signal that it died of."""
        return int(self._ask({"end": pid}, [])["code"])

    def abandon(self, pid: int) -> None:
        """Have a worker ended with the next request; takes no lock, so that the garbage collector may call it."""
        self._abandoned.append(pid)

    def _ask(self, request: dict[str, Any], handles: list[int]) -> dict[str, Any]:
        with self._lock:
            try:
                return self._asked(request, handles)
            except OSError as problem:
                self.close()
                if "end" in request:  # it took its workers along
                    return {"code": -signal.SIGKILL}
                raise EvaluationError(f"no sandbox can be started: {problem}") from None
            except BaseException:  # such as Ctrl-C: an answer to it must not be taken for the next request's
                self.close()
                raise

    def _asked(self, request: dict[str, Any], handles: list[int]) -> dict[str, Any]:
        if self._process is None or self._process.poll() is not None:
            self._start()
        while self._abandoned and "end" not in request:
            self._exchange({"end": self._abandoned.pop()}, [])
        return self._exchange(request, handles)

    def _exchange(self, request: dict[str, Any], handles: list[int]) -> dict[str, Any]:
        socket.send_fds(self._control, [json.dumps(request).encode()], handles)
        answer = self._control.recv(1 << 16)
        if not answer:
            raise OSError("the process that forks workers ended")
        return json.loads(answer)

    def _start(self) -> None:
        self.close()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._control.settimeout(START_TIMEOUT_S)
        with theirs:
            # It imports from where this process does. Without -P the working folder would come first, which may be a
            # stranger's bundle, with a numpy.py of its own.
            paths = [path for path in sys.path if path] + [str(Path(gnncompose.__file__).parents[1])]
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gnncompose.execution.forkserver", str(theirs.fileno()), *self.modules],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
            )
        atexit.register(self.close)

    def forget(self) -> None:
        """Let go of what belongs to the process that this one was forked from, without ending it."""
        process, self._process = self._process, None
        if process is not None:
            atexit.unregister(self.close)
            process.returncode = 0  # it is no child of this process, which is not to wait for it
            self._control.close()
        self._lock = threading.Lock()
        self._abandoned = []

    def close(self) -> None:
        """End it and all its workers."""
        process, self._process = self._process, None
        atexit.unregister(self.close)
        if process is not None:
            self._control.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()


_INHERITABLE: weakref.WeakSet[ForkServer | Sandbox] = weakref.WeakSet()


def _forget_inherited() -> None:
    """A forked process shares connections with the one that it was forked from; it starts processes of its own.

    Were the connections left open in it, a fork server would not notice the end of its own process.
    """
    for held in list(_INHERITABLE):
        held.forget()


os.register_at_fork(after_in_child=_forget_inherited)


@cache
def _fork_server(modules: tuple[str, ...], owner: int) -> ForkServer:
    """One for all sandboxes of a process that load the same; `owner` is the process, which a fork changes."""
    return ForkServer(modules)


class _Writer(pickle.Pickler):
    """Writes requests; remembers which operators and splits they speak of, and leaves the splits out."""

    def __init__(self, target: BytesIO) -> None:
        super().__init__(target, protocol=pickle.HIGHEST_PROTOCOL)
        self.operators: dict[str, Operator] = {}
        self.splits: dict[str, Split] = {}

    def persistent_id(self, obj: object) -> str | None:
        if isinstance(obj, Operator) and obj.artifact is not None:
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
            modules: What workers have loaded.
        """
        self.catalog = catalog
        self.limits = limits or Limits()
        self._checked = checked
        self._modules = tuple(modules)
        self._worker: _Worker | None = None
        self._cores: Sequence[int] = ()
        self._lock = threading.RLock()
        _INHERITABLE.add(self)

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
                    reason = self._bury(ended)
                    if fresh or ended.timed_out:
                        raise EvaluationError(f"{ended.subject} {reason}") from None
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
            worker = self._worker = _Worker(_fork_server(self._modules, os.getpid()), self.limits)
            worker.pin(self._cores)
        for key, operator in writer.operators.items():
            if key not in worker.known:
                content = read_artifact(self.catalog, operator)
                where = entry_name(self.catalog, operator)
                request = pickle.dumps((admit, (operator, content, None if self._checked else where)))
                worker.ask(request, f"{where}: {operator.artifact}: loading it")
                worker.known.add(key)
        for key, split in writer.splits.items():
            if key not in worker.known:
                worker.ask(pickle.dumps((keep, (split,))), "the data")
                worker.known.add(key)
        return worker.ask(target.getbuffer(), str(args[0]) if args else function.__name__)

    def _bury(self, ended: _Ended) -> str:
        """End a worker that did not answer; why it did not."""
        assert self._worker is not None
        code = self._worker.end()
        self._worker = None
        if ended.timed_out:
            return f"did not end within {self.limits.timeout_s:g} s"
        if ended.out_of_memory:
            return f"needs more memory than the {self.limits.memory_bytes >> 20} MiB that a sandbox has"
        if code < 0:
            name = signal.Signals(-code).name
            return f"{REASONS.get(signal.Signals(-code), 'crashed')} ({name})"
        return f"{ended.reason}, and its process ended with code {code}"

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


class _Ended(Exception):  # noqa: N818 - tells `Sandbox.call` how a worker ended; no caller sees it
    def __init__(self, subject: str, reason: str = "", *, timed_out: bool = False, out_of_memory: bool = False) -> None:
        super().__init__(subject)
        self.subject = subject
        self.reason = reason
        self.timed_out = timed_out
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

    def ask(self, request: bytes | memoryview, subject: str) -> Any:  # noqa: ANN401 - what the function returns
        """Send a request and await its answer; raises what the function raised.

        Raises:
            _Ended: The worker ended, went over a limit, or sent what is no answer.
        """
        deadline = time.monotonic() + self._limits.timeout_s
        try:
            self._connection.settimeout(self._limits.timeout_s)
            send(self._connection, [request])
            answer = decode_answer(receive(self._connection, deadline, LARGEST_ANSWER_BYTES))
            failure, out_of_memory, is_catalog = (answer.get(name) for name in ("failure", "memory", "catalog"))
        except TimeoutError:
            raise _Ended(subject, timed_out=True) from None
        except (WireError, OSError, AttributeError) as problem:
            raise _Ended(subject, str(problem)) from None
        if out_of_memory:
            raise _Ended(subject, out_of_memory=True)
        if failure is None:
            return answer["value"]
        raise (ArtifactError if is_catalog else EvaluationError)(str(failure))

    def pin(self, cores: Sequence[int]) -> None:
        """Keep its main thread on these cores; on all that this process may use where there are none."""
        if hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(OSError):  # it may just have ended, which the next request tells
                os.sched_setaffinity(self._pid, cores or os.sched_getaffinity(0))

    def end(self) -> int:
        """Kill it; its exit code, or minus the signal that it died of."""
        self.forget()
        return self._server.end(self._pid)

    def forget(self) -> None:
        """Let go of it without ending it."""
        self._finalizer.detach()
        self._connection.close()


def _abandon(server: ForkServer, pid: int, connection: socket.socket) -> None:
    """What becomes of a worker whose sandbox was never closed."""
    connection.close()
    server.abandon(pid)
