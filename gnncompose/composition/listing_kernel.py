"""The compiled part of listing the legal edits of a closed space; what it reads is made by `listing`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gnncompose.composition.edits import KINDS, AddModel, RemoveModel, Reorder, SetParameter, SwapModel

GONE = -2  # the whole branch is taken away
WHOLE, ALL_USES = -1, -2  # in place of a port
ADD_MODEL, REMOVE_MODEL, SWAP_MODEL = (KINDS.index(kind) for kind in (AddModel, RemoveModel, SwapModel))
REORDER, SET_PARAMETER = (KINDS.index(kind) for kind in (Reorder, SetParameter))
Array = Any  # of int64 or bool; what an element is, numba knows and a checker does not


class Chains(NamedTuple):
    """What is known of expressions; `e` stands for any, `c` for a chain or what a router reads.

    Attributes:
        depth: int64[e].
        parent: int64[e].
        rank: int64[e]: place in the order of ids.
        begin: int64[c, levels + 1]: where in `changes` those begin that a place so many levels below the top has.
        changes: int64[changes, 4]: number of the kind, of the operator brought in or −1, of the setting or −1, and of
            what comes out, or `GONE`.
        models: int64[models]: their numbers in the catalog.
        new_branch: int64[e, models]: the chain that adds a model beside what reads through `e`; −1 for none.
    """

    depth: Array
    parent: Array
    rank: Array
    begin: Array
    changes: Array
    models: Array
    new_branch: Array


class Bases(NamedTuple):
    """What is known of combiners. A base is a combiner with all parameters but weights; number 0 is a chain alone.

    Attributes:
        operator: int64[bases]: number in the catalog; −1 for a chain.
        is_sorted: bool[bases].
        is_cascade: bool[bases].
        router: int64[bases]: its number in `combiners` where it is a router, else −1.
        weight: int64[bases]: number of the default weight; 0 where it has no weights.
        way: int64[bases, radix ** ports]: a way of the space by base and numbers of weights; −1 for none.
        settings: int64[settings, 3]: a base, the base that a setting makes of it, −1 where it sets weights, and the
            number of the setting.
        weights: int64[weight settings, 4]: a base, a port, the number of a weight, and of the setting.
        combiners: int64[combiners]: base of each with its default parameters; −1 where there is none such.
        joined: Base that joins two chains; −1 for none.
        route: int64[combiners, e]: what a router decides by where it reads `e`; 0 for nothing.
        data: int64[combiners, e]: what a router reads that is put over what reads through `e`; −1 for nothing.
        radix: 1 + the most values of a weight.
    """

    operator: Array
    is_sorted: Array
    is_cascade: Array
    router: Array
    weight: Array
    way: Array
    settings: Array
    weights: Array
    combiners: Array
    joined: int
    route: Array
    data: Array
    radix: int


class Rows(NamedTuple):
    """Rows as the listing reads them, and how to find one.

    Attributes:
        base: int64[rows].
        weights: int64[rows, ports]: numbers of the weights, counted from 1; 0 for none.
        route: int64[rows].
        branches: int64[rows, ports].
        codes: int64[rows]: sorted.
        order: int64[rows]: the row of each code.
        size: Number of expressions.
    """

    base: Array
    weights: Array
    route: Array
    branches: Array
    codes: Array
    order: Array
    size: int


@njit(cache=True)
def _found(base: int, weights: Array, route: int, branches: Array, rows: Rows, chains: Chains, bases: Bases) -> int:
    """The row of a combiner over branches, −1 for none; brings sorted branches and their weights into order."""
    ports = len(branches)
    if bases.is_sorted[base]:
        for last in range(1, ports):
            here = last
            while here and branches[here] and chains.rank[branches[here]] < chains.rank[branches[here - 1]]:
                branches[here], branches[here - 1] = branches[here - 1], branches[here]
                weights[here], weights[here - 1] = weights[here - 1], weights[here]
                here -= 1
    number, factor = 0, 1
    for port in range(ports):
        number += weights[port] * factor
        factor *= bases.radix
    way = bases.way[base, number]
    if way < 0:
        return -1
    code = way * rows.size + route
    for port in range(ports):
        code = code * rows.size + branches[port]
    place: int = np.searchsorted(rows.codes, code)  # pyright: ignore[reportUnknownVariableType, reportAssignmentType]
    return rows.order[place] if place < len(rows.codes) and rows.codes[place] == code else -1


@njit(cache=True)
def _common(first: int, second: int, chains: Chains) -> int:
    """The nearest expression that both read through, themselves included."""
    while first != second:
        if chains.depth[first] >= chains.depth[second]:
            first = chains.parent[first]
        else:
            second = chains.parent[second]
    return first


@njit(cache=True)
def _reads(top: int, expression: int, chains: Chains) -> int:
    """How many levels an expression lies below a top that reads through it; −1 where it does not."""
    level = chains.depth[top] - chains.depth[expression]
    here = top
    for _ in range(level):
        here = chains.parent[here]
    return level if level >= 0 and here == expression else -1


@njit(cache=True)
def _note(
    cursor: Array, found: Array, row: int, target: int, kind: int, port: int, source: int, operator: int, argument: int
) -> None:
    if target < 0 or target == row:
        return
    if len(found):
        at = found[cursor[0]]
        at[0], at[1], at[2], at[3], at[4], at[5] = target, kind, port, source, operator, argument
    cursor[0] += 1


@njit(cache=True)
def list_edits(cursors: Array, found: Array, some: Array, rows: Rows, chains: Chains, bases: Bases) -> None:
    """Write the edits of each row from its cursor on; with an empty `found` only count them."""
    for number, row in enumerate(some):
        cursor = cursors[number : number + 1]
        if rows.base[row] == 0:
            _list_chain(cursor, found, row, rows, chains, bases)
        else:
            _list_root(cursor, found, row, rows, chains, bases)
            _list_branches(cursor, found, row, rows, chains, bases)


@njit(cache=True)
def _list_chain(cursor: Array, found: Array, row: int, rows: Rows, chains: Chains, bases: Bases) -> None:
    top, ports = rows.branches[row, 0], rows.branches.shape[1]
    branches, weights = np.zeros(ports, np.int64), np.zeros(ports, np.int64)
    if bases.joined >= 0 and ports > 1:
        for column in range(len(chains.models)):
            other = chains.new_branch[chains.parent[top], column]
            if other >= 0 and other != top:
                branches[:], weights[:] = 0, 0
                branches[0], branches[1] = top, other
                weights[:2] = bases.weight[bases.joined]
                target = _found(bases.joined, weights, 0, branches, rows, chains, bases)
                _note(cursor, found, row, target, ADD_MODEL, 0, top, chains.models[column], -1)
    weights[:] = 0
    here = top
    for level in range(chains.depth[top] + 1):
        for number in range(chains.begin[top, level], chains.begin[top, level + 1]):
            kind, operator, argument, result = chains.changes[number]
            if result >= 0:
                branches[:] = 0
                branches[0] = result
                target = _found(0, weights, 0, branches, rows, chains, bases)
                _note(cursor, found, row, target, kind, 0, here, operator, argument)
        here = chains.parent[here]


@njit(cache=True)
def _list_root(cursor: Array, found: Array, row: int, rows: Rows, chains: Chains, bases: Bases) -> None:  # noqa: C901
    """Edits of the combiner itself."""
    base, route, ports = rows.base[row], rows.route[row], rows.branches.shape[1]
    count = np.sum(rows.branches[row] > 0)
    shared = chains.parent[route] if route else rows.branches[row, 0]
    for port in range(count):
        shared = _common(shared, rows.branches[row, port], chains)
    if bases.router[base] < 0 and count < ports:
        for column in range(len(chains.models)):
            other = chains.new_branch[shared, column]
            if other >= 0:
                branches, weights = rows.branches[row].copy(), rows.weights[row].copy()
                branches[count], weights[count] = other, bases.weight[base]
                target = _found(base, weights, 0, branches, rows, chains, bases)
                _note(cursor, found, row, target, ADD_MODEL, WHOLE, -1, chains.models[column], -1)
    for combiner, other in enumerate(bases.combiners):
        if other >= 0 and bases.operator[other] != bases.operator[base]:
            branches, weights = rows.branches[row].copy(), np.zeros(ports, np.int64)
            weights[:count] = bases.weight[other]
            deciding = 0
            if bases.router[other] >= 0:
                data = bases.data[combiner, shared]
                deciding = bases.route[combiner, data] if data >= 0 else 0
                if not deciding:
                    continue
            target = _found(other, weights, deciding, branches, rows, chains, bases)
            _note(cursor, found, row, target, SWAP_MODEL, WHOLE, -1, bases.operator[other], -1)
    if bases.is_cascade[base]:
        pair = -1
        for first in range(ports):
            for second in range(first + 1, ports):
                pair += 1
                if second < count:
                    branches = rows.branches[row].copy()
                    branches[first], branches[second] = branches[second], branches[first]
                    target = _found(base, rows.weights[row].copy(), 0, branches, rows, chains, bases)
                    _note(cursor, found, row, target, REORDER, WHOLE, -1, -1, pair)
    for of, becomes, argument in bases.settings:
        if of != base:
            continue
        if becomes >= 0:
            branches, weights = rows.branches[row].copy(), rows.weights[row].copy()
            target = _found(becomes, weights, route, branches, rows, chains, bases)
            _note(cursor, found, row, target, SET_PARAMETER, WHOLE, -1, -1, argument)
            continue
        for owner, port, weight, setting in bases.weights:
            if owner == base and port < count and weight != rows.weights[row, port]:
                branches, weights = rows.branches[row].copy(), rows.weights[row].copy()
                weights[port] = weight
                target = _found(base, weights, route, branches, rows, chains, bases)
                _note(cursor, found, row, target, SET_PARAMETER, WHOLE, -1, -1, setting)


@njit(cache=True)
def _without(row: int, port: int, count: int, rows: Rows, chains: Chains, bases: Bases) -> int:
    """The row that is left where a branch goes."""
    base, ports = rows.base[row], rows.branches.shape[1]
    branches, weights = np.zeros(ports, np.int64), np.zeros(ports, np.int64)
    if bases.router[base] >= 0 and count > 2:
        return -1
    kept = 0
    for other in range(count):
        if other != port:
            branches[kept], weights[kept] = rows.branches[row, other], rows.weights[row, other]
            kept += 1
    if kept == 1:
        base = 0
        weights[:] = 0
    return _found(base, weights, 0, branches, rows, chains, bases)


@njit(cache=True)
def _list_branches(cursor: Array, found: Array, row: int, rows: Rows, chains: Chains, bases: Bases) -> None:  # noqa: C901
    """Edits on the ports of a combiner, then those of all uses of what several ports read through."""
    base, route = rows.base[row], rows.route[row]
    count, before = np.sum(rows.branches[row] > 0), 1 if route else 0
    tops = np.zeros(count + before, np.int64)
    if before:
        tops[0] = chains.parent[route]
    tops[before:] = rows.branches[row, :count]
    router, made = bases.router[base], np.zeros(count + before, np.int64)
    for port in range(count + before):
        here = tops[port]
        for level in range(chains.depth[tops[port]] + 1):
            for number in range(chains.begin[tops[port], level], chains.begin[tops[port], level + 1]):
                kind, operator, argument, result = chains.changes[number]
                if result == GONE:
                    target = _without(row, port - before, count, rows, chains, bases) if port >= before else -1
                else:
                    made[:] = tops
                    made[port] = result
                    target = _remade(row, made, before, router, rows, chains, bases)
                _note(cursor, found, row, target, kind, port, here, operator, argument)
            here = chains.parent[here]
    for port in range(count + before):
        here = tops[port]
        for level in range(chains.depth[tops[port]] + 1):
            uses, earlier = 0, False
            for other in range(count + before):
                if _reads(tops[other], here, chains) >= 0:
                    uses += 1
                    earlier = earlier or other < port
            if uses > 1 and not earlier:
                for number in range(chains.begin[tops[port], level], chains.begin[tops[port], level + 1]):
                    kind, operator, argument, _ = chains.changes[number]
                    made[:] = tops
                    for other in range(count + before):
                        deep = _reads(tops[other], here, chains)
                        if deep >= 0:
                            made[other] = _changed(tops[other], deep, kind, operator, argument, chains)
                    if np.min(made) >= 0:
                        target = _remade(row, made, before, router, rows, chains, bases)
                        _note(cursor, found, row, target, kind, ALL_USES, here, operator, argument)
            here = chains.parent[here]


@njit(cache=True)
def _changed(top: int, level: int, kind: int, operator: int, argument: int, chains: Chains) -> int:
    """What the same change makes of a chain; −1 where it has none such."""
    for number in range(chains.begin[top, level], chains.begin[top, level + 1]):
        change = chains.changes[number]
        if change[0] == kind and change[1] == operator and change[2] == argument:
            return change[3]
    return -1


@njit(cache=True)
def _remade(row: int, tops: Array, before: int, router: int, rows: Rows, chains: Chains, bases: Bases) -> int:
    """The row with other expressions on the ports of its combiner."""
    branches, route = np.zeros(rows.branches.shape[1], np.int64), 0
    branches[: len(tops) - before] = tops[before:]
    if before:
        route = bases.route[router, tops[0]]
        if not route:
            return -1
    return _found(rows.base[row], rows.weights[row].copy(), route, branches, rows, chains, bases)
