"""What numbers in settings may be; told before a run, which they would end, spoil, or never let end.

Each function takes what the settings belong to, such as `agent` (or nothing), and the settings by name, and raises
`GnncomposeError` with the name, the value and what it may be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gnncompose.errors import GnncomposeError


def counts(where: str, least: int, **settings: int | None) -> None:
    """Whole numbers from `least` up; None stands for no limit."""
    for name, value in settings.items():
        if value is not None and not (isinstance(value, int) and _is_within(value, least, math.inf)):
            raise GnncomposeError(f"{_full(where, name)}={value}: is no whole number from {least} up; give one")


def divisible(where: str, by: int, by_name: str, **settings: int) -> None:
    """Multiples of another setting."""
    for name, value in settings.items():
        if value % by:
            full, other = _full(where, name), _full(where, by_name)
            raise GnncomposeError(f"{full}={value}: is no multiple of {other}={by}; give one, or another {other}")


def at_least(where: str, least: float, **settings: float) -> None:
    """Numbers from `least` up."""
    for name, value in settings.items():
        if not _is_within(value, least, math.inf):
            raise GnncomposeError(f"{_full(where, name)}={value}: is no number from {least:g} up; give one")


def above_zero(where: str, **settings: float | None) -> None:
    """Numbers above 0; None stands for a number that is found out."""
    for name, value in settings.items():
        if value is not None and (not _is_within(value, 0.0, math.inf) or value == 0):
            raise GnncomposeError(f"{_full(where, name)}={value}: is no number above 0; give one")


def shares(where: str, **settings: float) -> None:
    """Numbers from 0 to 1."""
    for name, value in settings.items():
        if not _is_within(value, 0.0, 1.0):
            raise GnncomposeError(f"{_full(where, name)}={value}: is no number from 0 to 1; give one")


def one_of(where: str, choices: Sequence[str], **settings: str) -> None:
    """One of some words."""
    for name, value in settings.items():
        if value not in choices:
            raise GnncomposeError(f"{_full(where, name)}={value}: is none of {', '.join(choices)}; give one")


def _is_within(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _full(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
