"""Jobs of a sweep under launchers that break down, without a process."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

from gnncompose import sweeping
from gnncompose.errors import INTERRUPTED
from gnncompose.sweeping import Job, launch_all, report, run_job


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    found = [Job(number, tmp_path / str(number), ("agent=x", f"seed={number}")) for number in range(6)]
    for job in found:
        (job.folder / ".hydra").mkdir(parents=True)
    return found


def do(job: Job, work: Callable[[], None] = lambda: None) -> None:
    run_job(work, job.folder, lambda problem: None)


def begin(job: Job) -> None:
    """What a process that dies leaves behind."""
    (job.folder / sweeping.LOG).touch()
    (job.folder / sweeping.RUNNING).write_text('{"host": "", "process": 0}')


def test_run_job__says_how_it_ended(jobs: list[Job]) -> None:
    def fail() -> None:
        print("so far so good")
        raise ZeroDivisionError("by\nzero")

    do(jobs[0])
    do(jobs[1], fail)
    begin(jobs[2])
    assert [job.is_over for job in jobs[:4]] == [True, True, False, False]
    assert [job.failure for job in jobs[:4]] == [None, "ZeroDivisionError: by zero", None, None]
    log = (jobs[1].folder / sweeping.LOG).read_text()
    assert log.startswith("so far so good\nTraceback")


def test_launch_all__tries_alone_what_was_running_and_goes_on_with_the_rest(jobs: list[Job]) -> None:
    """Job 2 takes down all that run; 3 runs beside it, 4 and 5 have not begun."""
    calls: list[list[int]] = []

    def launch(some: Sequence[Job]) -> None:
        calls.append([job.number for job in some])
        for job in some:
            if job.number == 2:
                begin(job)
                if jobs[3] in some:
                    begin(jobs[3])
                raise BrokenExecutor("killed")
            do(job)

    launch_all(jobs, launch)
    assert calls == [[0, 1, 2, 3, 4, 5], [2], [3], [4, 5]]
    assert [job.number for job in jobs if job.failure] == [2]
    assert jobs[2].failure == "its process died, also when it was tried alone (BrokenExecutor)"
    assert all(job.is_over for job in jobs)


def test_launch_all__fails_by_itself_what_cannot_be_begun(jobs: list[Job]) -> None:
    def launch(some: Sequence[Job]) -> None:
        for job in some:
            if job.number == 1:
                raise BrokenExecutor("no folder")
            do(job)

    launch_all(jobs, launch)
    assert [job.number for job in jobs if job.failure] == [1]
    assert all(job.is_over for job in jobs)


def test_launch_all__gives_up_where_the_launcher_does_not_work(jobs: list[Job]) -> None:
    def launch(some: Sequence[Job]) -> None:
        raise BrokenExecutor("no such queue")

    with pytest.raises(BrokenExecutor, match="no such queue"):
        launch_all(jobs, launch)
    assert not any(job.is_begun for job in jobs)


def test_run_job__says_what_an_interrupt_ended(jobs: list[Job]) -> None:
    def ended_early() -> None:
        raise SystemExit(INTERRUPTED)

    do(jobs[0], ended_early)
    assert jobs[0].failure == "it was interrupted"


def test_report__counts_and_names(
    jobs: list[Job], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "without_result", threading.Event())
    for job in jobs[:4]:
        do(job)
    jobs[1].fail("bad luck")
    begin(jobs[4])
    report(jobs, tmp_path)
    assert sweeping.without_result.is_set()
    told = capsys.readouterr().err
    assert told.startswith("failed: 1 (seed=1): bad luck\n3 of 6 jobs done, 1 failed, 2 did not end; see ")
    reasons = [line.split(",")[2] for line in (tmp_path / "failures.csv").read_text().splitlines()[1:]]
    assert reasons == ["bad luck", "it did not end", "it was not begun"]
