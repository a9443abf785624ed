"""What nodes answered on every row of a split: the raw material of replay, scores and shares of escalated rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from gnncompose.catalog.operator import PortType
from gnncompose.composition.tree import Composition, Node
from gnncompose.execution.runner import Runner
from gnncompose.execution.work import answers, branches_chosen
from gnncompose.tasks.task import Split


def _none() -> dict[str, np.ndarray]:
    return {}


@dataclass(eq=False)
class Outcomes:
    """What is known, row by row, of nodes that really ran in one world.

    Attributes:
        outputs: [rows, ...] of each node of the task's output type, by node id.
        routes: int64[rows]: the branch that a router chose, by `route_key`.
    """

    outputs: dict[str, np.ndarray] = field(default_factory=_none)
    routes: dict[str, np.ndarray] = field(default_factory=_none)

    def update(self, other: Outcomes) -> None:
        """Take in what another one knows."""
        self.outputs.update(other.outputs)
        self.routes.update(other.routes)

    def part(self, compositions: Iterable[Composition]) -> Outcomes:
        """What running these compositions alone would have told."""
        found = Outcomes()
        for composition in compositions:
            for node in composition.nodes:
                if node.id in self.outputs:
                    found.outputs[node.id] = self.outputs[node.id]
                if node.operator.kind == "router" and (key := route_key(node)) in self.routes:
                    found.routes[key] = self.routes[key]
        return found


def route_key(node: Node) -> str:
    """What a router's choice depends on: the operator and what it reads."""
    return f"{node.operator.identity}({node.inputs[0].id})"


def run_on_split(runner: Runner, composition: Composition, split: Split, output: PortType) -> Outcomes:
    """Run a composition on every row and keep what its nodes answered; what the runner has cached is not run again.

    Args:
        runner: Where it may run.
        composition: What to run.
        split: On which rows.
        output: Type of the task's output; nodes of another type, or of other rows than the task's, are not kept.

    Raises:
        EvaluationError: An operator failed.
        CatalogError: An artifact is not usable.
    """
    rows = composition.input.type.axes[0]
    own = [node for node in composition.nodes if node.type.axes[0] == rows]
    kept = [node for node in own if output.accepts(node.type, {})]
    outputs = {node.id: runner.call(answers, Composition(node), split) for node in kept}
    routers = [node for node in own if node.operator.kind == "router"]
    routes = {route_key(node): runner.call(branches_chosen, Composition(node), split) for node in routers}
    return Outcomes(outputs, routes)
