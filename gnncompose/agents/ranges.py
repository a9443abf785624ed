"""What the numbers of an agent may be; told before a search, since in its midst they would end it, or never let it end.

Each raises `GnncomposeError` with the name, the value and what it may be.
"""

from __future__ import annotations

import math

from gnncompose.errors import GnncomposeError


def counts(least: int, **settings: int | None) -> None:
    """Whole numbers from `least` up; None stands for no limit."""
    for name, value in settings.items():
        if value is not None and not (isinstance(value, int) and _is_within(value, least, math.inf)):
            raise GnncomposeError(f"agent.{name}={value}: is no whole number from {least} up; give one")


def at_least(least: float, **settings: float) -> None:
    """Numbers from `least` up."""
    for name, value in settings.items():
        if not _is_within(value, least, math.inf):
            raise GnncomposeError(f"agent.{name}={value}: is no number from {least:g} up; give one")


def above_zero(**settings: float) -> None:
    """Numbers above 0."""
    for name, value in settings.items():
        if not _is_within(value, 0.0, math.inf) or value == 0:
            raise GnncomposeError(f"agent.{name}={value}: is no number above 0; give one")


def shares(**settings: float) -> None:
    """Numbers from 0 to 1."""
    for name, value in settings.items():
        if not _is_within(value, 0.0, 1.0):
            raise GnncomposeError(f"agent.{name}={value}: is no number from 0 to 1; give one")


def one_of(*choices: str, **settings: str) -> None:
    """One of some words."""
    for name, value in settings.items():
        if value not in choices:
            raise GnncomposeError(f"agent.{name}={value}: is none of {', '.join(choices)}; give one")


def _is_within(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
