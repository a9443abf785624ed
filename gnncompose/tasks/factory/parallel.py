"""Training several networks at once, one process and one thread each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import numpy as np

from gnncompose.tasks.factory import networks

Result = TypeVar("Result")
Job = Callable[[np.ndarray, np.ndarray], Result]
# More would not help: the longest network of a task takes about half of all the time.
LARGEST_POOL = 2

_rows: tuple[np.ndarray, np.ndarray] | None = None


def train_all(jobs: Mapping[str, Job[Result]], images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, Result]]:
    """Run jobs on the training rows and give each result as it ends.

    One thread each keeps results independent of the number of cores. Jobs are picklable; give the
    longest first.

    Args:
        jobs: What to run, by name.
        images: Training rows as `uint8`, which is what travels to the processes; jobs get them in [0, 1].
        labels: Their classes.
    """
    workers = min(LARGEST_POOL, os.cpu_count() or 1)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _keep_rows, (images, labels)) as pool:
        names = {pool.submit(_run, job): name for name, job in jobs.items()}
        for done in as_completed(names):
            yield names[done], done.result()


def _keep_rows(images: np.ndarray, labels: np.ndarray) -> None:
    global _rows
    _rows = (images / np.float32(255)).astype(np.float32), labels


def _run(job: Job[Result]) -> Result:
    assert _rows is not None
    with networks.one_thread():
        return job(*_rows)
