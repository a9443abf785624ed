"""The jobs of a sweep. Each says in its own folder how it ended, whichever process ran it and however that went."""

from __future__ import annotations

import csv
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from gnncompose.errors import INTERRUPTED, GnncomposeError, one_line
from gnncompose.resuming import RUN, occupied, recorded_overrides

FAILURE = "failure.txt"  # one line: why the job failed
LOG = "run.log"  # what the job printed
FAILURES = "failures.csv"  # of the whole sweep
RUNNING = Path(".hydra") / "running"  # there while the job runs; stays where its process died
POLL_S = 0.5
GRACE_S = 5.0
without_result = threading.Event()  # some job of this process's sweeps has none
interrupted = threading.Event()  # by Ctrl-C; a search ends itself on it, and the sweep must not go on

Launch = Callable[[Sequence["Job"]], None]


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: Its place in the sweep, from 0 up.
        folder: Where its files go.
        overrides: Its settings.
    """

    number: int
    folder: Path
    overrides: tuple[str, ...]

    @property
    def is_begun(self) -> bool:
        """Whether a process ran it, or runs it."""
        return (self.folder / LOG).exists()

    @property
    def is_over(self) -> bool:
        """Whether it came to an end, good or bad."""
        return self.is_begun and not (self.folder / RUNNING).exists()

    @property
    def failure(self) -> str | None:
        """Why it failed; None where it did not."""
        return failure_in(self.folder)

    @property
    def has_result(self) -> bool:
        """Whether an earlier sweep in the same folder brought it to a good end.

        Raises:
            GnncomposeError: It did so with other settings.
        """
        if not self.is_over or self.failure is not None:
            return False
        if recorded_overrides(self.folder) != [
            override for override in self.overrides if not override.lstrip("+~").startswith("hydra")
        ]:
            raise GnncomposeError(f"{self.folder}: holds a job of other settings; give another hydra.sweep.dir")
        return True

    def fail(self, reason: str) -> None:
        """Say that it failed, where its process cannot say so any more."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / FAILURE).write_text(one_line(reason) + "\n", encoding="utf-8")
        (self.folder / LOG).touch()
        (self.folder / RUNNING).unlink(missing_ok=True)

    def forget(self) -> None:
        """Drop what an earlier sweep in the same folder said of it."""
        for name in (FAILURE, LOG, RUNNING):
            (self.folder / name).unlink(missing_ok=True)

    def host_and_process(self) -> tuple[str, int]:
        """Where it runs; an empty name and 0 where it does not."""
        try:
            found = json.loads((self.folder / RUNNING).read_text(encoding="utf-8"))
            return str(found["host"]), int(found["process"])
        except (OSError, ValueError):
            return "", 0


def failure_in(folder: Path) -> str | None:
    """Why the job of a folder failed; None where it did not."""
    try:
        return (folder / FAILURE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def root_cause(problem: BaseException) -> str:
    """Kind and text of what an error goes back to, as one line."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return f"{type(problem).__name__}: {one_line(str(problem))}"


def heed_interrupt() -> None:
    """Raise what Python ignores where a destructor ran, or the end of an import, when Ctrl-C came.

    Raises:
        KeyboardInterrupt: The sweep was interrupted.
    """
    if interrupted.is_set():
        raise KeyboardInterrupt


def run_job(job: Callable[[], None], folder: Path, explain: Callable[[BaseException], str | None]) -> None:
    """Run a job, in whatever process; what it prints goes into its folder, and so does the reason if it fails.

    Args:
        job: The job.
        folder: Its own.
        explain: One line for a mistake of the user's, None for any other error, whose traceback is kept in the log.

    Raises:
        KeyboardInterrupt: The sweep was interrupted.
    """
    heed_interrupt()
    with occupied(folder) as is_held:
        if is_held:  # else a process of another sweep runs it, and says in the folder how it ends
            _run_job(job, folder, explain)


def _run_job(job: Callable[[], None], folder: Path, explain: Callable[[BaseException], str | None]) -> None:
    (folder / FAILURE).unlink(missing_ok=True)
    running = folder / RUNNING
    running.parent.mkdir(exist_ok=True)
    running.write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid()}), encoding="utf-8")
    # Appended to: a job whose process died is run again.
    with (folder / LOG).open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            job()
        except (Exception, SystemExit) as problem:
            ended_early = isinstance(problem, SystemExit) and problem.code == INTERRUPTED
            reason = "it was interrupted" if ended_early else explain(problem)
            if reason is None:
                traceback.print_exc()
                reason = root_cause(problem)
            (folder / FAILURE).write_text(reason + "\n", encoding="utf-8")
    running.unlink(missing_ok=True)


def launch_all(jobs: Sequence[Job], launch: Launch) -> None:
    """Launch jobs; where one takes the launcher down, such as by killing its process, the others go on.

    A job whose process died is tried once more, alone: another beside it may have brought it down.

    Args:
        jobs: What to run.
        launch: Runs jobs to their end, or raises.

    Raises:
        Exception: What the launcher raised before any job began: it does not work at all.
    """
    try:
        launch(jobs)
        return
    except Exception as problem:
        _settle(jobs, problem)
        if not any(job.is_begun for job in jobs):
            raise
    open_jobs = [job for job in jobs if not job.is_over]
    for job in open_jobs:
        if job.is_begun:
            _launch_alone(job, launch)
    for group in consecutive([job for job in open_jobs if not job.is_begun]):
        if group[0] is jobs[0]:  # nothing before it: what took the launcher down may be its first job
            _launch_alone(group[0], launch)
            group = group[1:]
        if group:
            _launch_rest(group, launch)


def _launch_rest(jobs: Sequence[Job], launch: Launch) -> None:
    try:
        launch_all(jobs, launch)
    except Exception as problem:
        jobs[0].fail(f"it could not be begun: {root_cause(problem)}")
        if jobs[1:]:
            _launch_rest(jobs[1:], launch)


def _launch_alone(job: Job, launch: Launch) -> None:
    host, _ = job.host_and_process()
    if host not in ("", socket.gethostname()):
        job.fail(f"nothing more was heard of it from {host}")  # where it may be running still
        return
    try:
        launch([job])
    except Exception as problem:
        _settle([job], problem)
        if not job.is_begun:
            job.fail(f"it could not be begun: {root_cause(problem)}")
        elif not job.is_over:
            with (job.folder / LOG).open("a", encoding="utf-8") as log:
                log.write(f"\n{root_cause(problem)}\n")
            job.fail(f"its process died, also when it was tried alone ({type(problem).__name__})")


def _settle(jobs: Sequence[Job], problem: Exception) -> None:
    """Wait for jobs that still run after their launcher gave up, as those on Ray and submitit do."""
    end = time.monotonic() + (0.0 if isinstance(problem, BrokenExecutor) else GRACE_S)  # a broken pool is gone
    while True:
        if any(_runs(job) for job in jobs):
            end = max(end, time.monotonic() + POLL_S)
        elif time.monotonic() >= end:
            return
        time.sleep(POLL_S)


def _runs(job: Job) -> bool:
    """Whether a process of this machine, and not this one, runs the job."""
    host, process = job.host_and_process()
    if host != socket.gethostname() or process == os.getpid():
        return False
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:
        return True  # there is such a process, and no way to tell more


def consecutive(jobs: Sequence[Job]) -> list[list[Job]]:
    """Groups of jobs with successive numbers, as launchers number them."""
    groups: list[list[Job]] = []
    for job in jobs:
        if groups and job.number == groups[-1][-1].number + 1:
            groups[-1].append(job)
        else:
            groups.append([job])
    return groups


@contextmanager
def progress(is_over: Sequence[Callable[[], bool]], title: str, unit: str) -> Iterator[None]:
    """A bar of what is over, whoever runs it.

    Args:
        is_over: Says of each whether it is over; asked now and then.
        title: Of the bar.
        unit: What is counted.
    """
    from tqdm import tqdm

    ended = threading.Event()
    # Not a terminal (a log, a pipe): a line now and then instead of a redrawn bar.
    interval = 0.1 if sys.stderr.isatty() else 30.0
    bar = tqdm(total=len(is_over), desc=title, unit=unit, mininterval=interval, disable=not is_over)

    def watch() -> None:
        left = list(is_over)
        while left:
            last = ended.is_set()  # asked first, so that what ended before is counted
            still = [asked for asked in left if not asked()]
            bar.update(len(left) - len(still))
            left = still
            if last:
                return
            ended.wait(POLL_S)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        bar.close()


def report(jobs: Sequence[Job], folder: Path) -> None:
    """Say at the end of a sweep what failed and why, on standard error and in its folder."""
    failed = [(job, job.failure) for job in jobs if job.failure is not None]
    unended = [(job, "it did not end" if job.is_begun else "it was not begun") for job in jobs if not job.is_over]
    same = set.intersection(*(set(job.overrides) for job in jobs)) if jobs[1:] else set[str]()
    for job, reason in failed:
        own = " ".join(override for override in job.overrides if override not in same)
        print(f"failed: {job.number} ({own}): {reason}", file=sys.stderr)
    path = folder / FAILURES
    path.unlink(missing_ok=True)
    told = f"{len(jobs) - len(failed) - len(unended)} of {len(jobs)} jobs done, {len(failed)} failed"
    if unended:
        told += f", {len(unended)} did not end"
    if failed or unended:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("job", "folder", "reason", "overrides"))
            rows = sorted([*failed, *unended], key=lambda row: row[0].number)
            writer.writerows((job.number, job.folder, reason, " ".join(job.overrides)) for job, reason in rows)
        told += f"; see {path}, and {LOG} in each job's folder"
    if any((job.folder / RUN).exists() for job in jobs):  # of searches, which alone can be summed up
        told += f"\ntogether: gnncompose summary {folder}"
    print(told, file=sys.stderr)
    if failed or unended:
        without_result.set()
