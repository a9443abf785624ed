"""Labels that are told of rows, held to what a task's answers are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gnncompose.catalog.operator import PortType
from gnncompose.errors import GnncomposeError

SHOWN = 40  # characters of a label in an error


class LabelError(GnncomposeError):
    """A label that no row of the task can have."""


def check_labels(rows: Sequence[int], labels: Sequence[object], answer: PortType) -> None:
    """Hold labels to the kind that the task's rows have.

    Args:
        rows: Number of the row of each label.
        labels: What was told: classes by their index from 0, texts, or numbers.
        answer: Type of the task's answers.

    Raises:
        LabelError: One is of another kind; it names the first.
    """
    fits, kind = _kind_of(answer)
    for row, label in zip(rows, labels, strict=False):
        if not fits(label):
            shown = repr(label)
            shown = shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 1]}…"
            raise LabelError(f'"labels": row {row} has {shown}, but the labels of this task are {kind}; none was taken')


def _kind_of(answer: PortType) -> tuple[Callable[[object], bool], str]:
    """What tells whether a label fits, and what it is to be, in words."""
    if answer.domain == "text":
        return lambda label: isinstance(label, str), "texts"
    if answer.domain != "probs":
        return _is_number, "numbers"
    classes = answer.axes[-1]
    if isinstance(classes, int):
        return lambda label: type(label) is int and 0 <= label < classes, f"whole numbers from 0 to {classes - 1}"
    return lambda label: type(label) is int and label >= 0, "whole numbers from 0"


def _is_number(label: object) -> bool:
    return isinstance(label, int | float) and not isinstance(label, bool) and math.isfinite(label)
