"""Global random states of its own for a library that draws from the global ones, or seeds them."""

from __future__ import annotations

import random
import sys
from types import TracebackType
from typing import Any

import numpy as np


class OwnGlobals:
    """The global random states of Python, NumPy and, where it is imported, torch; in place only inside `with`.

    Outside, the states are as if the library had never run; inside, they go on from where they were.
    """

    def __init__(self, seed: int) -> None:
        """Seed the states.

        Args:
            seed: Of all of them.
        """
        outside = _states()
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - seeded for the library, and put back at once
        if "torch" in sys.modules:
            sys.modules["torch"].random.default_generator.manual_seed(seed)
        self._other = _states()
        _put(outside)

    def __enter__(self) -> None:
        self._swap()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._swap()

    def _swap(self) -> None:
        here = _states()
        _put(self._other)
        self._other = here


def _states() -> dict[str, Any]:
    states: dict[str, Any] = {"random": random.getstate(), "numpy": np.random.get_state()}  # noqa: NPY002 - to restore
    if "torch" in sys.modules:
        states["torch"] = sys.modules["torch"].random.get_rng_state()
    return states


def _put(states: dict[str, Any]) -> None:
    random.setstate(states["random"])
    np.random.set_state(states["numpy"])  # noqa: NPY002 - what was there is put back
    if "torch" in states:
        sys.modules["torch"].random.set_rng_state(states["torch"])
