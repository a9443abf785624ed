"""The legal edits of a closed space: as arrays, to step thousands of compositions at once, and as a space to search."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.edits import Edit
from gnncompose.composition.enumeration import ClosedSpace
from gnncompose.composition.listing import Listing
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition


@dataclass(frozen=True, eq=False)
class Transitions:
    """Legal edits but `Stop` of every row of a closed space; those of row r are `offsets[r]` to `offsets[r + 1]`.

    Attributes:
        listing: What lists them and tells them as objects.
        offsets: int64[rows + 1].
        target: int32[edits]: the row that an edit leads to.
        kind: int8[edits]: number in `KINDS`.
        port: int8[edits]: port of the combiner below which the place lies; 0 in a chain, `WHOLE` for the output of a
            combiner, `ALL_USES` for all uses of the source.
        source: int16[edits]: the expression at the place; −1 for a combiner.
        operator: int16[edits]: number, in the catalog, of the operator that is brought in; −1 for none.
        argument: int16[edits]: number in `settings` or `stages` of what is set or reordered; −1 for neither.
    """

    listing: Listing
    offsets: np.ndarray
    target: np.ndarray
    kind: np.ndarray
    port: np.ndarray
    source: np.ndarray
    operator: np.ndarray
    argument: np.ndarray

    @classmethod
    def of(cls, space: ClosedSpace, catalog: Catalog) -> Transitions:
        """List the edits of all rows, in the order of `legal.successors`; about 2 µs each.

        Args:
            space: A whole closed space.
            catalog: That it was enumerated from.

        Raises:
            CompositionError: The space has too many expressions for its rows to be numbered.
        """
        listing = Listing(space, catalog)
        offsets, found = listing.edits(np.arange(len(space)))
        target, kind, port, source, operator, argument = found.T
        return cls(
            listing=listing,
            offsets=offsets,
            target=target.copy(),
            kind=kind.astype(np.int8),
            port=port.astype(np.int8),
            source=source.astype(np.int16),
            operator=operator.astype(np.int16),
            argument=argument.astype(np.int16),
        )

    @property
    def space(self) -> ClosedSpace:
        """Whose edits they are."""
        return self.listing.space

    def of_row(self, row: int) -> range:
        """Numbers of the edits of a row."""
        return range(int(self.offsets[row]), int(self.offsets[row + 1]))

    def edit(self, row: int, number: int) -> Edit:
        """An edit of a row as an object."""
        arrays = (self.kind, self.port, self.source, self.operator, self.argument)
        return self.listing.edit(row, *(int(array[number]) for array in arrays))


@dataclass(eq=False)
class ClosedSearchSpace(Space):
    """A space whose compositions are the rows of a closed space, which makes their edits quick to list.

    Equal compositions are one object here.

    Attributes:
        closed: The rows.
        row_of: The row of a composition; raises where there is none.
    """

    closed: ClosedSpace = field(kw_only=True)
    row_of: Callable[[Composition], int] = field(kw_only=True)
    _made: dict[int, Composition] = field(default_factory=dict[int, Composition], repr=False)
    _rows: dict[str, int] = field(default_factory=dict[str, int], repr=False)
    _edits: dict[int, np.ndarray] = field(default_factory=dict[int, np.ndarray], repr=False)

    @cached_property
    def _listing(self) -> Listing:
        return Listing(self.closed, self.catalog)

    def composition(self, row: int) -> Composition:
        """The composition of a row."""
        found = self._made.get(row)
        if found is None:
            found = self._made[row] = self.closed.composition(row)
        return found

    def rows_of(self, compositions: Iterable[Composition]) -> np.ndarray:
        """int64[compositions]: the row of each; those that were asked for before are looked up by their id."""
        found: list[int] = []
        for composition in compositions:
            row = self._rows.get(composition.id)
            if row is None:
                row = self._rows[composition.id] = self.row_of(composition)
            found.append(row)
        return np.array(found, dtype=np.int64)

    def walk(self, composition: Composition, edits: int, generator: np.random.Generator) -> Composition:
        """Where so many legal edits lead from a composition, each drawn uniformly."""
        row = self.row_of(composition)
        for _ in range(edits):
            found = self._edits_of(row)
            if len(found):
                row = int(found[int(generator.integers(len(found))), 0])
        return self.composition(row)

    def _reachable(self, composition: Composition) -> list[tuple[Edit, Composition]]:
        row = self.row_of(composition)
        listed = self._edits_of(row).tolist()
        return [(self._listing.edit(row, *described), self.composition(target)) for target, *described in listed]

    def _edits_of(self, row: int) -> np.ndarray:
        """int32[edits, 6] as `Listing.edits` gives them."""
        found = self._edits.get(row)
        if found is None:
            found = self._edits[row] = self._listing.edits(np.array([row]))[1]
        return found
