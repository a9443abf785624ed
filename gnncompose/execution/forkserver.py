"""The process that workers are forked from: it has everything loaded, opens no artifact, and does nothing else.

It is started as `python -m gnncompose.execution.forkserver FD MODULE…`, with one end of a socket. Each request there
brings a connection for a new worker, or asks for a worker's end. A fork takes milliseconds where a new process with
ONNX Runtime takes half a second, and unlike `multiprocessing`'s fork server it never imports the caller's main module.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from gnncompose.execution.worker import Limits, serve

WORKER_FD = 3
_PR_SET_PDEATHSIG = 1


def run(control: socket.socket) -> None:
    """Answer requests until the other side ends; no worker outlives this process."""
    workers: set[int] = set()
    while True:
        message, received, _, _ = socket.recv_fds(control, 1 << 16, 1)
        if not message:
            break
        request = json.loads(message)
        if "limits" in request:
            pid = _fork(received[0], Limits(**request["limits"]), control)
            os.close(received[0])
            workers.add(pid)
            answer = {"pid": pid}
        elif request["end"] in workers:
            workers.remove(request["end"])
            answer = {"code": _end(request["end"])}
        else:  # a worker of a process before this one, which took it along
            answer = {"code": -signal.SIGKILL}
        control.sendall(json.dumps(answer).encode())
    for pid in workers:
        _end(pid)


def _fork(connection: int, limits: Limits, control: socket.socket) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere `run` ends the workers
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is for the caller to answer
        control.close()
        _keep_only(connection)
        serve(socket.socket(fileno=WORKER_FD), limits)
    finally:
        os._exit(0)


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


def _end(pid: int) -> int:
    """Kill a worker where it still lives; its exit code, or minus the signal that ended it."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in sys.argv[2:]:
        importlib.import_module(name)
    os.chdir(Path(__file__).anchor)
    run(socket.socket(fileno=int(sys.argv[1])))
