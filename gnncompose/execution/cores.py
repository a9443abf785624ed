"""Cores and the collector while something is timed: one core per measurement, and no pauses of Python's own."""

from __future__ import annotations

import gc
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLAIM_TIMEOUT_S = 60.0
CLAIM_POLL_S = 0.005


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
