"""The caller's side of the fork server: starts it, asks it for workers, and ends them."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import gnncompose
from gnncompose.errors import SandboxError
from gnncompose.execution.worker import Limits

START_TIMEOUT_S = 60.0


class Inheritable(Protocol):
    """What a forked process finds in its memory, and must not use."""

    def forget(self) -> None:
        """Let go of what belongs to the process that this one was forked from, without ending it."""
        ...


_INHERITABLE: weakref.WeakSet[Inheritable] = weakref.WeakSet()


def forget_when_forked(held: Inheritable) -> None:
    """Have something forget, in every process that this one forks, what belongs to this one."""
    _INHERITABLE.add(held)


def _forget_inherited() -> None:
    """A forked process shares connections with the one that it was forked from; it starts processes of its own.

    Were the connections left open in it, a fork server would not notice the end of its own process.
    """
    for held in list(_INHERITABLE):
        held.forget()


os.register_at_fork(after_in_child=_forget_inherited)


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
        forget_when_forked(self)

    def worker(self, limits: Limits) -> tuple[int, socket.socket]:
        """A fresh worker: its process id and the connection to it.

        Raises:
            SandboxError: No process can be started.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            answer = self._ask({"limits": asdict(limits)}, [theirs.fileno()])
        return int(answer["pid"]), ours

    def end(self, pid: int, patience_s: float = 0.0) -> int | None:
        """End a worker.

        Args:
            pid: Which one.
            patience_s: How long it may take to end by itself before it is killed.

        Returns:
            Its exit code, or minus the signal that it died of; None where it was killed.
        """
        return self._ask({"end": pid, "patience_s": patience_s}, [])["code"]

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
                raise SandboxError(f"no sandbox can be started ({problem}); free memory or processes") from None
            except BaseException:  # such as Ctrl-C: an answer to it must not be taken for the next request's
                self.close()
                raise

    def _asked(self, request: dict[str, Any], handles: list[int]) -> dict[str, Any]:
        if self._process is None or self._process.poll() is not None:
            self._start()
        while self._abandoned and "end" not in request:
            self._exchange({"end": self._abandoned.pop(), "patience_s": 0.0}, [])
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


@cache
def fork_server(modules: tuple[str, ...], owner: int) -> ForkServer:
    """One for all sandboxes of a process that load the same; `owner` is the process, which a fork changes."""
    return ForkServer(modules)
