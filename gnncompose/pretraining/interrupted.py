"""The state of a training on disk, so that one that was interrupted goes on to the same numbers."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
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

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write a state, if the last one is old enough.

        Args:
            state: Gives it: tensors and plain data.
        """
        if time.monotonic() - self._saved_s < EVERY_S:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        torch.save({"state": state(), "notes": self.notes, "worked_s": self.wall_s}, content)
        write_atomically(self._path, content.getvalue())
        self._saved_s = time.monotonic()

    def remove(self) -> None:
        """The training is over."""
        self._path.unlink(missing_ok=True)
