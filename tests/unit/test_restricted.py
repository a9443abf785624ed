"""A closed space without some operators is the space of the catalog without them."""

import pytest
from synthetic import CASCADE, MEAN, VOTE, model, space_of, transform

from gnncompose.adaptation.restricted import restricted
from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.edits import Limits
from gnncompose.composition.enumeration import enumerate_space
from gnncompose.composition.space import Space
from gnncompose.composition.transitions import ClosedSearchSpace
from gnncompose.composition.tree import Composition
from gnncompose.errors import CompositionError

A, B = transform("a"), transform("b")
M1, M2, M3, M4 = (model(f"m{number}") for number in range(1, 5))
ROUTER = model("router", kind="router", outputs=[{"name": "which", "type": "probs float32[N,2]"}])
OPERATORS = [A, B, M1, M2, M3, M4, MEAN, VOTE, CASCADE, ROUTER]
LIMITS = Limits(5, 3, 2, 2, 1)


def closed(space: Space) -> ClosedSearchSpace:
    rows = enumerate_space(space)
    number = {rows.composition(row).id: row for row in range(len(rows))}
    types = space.input_type, space.output_type
    return ClosedSearchSpace(space.catalog, space.limits, *types, closed=rows, row_of=lambda c: number[c.id])


def compositions(space: ClosedSearchSpace) -> list[Composition]:
    return [space.composition(row) for row in range(len(space.closed))]


WHOLE = closed(space_of(OPERATORS, LIMITS))


def left(*names: str) -> tuple[ClosedSearchSpace, Space]:
    """The restricted space, and the same written down anew."""
    operators = [operator for operator in OPERATORS if operator.name not in names]
    anew = space_of(operators, LIMITS)
    return restricted(WHOLE, anew.catalog), anew


@pytest.mark.parametrize("names", [("m2",), ("a",), ("cascade",), ("mean",), ("router",), ("m1", "b", "vote")], ids=str)
def test_restricted__holds_what_the_smaller_catalog_allows(names: tuple[str, ...]) -> None:
    found, anew = left(*names)
    assert {c.id for c in compositions(found)} == {c.id for c in compositions(closed(anew))}
    assert 0 < len(found.closed) < len(WHOLE.closed)
    assert found.start.id == anew.start.id


@pytest.mark.parametrize("names", [("m2",), ("a",), ("cascade",), ("mean",)], ids=str)
def test_restricted__edits_are_those_of_the_smaller_catalog(names: tuple[str, ...]) -> None:
    found, anew = left(*names)
    for composition in compositions(found)[::7]:
        own = {(str(edit), c.id) for edit, c in found.successors(composition)}
        assert own == {(str(edit), c.id) for edit, c in anew.successors(composition)}


def test_restricted__refuses_what_is_not_there_any_more() -> None:
    found, _ = left("m2")
    gone = next(c for c in compositions(WHOLE) if any(node.operator.name == "m2" for node in c.nodes))
    with pytest.raises(CompositionError, match="not there: m2"):
        found.successors(gone)


def test_restricted__says_where_nothing_is_left() -> None:
    with pytest.raises(CompositionError, match="there is no composition without"):
        restricted(WHOLE, Catalog("none", (A, B, MEAN)))
