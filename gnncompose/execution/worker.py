"""A worker: calls functions on its workspace for the process that it is connected to, within limits it cannot lift.

Once confined it can open no file and no socket, write no file, and leave no core dump; memory (on Linux) and CPU time
are bounded by the system, wall time by whoever calls.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import socket
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.host import HostFunction
from gnncompose.catalog.operator import Operator
from gnncompose.errors import CatalogError, GnncomposeError
from gnncompose.execution.outputs import OutputCache
from gnncompose.execution.runner import Workspace
from gnncompose.execution.sessions import SessionPool, first_line
from gnncompose.execution.wire import WireError, encode_answer, receive, send
from gnncompose.tasks.task import Split

MOST_SESSIONS = 1 << 16
MEMORY = ("bad_alloc", "bad allocation", "ailed to allocate memory", "out of memory")


@dataclass(frozen=True)
class Limits:
    """What a worker may take.

    Attributes:
        memory_bytes: Address space beyond what it has when it starts.
        timeout_s: Wall time of one call, and CPU time per thread.
        threads: Threads of its sessions.
        cache_bytes: Most bytes of outputs that it keeps, on top of `memory_bytes`.
        providers: Execution providers of its sessions.
        niceness: By how much others go before it, as `nice` counts.
    """

    memory_bytes: int = 4 << 30
    timeout_s: float = 60.0
    threads: int = 1
    cache_bytes: int = 0
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    niceness: int = 0


def admit(workspace: Workspace, operator: Operator, content: bytes, unchecked: str | None) -> None:
    """Open an artifact; check it first where that was not done yet.

    Args:
        workspace: Where its session goes.
        operator: Its catalog entry.
        content: Its bytes.
        unchecked: How messages name the entry; None where the artifact was checked before, or is trusted.

    Raises:
        CatalogError: It breaks a rule, or does not load.
    """
    if unchecked is not None:
        # Inside, because workers that only see checked artifacts do without onnx, and its memory.
        from gnncompose.catalog.artifacts import check_artifact

        check_artifact(content, operator, unchecked)
    workspace.sessions.admit(operator, content)


def admit_host(workspace: Workspace, operator: Operator, function: HostFunction) -> None:
    """Take the function of a host operator, whose module was loaded before: here no file can be opened."""
    workspace.sessions.admit_host(operator, function)


def keep(workspace: Workspace, split: Split) -> None:
    """Keep a split, so that later calls need only name it."""
    workspace.splits[split.sha256] = split


class _Reader(pickle.Unpickler):
    """Reads requests, in which splits that were handed over stand as their hashes."""

    def __init__(self, content: bytearray, splits: dict[str, Split]) -> None:
        super().__init__(BytesIO(content))
        self._splits = splits

    def persistent_load(self, pid: str) -> Split:
        return self._splits[pid]


def serve(connection: socket.socket, limits: Limits) -> None:
    """Answer calls until the connection ends."""
    # Nothing can be read from disk later: whoever has not handed an artifact over gets an error.
    sessions = SessionPool(Catalog("sandbox", ()), limits.threads, MOST_SESSIONS, limits.providers)
    workspace = Workspace(sessions, OutputCache(limits.cache_bytes))
    _confine(connection, limits)
    while True:
        try:
            (content,) = receive(connection)
        except (WireError, OSError):
            return
        except MemoryError as problem:
            send(connection, encode_answer(_failure(problem)))
            return  # where the next request begins cannot be told any more
        _allow_cpu(limits)
        try:
            function, args = _Reader(content, workspace.splits).load()
            del content
            parts = encode_answer({"value": function(workspace, *args)})
        except Exception as problem:
            parts = encode_answer(_failure(problem))
        send(connection, parts)


def _failure(problem: Exception) -> dict[str, str | bool]:
    text = first_line(problem)
    if isinstance(problem, MemoryError) or any(sign in str(problem) for sign in MEMORY):
        return {"failure": text, "memory": True, "catalog": False}
    own = isinstance(problem, GnncomposeError)
    return {
        "failure": str(problem) if own else f"{type(problem).__name__}: {text}",
        "memory": False,
        "catalog": isinstance(problem, CatalogError),
    }


def _confine(connection: socket.socket, limits: Limits) -> None:
    os.nice(limits.niceness)
    with contextlib.suppress(OSError):  # Linux only: where memory runs out, this process goes, and not its caller
        Path("/proc/self/oom_score_adj").write_text("1000")
    if sys.platform == "linux":  # macOS refuses a bound below the address space that every process has there
        _limit(resource.RLIMIT_AS, _address_space_bytes() + limits.memory_bytes + limits.cache_bytes)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, connection.fileno() + 1)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _allow_cpu(limits: Limits) -> None:
    """Let the next call use as much CPU time as it may, on top of what was used before."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime + limits.timeout_s * limits.threads) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
