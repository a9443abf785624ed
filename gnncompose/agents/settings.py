"""Parameters that are set to any value of their range, not to one of a grid.

The `SetParameter` edits of one parameter at one place count as one edit, whose value is drawn once it was chosen. What
is drawn is a share of the range. Where evaluations are recorded it is rounded to the nearest value of the grid that may
be chosen; elsewhere to three digits after the point, or as many more as the range is narrower than .1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from gnncompose.agents.visited import Visit
from gnncompose.catalog.operator import Parameter
from gnncompose.composition.edits import SetParameter
from gnncompose.composition.legal import places
from gnncompose.composition.space import Space
from gnncompose.composition.transitions import ClosedSearchSpace
from gnncompose.composition.tree import Composition, Node
from gnncompose.errors import CompositionError
from gnncompose.evaluation.rows import RowsSpace

DIGITS = 3


class Setting(NamedTuple):
    """One parameter at one place.

    Attributes:
        edit: The first of the edits that set it.
        parameter: Its range.
        values: The values of the grid, by the numbers of the edits that set them.
    """

    edit: SetParameter
    parameter: Parameter
    values: dict[int, float]


class Settings:
    """Sets parameters of the compositions of a space.

    Attributes:
        on_grid: Whether evaluations are recorded, so that only values of the grid can be chosen.
    """

    def __init__(self, space: Space) -> None:
        """Look at what kind of space it is."""
        self.on_grid = isinstance(space, ClosedSearchSpace | RowsSpace)
        self._space = space
        self._known: dict[int, dict[int, Setting]] = {}

    def of(self, visit: Visit) -> dict[int, Setting]:
        """What the edits of a visit set, by their numbers."""
        if visit.number not in self._known:
            self._known[visit.number] = self._listed(visit)
        return self._known[visit.number]

    def _listed(self, visit: Visit) -> dict[int, Setting]:
        standing = dict(places(visit.composition))
        found: dict[object, Setting] = {}
        by_number: dict[int, Setting] = {}
        for number, (edit, _) in enumerate(self._space.successors(visit.composition)):
            if isinstance(edit, SetParameter):
                node = standing[edit.place]
                assert isinstance(node, Node)
                parameter = node.operator.parameters[edit.name.partition(".")[0]]
                setting = found.setdefault((edit.place, edit.name), Setting(edit, parameter, {}))
                setting.values[number] = edit.value
                by_number[number] = setting
        return by_number

    def merged(self, visit: Visit, allowed: Sequence[int]) -> list[int]:
        """Numbers of the edits to choose among: of those that set the same parameter, one.

        Args:
            visit: Whose edits.
            allowed: Numbers of the edits that are allowed. Off the grid a parameter has always another value.
        """
        settings, kept, set_by = self.of(visit), list[int](), set[SetParameter]()
        for number in allowed if self.on_grid else sorted({*allowed, *settings}):
            if number not in settings:
                kept.append(number)
            elif settings[number].edit not in set_by:
                kept.append(number)
                set_by.add(settings[number].edit)
        return kept

    def composition(self, visit: Visit, number: int, share: float, allowed: Sequence[int]) -> Composition:
        """Where it leads to set a parameter.

        Args:
            visit: Where from.
            number: Of one of the edits that set it.
            share: Of its range, 0 to 1, that the value lies above the low end.
            allowed: Numbers of the edits that are allowed.

        Returns:
            The composition with the rounded value; that of the visit where this is no other, or makes no legal one.
        """
        edit, parameter, values = self.of(visit)[number]
        value = parameter.low + share * (parameter.high - parameter.low)
        if self.on_grid:
            return visit.successors[min(values.keys() & set(allowed), key=lambda n: (abs(values[n] - value), n))]
        try:
            return self._space.apply(visit.composition, SetParameter(edit.place, edit.name, rounded(value, parameter)))
        except CompositionError:
            return visit.composition


def rounded(value: float, parameter: Parameter) -> float:
    """A value to three digits after the point, or as many more as the range is narrower than .1; within the range."""
    width = parameter.high - parameter.low
    narrower = max(-1 - math.floor(math.log10(width)), 0) if width > 0 else 0
    return min(max(round(value, DIGITS + narrower), parameter.low), parameter.high)
