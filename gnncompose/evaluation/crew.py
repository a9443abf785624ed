"""Several workers at once: what is asked for goes before what is only foreseen, and what a lost worker had goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from gnncompose.composition.tree import Composition
from gnncompose.errors import BusyError
from gnncompose.evaluation.evaluation import Evaluation

MOST_AHEAD = 2  # evaluations per worker that are begun and not asked for yet
ENDING_S = 10.0

Key = tuple[str, str]


class WorkerLostError(Exception):
    """The worker that was asked is gone; another may answer."""


@dataclass(eq=False)
class _Job:
    """One evaluation.

    Attributes:
        composition: Of what.
        split: On which split.
        foreseen: Whether it is likely to be asked for, and was not yet.
        begun: Whether a worker has it, or answered.
        losses: Workers that it was asked of and that are gone.
        outcome: What came of it.
    """

    composition: Composition
    split: str
    foreseen: bool
    begun: bool = False
    losses: int = 0
    outcome: Future[Evaluation] = field(default_factory=Future)

    @property
    def key(self) -> Key:
        return self.composition.id, self.split


class Crew:
    """Threads that each ask one worker at a time."""

    def __init__(self, ask: Callable[[Composition, str], Evaluation], size: int, retries: int) -> None:
        """Start the threads, which wait.

        Args:
            ask: Asks the worker of the thread that calls it; raises `WorkerLostError` where that is gone.
            size: How many threads there are.
            retries: How often an evaluation is asked of another worker after one is gone.
        """
        self._ask = ask
        self._size = size
        self._retries = retries
        self._changed = threading.Condition()
        self._jobs: dict[Key, _Job] = {}
        self._waiting: list[_Job] = []
        self._ended = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(size)]
        for thread in self._threads:
            thread.start()

    def holds(self, composition: Composition, split: str) -> bool:
        """Whether an evaluation was foreseen, and not asked for yet."""
        with self._changed:
            return (composition.id, split) in self._jobs

    def foresee(self, compositions: Sequence[Composition], split: str = "validation") -> None:
        """Say what will likely be asked for, in order; what was said before and is not begun is dropped."""
        with self._changed:
            wanted = {(composition.id, split): composition for composition in compositions}
            for job in [job for job in self._jobs.values() if job.foreseen and job.key not in wanted]:
                if job.begun:
                    job.foreseen = False  # it may be asked for all the same, but holds up nothing
                else:
                    del self._jobs[job.key]
            for key, composition in wanted.items():
                self._jobs.setdefault(key, _Job(composition, split, foreseen=True))
            asked = [job for job in self._waiting if not job.foreseen]
            ahead = [job for key in wanted if not (job := self._jobs[key]).begun and job.foreseen]
            self._waiting = asked + ahead
            self._changed.notify_all()

    def evaluate(self, composition: Composition, split: str) -> Evaluation:
        """Evaluate one, before all that is only foreseen.

        Raises:
            BusyError: One worker after the other was lost with it.
            GnncomposeError: What `ask` raises.
        """
        key = composition.id, split
        with self._changed:
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = _Job(composition, split, foreseen=False)
                self._waiting.append(job)
            job.foreseen = False
            self._changed.notify_all()
        try:
            return job.outcome.result()
        finally:
            with self._changed:
                if job.outcome.done() or not job.begun:  # else it was interrupted, and may be asked for again
                    self._jobs.pop(key, None)
                    self._waiting = [waiting for waiting in self._waiting if waiting is not job]

    def end(self, let_workers_go: Callable[[], None]) -> None:
        """End the threads.

        Args:
            let_workers_go: Ends the workers, so that no thread waits for one.
        """
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        let_workers_go()
        for thread in self._threads:
            thread.join(ENDING_S)

    def _work(self) -> None:
        while (job := self._taken()) is not None:
            try:
                job.outcome.set_result(self._ask(job.composition, job.split))
            except WorkerLostError as lost:
                self._again(job, lost)
            except BaseException as problem:  # whatever it is, it is for the one who asks
                job.outcome.set_exception(problem)
            with self._changed:
                self._changed.notify_all()

    def _taken(self) -> _Job | None:
        """The next evaluation, once there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._next() is not None)
            job = self._next()
            if self._ended or job is None:
                return None
            self._waiting.remove(job)
            job.begun = True
            return job

    def _next(self) -> _Job | None:
        """What is asked for, the earliest first; else what is foreseen, unless too much of that is begun."""
        asked = next((job for job in self._waiting if not job.foreseen), None)
        if asked is not None or not self._waiting:
            return asked
        ahead = sum(job.foreseen and job.begun for job in self._jobs.values())
        return self._waiting[0] if ahead < MOST_AHEAD * self._size else None

    def _again(self, job: _Job, lost: WorkerLostError) -> None:
        job.losses += 1
        with self._changed:
            if self._ended or job.losses > self._retries:
                times = f"{job.losses} workers" if job.losses > 1 else "the worker"
                job.outcome.set_exception(
                    BusyError(f"{job.composition} ended {times} that it was asked of; the last one: {lost}")
                )
                return
            job.begun = False
            self._waiting.insert(0, job)
