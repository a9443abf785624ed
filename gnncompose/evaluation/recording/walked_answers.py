"""What compositions of any form really answer, and on how many rows their nodes run.

Compositions of a space share most of their nodes, and conditions most of what those read: a page that was upright is
the same page when it was set upright, so are the lines cut from it. Operators that work row by row therefore run once
on each row that differs from all before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from gnncompose.composition.tree import Composition, Expression, Node
from gnncompose.execution.combiners import confidence_of, threshold_of
from gnncompose.execution.isolation import Isolation
from gnncompose.execution.outputs import OutputCache
from gnncompose.execution.regions import find_regions
from gnncompose.execution.work import applied
from gnncompose.tasks.task import Split

Kind = int | str


class Replies:
    """What nodes give on a split."""

    def __init__(self, split: Split, isolation: Isolation, arrays: OutputCache, rows: OutputCache) -> None:
        """Begin.

        Args:
            split: On which rows.
            isolation: Where operators run.
            arrays: Keeps outputs of nodes.
            rows: Keeps what operators gave for a row, by its content; serves other splits, too.
        """
        self._split = split
        self._isolation = isolation
        self._arrays = arrays
        self._rows = rows

    def __call__(self, expression: Expression) -> np.ndarray:
        """[rows, ...]: what an expression gives.

        Raises:
            EvaluationError: An operator failed.
        """
        if not isinstance(expression, Node):
            return self._split.x
        found = self._arrays.get(expression.id, self._split.sha256)
        if found is None:
            inputs = [self(child) for child in expression.inputs]
            is_alone = expression.operator.builtin is None and expression.operator.is_row_wise
            found = self._row_by_row(expression, inputs) if is_alone else self._applied(expression, inputs)
            self._arrays.put(expression.id, self._split.sha256, found)
        return found

    def _applied(self, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
        composition = Composition(node)
        return self._isolation.runner(composition).call(applied, composition, inputs)

    def _row_by_row(self, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
        what = f"{node.operator.identity} {node.parameters}"
        keys = [_digest(row) for row in zip(*inputs, strict=True)]
        known = {key: self._rows.get(what, key) for key in keys}
        found = {key: row for key, row in known.items() if row is not None}
        new = {key: row for row, key in enumerate(keys) if key not in found}
        if new:
            given = self._applied(node, [array[list(new.values())] for array in inputs])
            for key, row in zip(new, given, strict=True):
                found[key] = row.copy()  # not a view, which would keep all of `given`
                self._rows.put(what, key, found[key])
        return np.stack([found[key] for key in keys])


def _digest(row: Sequence[np.ndarray]) -> str:
    """What tells the content of a row, one array from each input, from others."""
    digest = hashlib.blake2b(digest_size=16)
    for array in row:
        digest.update(array.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Use:
    """How requests use a node.

    Attributes:
        runs: Share of the requests in which it runs.
        rows: Rows that it runs on, mean over all requests.
    """

    runs: float
    rows: float


def uses(composition: Composition, replies: Replies, requests: Int[np.ndarray, " request"]) -> list[Use]:
    """How requests of one row use each node, in the order of `Composition.nodes`; of its inputs the first one counts.

    Args:
        composition: Without routers.
        replies: What its nodes give.
        requests: Which rows of the split are asked about.
    """
    regions, of_id = find_regions(composition), {node.id: node for node in composition.nodes}
    source, made = composition.input.type.axes[0], _made(composition, replies)
    found: list[Use] = []
    for node in composition.nodes:
        kind = node.inputs[0].type.axes[0]
        owner = _rows_of(kind, source, made)
        reached = np.ones(len(owner), dtype=bool)
        for key, stage in regions[node.id]:
            cascade = of_id[key]
            certain = confidence_of(cascade.type)(replies(cascade.inputs[stage - 1])) >= threshold_of(cascade)
            reached &= ~certain[_rows_of(kind, cascade.type.axes[0], made)]
        counts = np.bincount(owner[reached], minlength=int(requests.max()) + 1)[requests]
        found.append(Use(float((counts > 0).mean()), float(counts.mean())))
    return found


def _made(composition: Composition, replies: Replies) -> dict[Kind, tuple[Kind, Int[np.ndarray, " row"]]]:
    """Of each kind of rows, told by the first axis of its type, the kind that it was made from, and which row of that.

    The task's own rows are made from themselves.
    """
    source = composition.input
    found: dict[Kind, tuple[Kind, np.ndarray]] = {
        source.type.axes[0]: (source.type.axes[0], np.arange(len(replies(source))))
    }
    for node in composition.nodes:
        if node.type.axes[0] not in found:  # the first node with such rows made them
            found[node.type.axes[0]] = node.inputs[0].type.axes[0], replies(node)[:, 0].astype(np.int64)
    return found


def _rows_of(
    kind: Kind, outer: Kind, made: Mapping[Kind, tuple[Kind, Int[np.ndarray, " row"]]]
) -> Int[np.ndarray, " row"]:
    """From which row of an outer kind each row of a kind comes."""
    rows = np.arange(len(made[kind][1]))
    while kind != outer:
        kind, made_from = made[kind]
        rows = made_from[rows]
    return rows


def by_operator(
    composition: Composition, found: Sequence[Use], names: Sequence[str]
) -> Float[np.ndarray, "operator 2"]:
    """The uses of a composition's nodes, summed up by operator: requests in which it runs, and rows."""
    totals = np.zeros((len(names), 2))
    for node, use in zip(composition.nodes, found, strict=True):
        totals[names.index(node.operator.name)] += use.runs, use.rows
    return totals
