"""What nodes answered on every row of a split: the raw material of replay, scores and shares of escalated rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from gnncompose.catalog.operator import PortType
from gnncompose.composition.tree import Composition, Expression, Node
from gnncompose.execution.outputs import in_batches, operator_function, whole_split_output
from gnncompose.execution.runner import Runner, Workspace
from gnncompose.tasks.task import Split

BATCH = 256


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
        output: Type of the task's output; nodes of another type are not kept.

    Raises:
        EvaluationError: An operator failed.
        CatalogError: An artifact is not usable.
    """
    kept = [node for node in composition.nodes if output.accepts(node.type, {})]
    outputs = {node.id: runner.call(node_output, Composition(node), split) for node in kept}
    routers = [node for node in composition.nodes if node.operator.kind == "router"]
    routes = {route_key(node): runner.call(route, Composition(node), split) for node in routers}
    return Outcomes(outputs, routes)


def node_output(workspace: Workspace, composition: Composition, split: Split) -> np.ndarray:
    """[rows, ...]: what a node gives on every row of a split."""
    return whole_split_output(composition, split, workspace.sessions, workspace.outputs)


def route(workspace: Workspace, composition: Composition, split: Split) -> np.ndarray:
    """int64[rows]: the branch that the router on top chooses for every row of a split."""
    key = route_key(composition.root)
    choice = workspace.outputs.get(key, split.sha256)
    if choice is None:
        source: Expression = composition.root.inputs[0]
        data = split.x
        if isinstance(source, Node):
            data = whole_split_output(Composition(source), split, workspace.sessions, workspace.outputs)
        choice = in_batches(operator_function(composition.root, workspace.sessions), [data], BATCH).argmax(axis=1)
        workspace.outputs.put(key, split.sha256, choice)
    return choice
