"""The state of a training on disk, so that one that was interrupted goes on to the same numbers."""

from __future__ import annotations

import io
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from gnncompose.errors import GnncomposeError
from gnncompose.tracking.files import write_atomically

NAME = ".training.pt"
EVERY_S = 20.0  # between two writings


class Checkpoint:
    """What a training needs to go on, written whole now and then; gone once the training is over.

    Attributes:
        state: What an interrupted training of the same folder wrote last; None where there was none.
        notes: What the training wants kept beside it, as lists of plain data by name; restored with the state.
        worked_s: How long the training went on before it was interrupted, to the last state.
    """

    def __init__(self, folder: Path) -> None:
        """Read what there is.

        Args:
            folder: Of the run.

        Raises:
            GnncomposeError: The file is damaged.
        """
        self._path = folder / NAME
        self._saved_s = self._began_s = time.monotonic()
        self.state: dict[str, Any] | None = None
        self.notes: dict[str, list[Any]] = {}
        self.worked_s = 0.0
        self._is_interrupted = False
        if self._path.exists():
            try:
                found = torch.load(self._path, map_location="cpu", weights_only=True)
                self.state, self.notes, self.worked_s = (found[name] for name in ("state", "notes", "worked_s"))
            except Exception as problem:
                raise GnncomposeError(f"{self._path}: cannot be read ({problem}); remove it and train anew") from None

    @property
    def wall_s(self) -> float:
        """How long the training has taken, what came before an interruption included."""
        return self.worked_s + time.monotonic() - self._began_s

    @contextmanager
    def heeding(self) -> Iterator[None]:
        """Let Ctrl-C wait until a state is offered, so that nothing is lost; a second one ends the training at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # no thread but the main one may say what becomes of signals
            return

        def take(number: int, frame: FrameType | None) -> None:
            if self._is_interrupted:
                raise KeyboardInterrupt
            self._is_interrupted = True

        former = signal.signal(signal.SIGINT, take)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, former)

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write a state, if the last one is old enough or Ctrl-C came.

        Args:
            state: Gives it: tensors and plain data.

        Raises:
            KeyboardInterrupt: Ctrl-C came, and the state is written.
        """
        if time.monotonic() - self._saved_s < EVERY_S and not self._is_interrupted:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        torch.save({"state": state(), "notes": self.notes, "worked_s": self.wall_s}, content)
        write_atomically(self._path, content.getvalue())
        self._saved_s = time.monotonic()
        if self._is_interrupted:
            raise KeyboardInterrupt

    def remove(self) -> None:
        """The training is over."""
        self._path.unlink(missing_ok=True)
