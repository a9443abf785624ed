"""Peak memory of a process that serves one composition and nothing else.

A helper process imports ONNX Runtime, opens nothing, and forks once per request; the child opens the
composition's sessions, answers a few rows, and tells how much memory it ever held. A child that crashes or
hangs costs its own request. Requests are pickled, since they come from our own parent; answers are JSON, since
the child has run strangers' artifacts.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import select
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import numpy as np

from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.tree import Composition
from gnncompose.errors import EvaluationError, GnncomposeError

ROWS = 4
TIMEOUT_S = 60.0
_LENGTH = struct.Struct("<Q")


class MemoryProbe:
    """Asks a helper process for peak memory; starts it when first needed and again if it died."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def peak_memory_bytes(self, composition: Composition, catalog: Catalog, x: np.ndarray, threads: int = 1) -> int:
        """Largest resident memory while a fresh process opens a composition and answers rows one by one.

        Args:
            composition: What is served.
            catalog: Where its artifacts lie.
            x: [rows, ...]; the first few are answered.
            threads: Threads of the sessions.

        Raises:
            EvaluationError: The process crashed, hung or could not run the composition.
        """
        request = pickle.dumps((composition, Catalog(catalog.name, (), catalog.directory), x[:ROWS], threads))
        with self._lock:
            try:
                answer = self._ask(request)
            except (OSError, EOFError):  # the helper died since the last request
                self.close()
                try:
                    answer = self._ask(request)
                except (OSError, EOFError) as problem:
                    self.close()
                    raise EvaluationError(f"the memory probe does not answer: {problem}") from None
        if "error" in answer:
            raise EvaluationError(str(answer["error"]))
        return int(str(answer["peak_memory_bytes"]))

    def _ask(self, request: bytes) -> dict[str, object]:
        process = self._process
        if process is None or process.poll() is not None:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", "gnncompose.execution.memory", str(self.timeout_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(_LENGTH.pack(len(request)) + request)
        process.stdin.flush()
        return json.loads(_read(process.stdout))

    def close(self) -> None:
        """End the helper process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):  # what was still buffered cannot be sent any more
                    pipe.close()
            process.wait()

    def __del__(self) -> None:
        self.close()


def _read(stream: IO[bytes]) -> bytes:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError("end of stream")
    return stream.read(_LENGTH.unpack(head)[0])


def _peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _answer(request: bytes) -> dict[str, object]:
    """Run a request in this process."""
    from gnncompose.execution.plan import Plan
    from gnncompose.execution.sessions import SessionPool

    composition, catalog, x, threads = pickle.loads(request)
    try:
        plan = Plan(composition, SessionPool(catalog, threads))
        for row in range(len(x)):
            plan.run(x[row : row + 1])
    except GnncomposeError as problem:
        return {"error": str(problem)}
    return {"peak_memory_bytes": _peak_bytes()}


def _answer_in_child(request: bytes, timeout_s: float) -> bytes:
    """Fork, let the child answer, and give a reason where it does not."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.write(writing, json.dumps(_answer(request)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], timeout_s)
    answer = os.read(reading, 65536) if ready else b""
    os.close(reading)
    if not ready:
        os.kill(child, 9)
    _, status = os.waitpid(child, 0)
    if answer:
        return answer
    reason = f"hung for {timeout_s:.0f} s" if not ready else f"died with signal {os.waitstatus_to_exitcode(status)}"
    return json.dumps({"error": f"the process that served it {reason}"}).encode()


def serve(timeout_s: float) -> None:
    """Answer requests from standard input until it ends."""
    import gnncompose.execution.plan  # noqa: F401 - what the children need is imported once, before they fork

    output = sys.stdout.buffer
    while True:
        try:
            request = _read(sys.stdin.buffer)
        except EOFError:
            return
        answer = _answer_in_child(request, timeout_s)
        output.write(_LENGTH.pack(len(answer)) + answer)
        output.flush()


if __name__ == "__main__":
    serve(float(sys.argv[1]))
