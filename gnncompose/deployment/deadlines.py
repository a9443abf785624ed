"""Deadlines of many tasks with one timer: a timer for each request would be a tenth of a small model's request."""

from __future__ import annotations

import asyncio
from asyncio import current_task
from types import TracebackType
from typing import Any

LOOKS = 8  # at the tasks within the time that one may take


class Deadline:
    """Ends what takes a task of one event loop too long: `with deadline: await …`.

    It is noticed when the next look is taken, an eighth of the time later at most. What is within may not enter it
    again.
    """

    def __init__(self, patience_s: float) -> None:
        """Begin with no task.

        Args:
            patience_s: How long a task may stay within.
        """
        self._patience_s = patience_s
        self._due_s: dict[asyncio.Task[Any], float] = {}  # the one that came first is due first
        self._late: set[asyncio.Task[Any]] = set()
        self._is_watching = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> None:
        """Let the time of the current task begin."""
        # To ask for the running loop takes a system call each time.
        loop = self._loop = self._loop or asyncio.get_running_loop()
        task = current_task(loop)
        assert task is not None, "a deadline is of a task"
        self._due_s[task] = loop.time() + self._patience_s
        if not self._is_watching:
            self._is_watching = True
            loop.call_later(self._patience_s / LOOKS, self._look, loop)

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it.

        Raises:
            TimeoutError: It took too long.
        """
        task = current_task(self._loop)
        assert task is not None, "a deadline is of a task"
        self._due_s.pop(task, None)
        if task in self._late:
            self._late.discard(task)
            # Who else has cancelled it meanwhile is to be heard.
            if not task.uncancel() and kind is asyncio.CancelledError:
                raise TimeoutError from problem

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for task, due_s in list(self._due_s.items()):
            if due_s > now_s:
                break
            del self._due_s[task]
            self._late.add(task)
            task.cancel()
        self._is_watching = bool(self._due_s)
        if self._is_watching:
            loop.call_later(self._patience_s / LOOKS, self._look, loop)
