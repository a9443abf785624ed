"""Legal edits of a closed space as a policy sees them, gathered by place: first comes a place, then what to do there.

A place is where an edit acts together with the kind of the edit. The numbers are those of `encoding.encode`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from gnncompose.closed_graphs import ClosedGraphs
from gnncompose.composition.edits import KINDS, Place, Reorder, SetParameter
from gnncompose.composition.listing_kernel import ALL_USES, WHOLE
from gnncompose.composition.transitions import Transitions
from gnncompose.composition.tree import Node
from gnncompose.encoding import PLACE_VALUES, VALUE_DIM, WIDE, parameter_settings

ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class ClosedEdits:
    """Edits but `Stop` of every row, gathered by place; those of place p are `edit_begin[p]` to `edit_begin[p + 1]`.

    Attributes:
        place_begin: int64[rows + 1]: where the places of each row begin.
        kind: int16[places]: number in `KINDS`.
        source: int16[places]: node, in the row's graph, that the place comes from.
        consumer: int16[places]: node that it leads to.
        place_values: float32[places, PLACE_VALUES].
        edit_begin: int64[places + 1].
        number: int16[edits]: number of the edit among those of its row, as `Transitions` counts them.
        operator: int16[edits]: row of the catalog's features.
        setting: int32[edits]: row of `settings`.
        target: int32[edits]: row of the space that the edit leads to.
        settings: float32[settings, VALUE_DIM - PLACE_VALUES].
    """

    place_begin: Int[np.ndarray, " begin"]
    kind: Int[np.ndarray, " place"]
    source: Int[np.ndarray, " place"]
    consumer: Int[np.ndarray, " place"]
    place_values: Float[np.ndarray, "place 2"]
    edit_begin: Int[np.ndarray, " begin"]
    number: Int[np.ndarray, " edit"]
    operator: Int[np.ndarray, " edit"]
    setting: Int[np.ndarray, " edit"]
    target: Int[np.ndarray, " edit"]
    settings: Float[np.ndarray, "setting value"]

    @classmethod
    def of(cls, transitions: Transitions, graphs: ClosedGraphs) -> ClosedEdits:
        """Gather the edits of a space.

        Args:
            transitions: Its edits.
            graphs: Encode its rows.
        """
        rows = np.repeat(np.arange(len(transitions.space)), np.diff(transitions.offsets))
        order, begin = _gathered(rows, transitions.kind, transitions.port, transitions.source)
        heads = order[begin]
        source, consumer, values = _placed(transitions, graphs, rows[heads], heads)
        # Branches that share nodes have places that nobody can tell apart, so these are one.
        parts = transitions.kind[heads], source, consumer, np.rint(values * WIDE).astype(np.int64) @ [1, 8]
        again, first = _gathered(rows[heads], *parts)
        merged = np.empty(len(heads), dtype=np.int64)
        merged[again] = np.repeat(np.arange(len(first)), np.diff([*first, len(again)]))
        place = np.empty(len(rows), dtype=np.int64)
        place[order] = np.repeat(merged, np.diff([*begin, len(order)]))
        order, kept = np.argsort(place, kind="stable"), again[first]
        setting, settings = _settings(transitions, rows)
        none = len(graphs.catalog.operators) - 1
        operator = np.where(transitions.operator >= 0, transitions.operator, none)
        return cls(
            place_begin=np.searchsorted(rows[heads[kept]], np.arange(len(transitions.space) + 1)),
            kind=transitions.kind[heads[kept]].astype(np.int16),
            source=source[kept],
            consumer=consumer[kept],
            place_values=values[kept],
            edit_begin=np.searchsorted(place[order], np.arange(len(kept) + 1)),
            number=(order - transitions.offsets[rows[order]]).astype(np.int16),
            operator=operator[order].astype(np.int16),
            setting=setting[order],
            target=transitions.target[order],
            settings=settings,
        )


def _gathered(rows: np.ndarray, *parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order in which what is alike in row and parts stands together, rows ascending; and where each run begins."""
    key = rows
    for part in parts:
        least = int(part.min(initial=0))
        key = key * (int(part.max(initial=0)) - least + 1) + (part - least)
    order = np.argsort(key, kind="stable")
    return order, np.flatnonzero(np.diff(key[order], prepend=-1))


def _placed(
    transitions: Transitions, graphs: ClosedGraphs, rows: np.ndarray, edits: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source node, consumer node and values of the places of some edits, whose rows ascend."""
    source, consumer = np.empty(len(rows), dtype=np.int16), np.empty(len(rows), dtype=np.int16)
    values = np.zeros((len(rows), PLACE_VALUES), dtype=np.float32)
    for first in range(0, len(transitions.space), ROWS_AT_ONCE):
        some = slice(*np.searchsorted(rows, [first, first + ROWS_AT_ONCE]))
        found = _placed_in(transitions, graphs, first, rows[some] - first, edits[some])
        source[some], consumer[some], values[some] = found
    return source, consumer, values


def _placed_in(
    transitions: Transitions, graphs: ClosedGraphs, first: int, rows: np.ndarray, edits: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `_placed`, for rows counted from a first one."""
    space = transitions.space
    those = np.arange(first, min(first + ROWS_AT_ONCE, len(space)))
    laid, levels = graphs.layout(those), graphs.levels
    port, expression = transitions.port[edits].astype(np.int64), transitions.source[edits].astype(np.int64)
    whole, everywhere = port == WHOLE, port == ALL_USES
    chain = np.where(port >= 0, port + (space.route[those[rows]] == 0), 1)
    top = laid.chains[rows, chain]
    depth, last = graphs.depth[np.maximum(expression, 0)], graphs.depth[top]
    is_top = depth == last
    # A chain stands at the end of its columns, so what is `depth` operators above the input has a column of its own.
    column = chain * levels + levels - last + depth
    above = laid.node[rows, np.minimum(column, laid.node.shape[1] - 1)]
    joins = graphs.joins[space.way[those[rows]]]
    own = laid.node[rows, np.maximum(column - 1, 0)]
    anywhere = _node_of(laid.entries, laid.node, rows, expression)
    source = np.where(whole, laid.combiner[rows], np.where(everywhere, anywhere, np.where(depth > 0, own, 0)))
    inside = np.where(is_top, np.where(joins, laid.combiner[rows], laid.output[rows]), above)
    consumer = np.where(whole | everywhere, laid.output[rows], inside)
    at_port = np.where((port >= 0) & is_top & joins, port, 0)
    return source, consumer, np.stack([everywhere, at_port / WIDE], axis=1)


def _node_of(entries: np.ndarray, node: np.ndarray, rows: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """Node of an expression in each of some rows; 0 for the input."""
    stands = entries[rows] == expression[:, None]
    return np.where(expression > 0, node[rows, stands.argmax(axis=1)], 0)


def _settings(transitions: Transitions, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of what each edit sets or reorders, and the values of these numbers; number 0 is nothing."""
    space, width = transitions.space, VALUE_DIM - PLACE_VALUES
    number, known = np.zeros(len(rows), dtype=np.int32), [np.zeros(width, dtype=np.float32)]
    sets = np.flatnonzero(transitions.kind == KINDS.index(SetParameter))
    # Whose parameter it is: an expression, or a way of joining.
    at_root = transitions.source[sets] < 0
    owner = np.where(at_root, -1 - space.way[rows[sets]], transitions.source[sets])
    pairs, where = np.unique(np.stack([owner, transitions.argument[sets]]), axis=1, return_inverse=True)
    one_of = np.zeros(pairs.shape[1], dtype=np.int64)
    one_of[where.ravel()] = rows[sets]
    number[sets] = len(known) + where.ravel()
    for (whose, argument), row in zip(pairs.T.tolist(), one_of.tolist(), strict=True):
        node = space.composition(row).root if whose < 0 else space.expressions.all[whose]
        assert isinstance(node, Node)
        name, value = transitions.listing.settings[argument]
        known.append(np.array(parameter_settings(SetParameter(Place(), name, value), node), dtype=np.float32))
    moves = np.flatnonzero((transitions.kind == KINDS.index(Reorder)) & (transitions.argument >= 0))
    number[moves] = len(known) + transitions.argument[moves]
    for stages in transitions.listing.stages:
        known.append(np.array([0.0] * (width - 2) + [stage / WIDE for stage in stages], dtype=np.float32))
    return number, np.stack(known)
