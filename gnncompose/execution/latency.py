"""The timing protocol: what it takes to measure a few hundred microseconds to a few percent.

Every measurement pins its thread to a core that no other measurement holds, warms up, and runs single rows in
rounds. In between it runs a small fixed reference operator. A round's times are multiplied by the reference's
time at the machine's best and divided by its median in that round, which takes out what slows all work on the
core alike, such as its clock or a busy neighbour; times are therefore those of the machine at its best. The
samples are kept after this correction, together with the reference's median time during the measurement.
Where other processes had the core for more than a tenth of the time, the rounds are run again, and the attempt
that they disturbed least counts.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime as ort
import platformdirs
from onnx import TensorProto, helper, numpy_helper

from gnncompose.execution.sessions import PROVIDERS, session_options
from gnncompose.provenance import hardware

Request = TypeVar("Request")
PROTOCOL = "1"
WARM_UP_RUNS = 10
REFERENCE_SIZE = 160
BASELINE_BURSTS = 8
BURST_RUNS = 50
BURST_PAUSE_S = 0.01
IMPLAUSIBLE = 4.0
RUNS_PER_REFERENCE = 4
ATTEMPTS = 3
MOST_WAITING = 0.1
CLAIM_TIMEOUT_S = 60.0
CLAIM_POLL_S = 0.005
ROW_SEED = 20260101


@dataclass(frozen=True, eq=False)
class Timing:
    """Times of single rows.

    Attributes:
        samples_ms: float64[rows, repeats], corrected for the drift of the machine.
        cpu_ms: CPU time of one row: mean over rows of the median over repeats, corrected likewise.
        reference_ms: Median time of the reference operator during the measurement.
    """

    samples_ms: np.ndarray
    cpu_ms: float
    reference_ms: float

    @property
    def share_waiting(self) -> float:
        """Share of the time in which another process had the core; 0 or less where none had."""
        return 1 - self.cpu_ms / float(np.median(self.samples_ms, axis=1).mean())


def sample_rows(count: int, rows: int) -> np.ndarray:
    """Which of `count` rows are timed: always the same ones for the same numbers."""
    generator = np.random.default_rng(ROW_SEED)
    return np.sort(generator.choice(count, size=min(rows, count), replace=False))


def measure(run: Callable[[Request], object], inputs: Sequence[Request], repeats: int, threads: int = 1) -> Timing:
    """Time a function on each of some inputs.

    Args:
        run: What is timed.
        inputs: Each one is a call's argument, usually one row.
        repeats: Rounds over all inputs.
        threads: Cores that the function may use; more than one is claimed then, and the CPU time is that of
            the whole process.
    """
    cpu = str(hardware()["cpu"])  # asked before this thread is pinned, since it also counts the usable cores
    with claimed_cores(threads), no_garbage_collection():
        baseline = _baseline_ns(cpu)
        for i in range(max(WARM_UP_RUNS, min(len(inputs), 2 * WARM_UP_RUNS))):
            run(inputs[i % len(inputs)])
        attempts: list[Timing] = []
        while len(attempts) < ATTEMPTS and not (attempts and attempts[-1].share_waiting <= MOST_WAITING):
            attempts.append(_attempt(run, inputs, repeats, threads, baseline))
    return min(attempts, key=lambda timing: timing.share_waiting)


def _attempt(
    run: Callable[[Request], object], inputs: Sequence[Request], repeats: int, threads: int, baseline_ns: float
) -> Timing:
    """All rounds once."""
    clock = time.thread_time_ns if threads == 1 else time.process_time_ns
    wall, used = np.empty((repeats, len(inputs))), np.empty((repeats, len(inputs)))
    reference = np.empty((repeats, -(-len(inputs) // RUNS_PER_REFERENCE)))
    for turn in range(repeats):
        _time_round(run, inputs, clock, wall[turn], used[turn], reference[turn])
    drift = baseline_ns / np.median(reference, axis=1)
    wall *= drift[:, None] / 1e6
    used *= drift[:, None] / 1e6
    return Timing(wall.T.copy(), float(np.median(used, axis=0).mean()), float(np.median(reference)) / 1e6)


def _time_round(
    run: Callable[[Request], object],
    inputs: Sequence[Request],
    clock: Callable[[], int],
    wall: np.ndarray,
    cpu: np.ndarray,
    reference: np.ndarray,
) -> None:
    """One pass over the inputs; fills nanoseconds into the last three."""
    now = time.perf_counter_ns
    run_reference = _reference()
    for i, row in enumerate(inputs):
        if i % RUNS_PER_REFERENCE == 0:
            # what ran before has taken the caches: neither the reference nor what is timed may pay for that
            run_reference()
            run_reference()
            started = now()
            run_reference()
            reference[i // RUNS_PER_REFERENCE] = now() - started
            run(row)
        cpu_started = clock()
        started = now()
        run(row)
        wall[i] = now() - started
        cpu[i] = clock() - cpu_started


@cache
def _reference() -> Callable[[], object]:
    """The reference: a matrix times a vector, about 20 microseconds of a server's core."""
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((REFERENCE_SIZE, REFERENCE_SIZE)).astype(np.float32) / REFERENCE_SIZE
    shape = ["N", REFERENCE_SIZE]
    nodes = [
        helper.make_node(kind, ["x" if i == 0 else f"h{i}", *(["w"] if kind == "MatMul" else [])], [f"h{i + 1}"])
        for i, kind in enumerate(["MatMul", "Tanh"] * 3)
    ]
    graph = helper.make_graph(
        nodes,
        "reference",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("h6", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), session_options(), providers=list(PROVIDERS))
    feed = {"x": generator.standard_normal((1, REFERENCE_SIZE)).astype(np.float32)}
    return lambda: session.run(None, feed)


@cache
def _baseline_ns(cpu: str) -> float:
    """The reference's time at this machine's best, as far as it is known; the same for the whole process.

    The best is kept in the user's cache folder: another process on a busy neighbour core slows this one by
    half, and a process that began then must not count in another unit than one that began on an idle machine.
    """
    here = min(_burst_ns() for _ in range(BASELINE_BURSTS))
    key = hashlib.sha256(f"{cpu} {ort.__version__}".encode()).hexdigest()[:16]
    path = Path(platformdirs.user_cache_dir("gnncompose")) / f"reference-{PROTOCOL}-{key}.txt"
    with contextlib.suppress(OSError, ValueError):
        known = float(path.read_text())
        if here / IMPLAUSIBLE < known <= here:
            return known
    with contextlib.suppress(OSError):  # without the file, processes only differ a little more
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(f"{here}\n")
        new.replace(path)
    return here


def _burst_ns() -> float:
    """Median time of the reference over a few runs, after a pause in which a neighbour may fall idle."""
    run, now = _reference(), time.perf_counter_ns
    times: list[int] = []
    time.sleep(BURST_PAUSE_S)
    for _ in range(BURST_RUNS):
        started = now()
        run()
        times.append(now() - started)
    return float(np.median(times[WARM_UP_RUNS:]))


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python's collector from running, and put it back as it was."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def claimed_cores(count: int = 1) -> Iterator[tuple[int, ...]]:
    """Hold cores for timing and pin this thread to them; waits while other measurements hold them all.

    The claim is a lock on a file per core in the temporary folder, so a process that dies gives it back.
    Where the system knows no affinity or no such locks, nothing is claimed.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield ()
        return
    allowed = os.sched_getaffinity(0)
    held = _claim(sorted(allowed), min(count, len(allowed)))
    try:
        os.sched_setaffinity(0, held)
        yield tuple(held)
    finally:
        os.sched_setaffinity(0, allowed)
        for handle in held.values():
            if handle >= 0:
                os.close(handle)


def _claim(cores: list[int], count: int) -> dict[int, int]:
    """Lock `count` of the cores; after a minute of waiting goes on without, since a holder may be stopped."""
    import fcntl  # absent on Windows, where there is no affinity either

    deadline = time.monotonic() + CLAIM_TIMEOUT_S
    while True:
        held: dict[int, int] = {}
        # the last core first: interrupts and unpinned work gather on the first
        for core in reversed(cores):
            handle = _open_lock(core)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(handle)
                continue
            held[core] = handle
            if len(held) == count:
                return held
        for handle in held.values():
            os.close(handle)
        if time.monotonic() > deadline:
            return {core: -1 for core in cores[-count:]}
        time.sleep(CLAIM_POLL_S)


def _open_lock(core: int) -> int:
    owner = os.getuid()
    machine = hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]
    path = Path(tempfile.gettempdir()) / f"gnncompose-core-{machine}-{owner}-{core}.lock"
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
