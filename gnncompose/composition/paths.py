"""Ways of edits: how one composition became another, through compositions that were visited."""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.edits import (
    AddModel,
    AddTransform,
    Edit,
    Place,
    RemoveModel,
    RemoveTransform,
    Reorder,
    SetParameter,
    Stop,
    SwapModel,
)
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, Expression, Node


@dataclass(frozen=True, eq=False)
class EditStep:
    """One edit on a way.

    Attributes:
        before: What was edited.
        edit: The edit.
        after: What it made.
    """

    before: Composition
    edit: Edit
    after: Composition


def shortest_path(
    space: Space, start: Composition, end: Composition, visited: Mapping[str, Composition], seconds: float
) -> tuple[EditStep, ...] | None:
    """The fewest edits from one composition to another that only pass through visited ones.

    Args:
        space: Says which edits are legal.
        start: Where the way begins.
        end: Where it ends.
        visited: What it may pass through, by id.
        seconds: How long to look.

    Returns:
        The edits in order, none where start and end are equal; None where no such way was found.
    """
    until = time.monotonic() + seconds
    reached: dict[str, EditStep | None] = {start.id: None}
    waiting = deque([start])
    while waiting and end.id not in reached:
        if time.monotonic() > until:
            return None
        here = waiting.popleft()
        for edit, after in space.successors(here):
            if after.id not in reached and (after.id in visited or after.id == end.id):
                reached[after.id] = EditStep(here, edit, after)
                waiting.append(after)
    return _traced(reached, end)


def direct_path(space: Space, start: Composition, end: Composition, seconds: float) -> tuple[EditStep, ...] | None:
    """A short way of edits from one composition to another, through whatever lies between.

    The way is sought best first, by how far operators and what they read still differ from those of the end.

    Args:
        space: Says which edits are legal.
        start: Where the way begins.
        end: Where it ends.
        seconds: How long to look.

    Returns:
        The edits in order, none where start and end are equal; None where no way was found in time.
    """
    until, wanted = time.monotonic() + seconds, _features(end)
    reached: dict[str, EditStep | None] = {start.id: None}
    waiting = [(0, 0, 0, start)]
    while waiting and end.id not in reached:
        if time.monotonic() > until:
            return None
        _, _, steps, here = heapq.heappop(waiting)
        for edit, after in space.successors(here):
            if after.id not in reached:
                reached[after.id] = EditStep(here, edit, after)
                missing, beyond = wanted - _features(after), _features(after) - wanted
                distance = missing.total() + beyond.total()
                heapq.heappush(waiting, (distance + steps, len(reached), steps + 1, after))
    return _traced(reached, end)


def _features(composition: Composition) -> Counter[str]:
    """The operators with their parameters, and which reads which on which port."""
    names = {node.id: f"{node.operator.name}{node.parameters}" for node in composition.nodes}
    read = (f"{names.get(source)} {names[target]} {port}" for source, target, port in composition.edges())
    return Counter([*names.values(), *read])


def _traced(reached: Mapping[str, EditStep | None], end: Composition) -> tuple[EditStep, ...] | None:
    """The edits that led to a composition; None where none did."""
    if end.id not in reached:
        return None
    steps: list[EditStep] = []
    step = reached[end.id]
    while step is not None:
        steps.append(step)
        step = reached[step.before.id]
    return tuple(reversed(steps))


def in_words(edit: Edit, composition: Composition, catalog: Catalog) -> str:
    """An edit of a composition as a person would say it, as in `add stretch between input and logistic`."""
    if isinstance(edit, Stop):
        return "stop"
    here, reader = _standing_at(composition, edit.place)
    everywhere = " wherever it is used" if edit.place.output is not None else ""
    match edit:
        case AddTransform():
            return f"add {edit.operator} {_between(here, reader)}"
        case AddModel():
            is_in_series = catalog.operator(edit.operator).inputs[0].type.accepts(here.type, {})
            return f"add {edit.operator} {_between(here, reader) if is_in_series else f'beside {_name(here)}'}"
        case RemoveModel() | RemoveTransform():
            return f"remove {_name(here)}{everywhere}"
        case SwapModel():
            return f"swap {_name(here)} for {edit.operator}{everywhere}"
        case Reorder():
            if edit.stages is not None:
                first, second = (_name(here.inputs[stage]) for stage in edit.stages)
                return f"exchange the stages {first} and {second} of {_name(here)}"
            return f"exchange {_name(here.inputs[0])} and {_name(here)}{everywhere}"
        case SetParameter():
            return f"set {edit.name} of {_name(here)} to {edit.value:g}"


def _standing_at(composition: Composition, place: Place) -> tuple[Expression, Node | None]:
    """What stands at a place, and what reads it there; None at the output, or where several do."""
    if place.output is not None:
        return next(found for _, found in composition.occurrences() if found.id == place.output), None
    here: Expression = composition.root
    reader: Node | None = None
    for port in place.path:
        assert isinstance(here, Node)
        reader, here = here, here.inputs[port]
    return here, reader


def _name(expression: Expression) -> str:
    return expression.operator.name if isinstance(expression, Node) else "input"


def _between(here: Expression, reader: Node | None) -> str:
    return f"after {_name(here)}" if reader is None else f"between {_name(here)} and {_name(reader)}"
