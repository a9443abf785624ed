"""Replay: what a composition would answer, computed from row-level outputs of its parts that ran before.

Rows are independent of each other and combiners are plain arithmetic, so once every branch of a combiner has run
in this world, its answer on every row follows without running anything: the error correlation inside an ensemble
and the rows that a cascade escalates come out exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gnncompose.composition.tree import Composition, Expression, Node
from gnncompose.evaluation.cost_model.outcomes import Outcomes, route_key
from gnncompose.execution.combiners import cascaded, combiner, confidence_of, threshold_of
from gnncompose.execution.regions import Region, find_regions

Escalation = Callable[[Node, int], float]


@dataclass(frozen=True, eq=False)
class Reach:
    """Which rows reach a node.

    Attributes:
        rows: bool[rows]: which do, as far as replay knows.
        factor: Share of those that what replay does not know lets through, estimated.
        exact: Whether nothing had to be estimated.
    """

    rows: np.ndarray
    factor: float = 1.0
    exact: bool = True

    def share(self, sampled: np.ndarray | None = None) -> float:
        """Share of the rows, or of some of them, that reach the node."""
        rows = self.rows if sampled is None else self.rows[sampled]
        return float(rows.mean()) * self.factor


class Replay:
    """Answers from known outputs; what it derives, it keeps."""

    def __init__(self, known: Outcomes, rows: int) -> None:
        """Begin with what is known.

        Args:
            known: Outputs and routes of one world; may grow between calls.
            rows: Rows of the split.
        """
        self.known = known
        self.rows = rows
        self._derived: dict[str, np.ndarray] = {}

    def output(self, expression: Expression) -> np.ndarray | None:
        """[rows, ...] that a node gives; None where parts of it never ran."""
        if not isinstance(expression, Node):
            return None
        found = self.known.outputs.get(expression.id)
        if found is None:
            found = self._derived.get(expression.id)
        if found is None and expression.operator.is_combiner:
            found = self._combined(expression)
            if found is not None:
                self._derived[expression.id] = found
        return found

    def _combined(self, node: Node) -> np.ndarray | None:
        branches: list[np.ndarray] = []
        for branch in node.branches:
            output = self.output(branch)
            if output is None:
                return None
            branches.append(output)
        if node.operator.kind == "cascade":
            return cascaded(node, branches)
        if node.operator.kind == "router":
            route = self.known.routes.get(route_key(node))
            return None if route is None else np.stack(branches)[route, np.arange(len(route))]
        return combiner(node)(branches)

    def reach(self, composition: Composition, estimate: Escalation) -> dict[str, Reach]:
        """Which rows reach each node, by id; plans run a node on just these.

        Args:
            composition: Whose nodes.
            estimate: Where replay does not know: of a combiner and the number of a stage or branch, the share of
                the rows at the stage before (of a cascade) or at the router that go on to it.
        """
        nodes = {node.id: node for node in composition.nodes}
        regions = find_regions(composition)
        reached: dict[Region, Reach] = {(): Reach(np.ones(self.rows, dtype=bool))}

        def enter(region: Region) -> Reach:
            found = reached.get(region)
            if found is None:
                key, port = region[-1]
                found = reached[region] = self._narrowed(enter(region[:-1]), nodes[key], port, estimate)
            return found

        return {key: enter(regions[key]) for key in nodes}

    def _narrowed(self, outer: Reach, node: Node, port: int, estimate: Escalation) -> Reach:
        goes_on = self.passes(node, port)
        if goes_on is None:
            return Reach(outer.rows, outer.factor * estimate(node, port), False)
        return Reach(outer.rows & goes_on, outer.factor, outer.exact)

    def passes(self, node: Node, port: int) -> np.ndarray | None:
        """bool[rows]: rows that the stage before hands on to stage `port`, or that a router sends to it."""
        if node.operator.kind == "router":
            route = self.known.routes.get(route_key(node))
            return None if route is None else route == port - 1
        answers = self.output(node.inputs[port - 1])
        return None if answers is None else ~(confidence_of(node.type)(answers) >= threshold_of(node))
