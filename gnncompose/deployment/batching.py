"""Dynamic batching: requests that come close together are answered together, and no more wait than may.

Rows do not depend on each other, so what is answered together is what would be answered alone. A batch begins as soon
as a worker is free and the oldest request in it has waited `wait_ms`; while all workers are busy, what comes gathers.
What is answered sooner than a thread is woken is answered at once, in the event loop's own thread.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from gnncompose.deployment.engine import Answered
from gnncompose.errors import EvaluationError, GnncomposeError

Answer = Callable[[np.ndarray], Answered]


class OverloadError(GnncomposeError):
    """More is asked than can be answered in time.

    Attributes:
        retry_after_s: When to ask again.
        closing: Whether the server is about to end.
    """

    def __init__(self, message: str, retry_after_s: int = 1, closing: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.closing = closing

    def __reduce__(self) -> tuple[type[OverloadError], tuple[str, int, bool]]:
        return type(self), (str(self), self.retry_after_s, self.closing)


@dataclass(frozen=True)
class Batching:
    """How requests are put together.

    Attributes:
        most_rows: Rows of a batch, at most; a larger request is a batch by itself.
        wait_ms: How long a request waits for others, at most, where a worker is free.
        queue_rows: Rows that may wait; what comes beyond that is turned away.
        workers: Batches that are answered at once.
        timeout_s: How long a request may take, its waiting included.
    """

    most_rows: int = 64
    wait_ms: float = 0.0
    queue_rows: int = 4096
    workers: int = 2
    timeout_s: float = 30.0


@dataclass(eq=False)
class _Waiting:
    x: np.ndarray
    came_s: float
    answered: asyncio.Future[Answered] = field(repr=False)

    @property
    def key(self) -> tuple[object, ...]:
        """Requests of equal keys can be one batch."""
        return (self.x.dtype.str, *self.x.shape[1:])


class Load(NamedTuple):
    """What there is to do.

    Attributes:
        rows: That wait.
        batches: That are being answered.
    """

    rows: int
    batches: int


class Batcher:
    """Answers requests in batches, for one event loop."""

    def __init__(
        self,
        answer: Answer,
        batching: Batching,
        told: Callable[[int], None],
        is_quick: Callable[[int], bool] = lambda rows: False,
    ) -> None:
        """Begin with nothing waiting.

        Args:
            answer: Answers rows, in threads.
            batching: How requests are put together.
            told: Is told the rows of each batch.
            is_quick: Whether so many rows are answered sooner than a thread is woken.
        """
        self._answer = answer
        self._is_quick = is_quick
        self._batching = batching
        self._told = told
        self._queue: deque[_Waiting] = deque()
        self._rows = 0
        self._busy = 0
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._pool = ThreadPoolExecutor(batching.workers, thread_name_prefix="answer")
        self._idle = asyncio.Event()
        self._idle.set()
        self._running: set[asyncio.Task[None]] = set()

    @property
    def load(self) -> Load:
        """What there is to do now."""
        return Load(self._rows, self._busy)

    @property
    def is_closing(self) -> bool:
        """Whether no more is taken."""
        return self._closing

    async def __call__(self, x: np.ndarray) -> Answered:
        """Answer the rows of one request.

        Args:
            x: [rows, ...], at least one row.

        Raises:
            OverloadError: Too much is waiting, it waited too long, or the server is about to end.
            EvaluationError: No deployment answers these rows.
        """
        if self._closing:
            raise OverloadError("the server is about to end; ask another one", closing=True)
        if self._rows and self._rows + len(x) > self._batching.queue_rows:
            raise OverloadError(f"{self._rows} rows wait already; ask again later")
        if not self._rows and not self._batching.wait_ms and self._is_quick(len(x)):
            self._told(len(x))
            return self._answer(x)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(x, loop.time(), loop.create_future())
        self._queue.append(waiting)
        self._rows += len(x)
        self._idle.clear()
        self._begin()
        try:
            async with asyncio.timeout(self._batching.timeout_s):
                return await waiting.answered
        except TimeoutError:
            raise OverloadError(f"not answered within {self._batching.timeout_s:g} s; ask again later") from None

    def _begin(self) -> None:
        """Begin what batches can be begun now."""
        now_s = asyncio.get_running_loop().time()
        while self._queue and self._busy < self._batching.workers:
            left_s = self._queue[0].came_s + self._batching.wait_ms / 1e3 - now_s
            if left_s > 0 and self._rows < self._batching.most_rows:
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(left_s, self._waited)
                return
            batch = self._taken()
            if batch:
                self._busy += 1
                task = asyncio.ensure_future(self._run(batch))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        if not self._queue and not self._busy:
            self._idle.set()

    def _waited(self) -> None:
        self._timer = None
        self._begin()

    def _taken(self) -> list[_Waiting]:
        """The oldest request that someone still waits for, and those after it that fit to it."""
        batch: list[_Waiting] = []
        left: deque[_Waiting] = deque()
        rows = 0
        while self._queue:
            waiting = self._queue.popleft()
            if waiting.answered.done():  # it timed out, or its client is gone
                self._rows -= len(waiting.x)
            elif batch and (waiting.key != batch[0].key or rows + len(waiting.x) > self._batching.most_rows):
                left.append(waiting)
                if rows >= self._batching.most_rows:
                    break
            else:
                batch.append(waiting)
                rows += len(waiting.x)
                self._rows -= len(waiting.x)
        left.extend(self._queue)
        self._queue = left
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        try:
            self._told(sum(len(waiting.x) for waiting in batch))
            await self._answered(batch)
        finally:
            self._busy -= 1
            self._begin()

    async def _answered(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        x = batch[0].x if len(batch) == 1 else np.concatenate([waiting.x for waiting in batch])
        try:
            found = await loop.run_in_executor(self._pool, self._answer, x)
        except EvaluationError as problem:
            if len(batch) == 1:
                _tell(batch[0], problem)
                return
            for waiting in batch:  # one request's rows must not be held against the others
                await self._answered([waiting])
            return
        except Exception as problem:
            for waiting in batch:
                _tell(waiting, problem)
            return
        first = 0
        for waiting in batch:
            last = first + len(waiting.x)
            if not waiting.answered.done():
                waiting.answered.set_result(Answered(found.y[first:last], found.version))
            first = last

    async def close(self, patience_s: float) -> None:
        """Take no more, and answer what waits."""
        self._closing = True
        deadline = time.monotonic() + patience_s
        while not self._idle.is_set() and time.monotonic() < deadline:
            try:
                await asyncio.wait_for(self._idle.wait(), deadline - time.monotonic())
            except TimeoutError:
                break
        self._pool.shutdown(wait=False, cancel_futures=True)


def _tell(waiting: _Waiting, problem: Exception) -> None:
    if not waiting.answered.done():
        waiting.answered.set_exception(problem)
