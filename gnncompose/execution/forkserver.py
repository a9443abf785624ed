"""The process that workers are forked from: it has everything loaded, opens no artifact, and does nothing else.

It is started as `python -m gnncompose.execution.forkserver FD MODULE…`, with one end of a socket. Each request there
brings a connection for a new worker, or asks for a worker's end. A fork takes milliseconds where a new process with
ONNX Runtime takes half a second, and unlike `multiprocessing`'s fork server it never imports the caller's main module.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from gnncompose.execution.worker import Limits, serve

WORKER_FD = 3
_PR_SET_PDEATHSIG = 1


def run(control: socket.socket) -> None:
    """Answer requests until the other side ends; no worker outlives this process."""
    workers: set[int] = set()
    with contextlib.suppress(ConnectionError):  # the other side ended before it read an answer
        while True:
            message, received, _, _ = socket.recv_fds(control, 1 << 16, 1)
            if not message:
                break
            control.sendall(json.dumps(_answer(json.loads(message), received, control, workers)).encode())
    for pid in workers:
        _end(pid, 0.0)


def _answer(
    request: dict[str, Any], received: list[int], control: socket.socket, workers: set[int]
) -> dict[str, int | None]:
    if "limits" in request:
        pid = _fork(received[0], Limits(**request["limits"]), control)
        os.close(received[0])
        workers.add(pid)
        return {"pid": pid}
    if request["end"] in workers:
        workers.remove(request["end"])
        return {"code": _end(request["end"], request["patience_s"])}
    return {"code": -signal.SIGKILL}  # a worker of a process before this one, which took it along


def _fork(connection: int, limits: Limits, control: socket.socket) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere `run` ends the workers
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is for the caller to answer
        control.close()
        _keep_only(connection)
        serve(socket.socket(fileno=WORKER_FD), limits)
        code = 0
    finally:
        os._exit(code)


def _keep_only(connection: int) -> None:
    """Leave the worker nothing but its connection: standard streams lead nowhere, other files are closed."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(WORKER_FD):
        os.dup2(nowhere, stream)
    if connection != WORKER_FD:
        os.dup2(connection, WORKER_FD)
    os.set_inheritable(WORKER_FD, False)
    highest, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.closerange(WORKER_FD + 1, min(highest, 1 << 16))


def _end(pid: int, patience_s: float) -> int | None:
    """Kill a worker where it still lives.

    Args:
        pid: Which one.
        patience_s: How long it may take to end by itself before.

    Returns:
        Its exit code, or minus the signal that ended it; None where it had to be killed.
    """
    deadline = time.monotonic() + patience_s
    ended, status = os.waitpid(pid, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(0.002)
        ended, status = os.waitpid(pid, os.WNOHANG)
    if ended:
        return os.waitstatus_to_exitcode(status)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in sys.argv[2:]:
        importlib.import_module(name)
    os.chdir(Path(__file__).anchor)
    gc.collect()
    gc.freeze()  # a worker's collector need not look at what was there before it, and so copy its pages
    run(socket.socket(fileno=int(sys.argv[1])))
