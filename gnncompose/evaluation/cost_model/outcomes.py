"""What nodes answered on every row of a split: the raw material of replay, scores and shares of escalated rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gnncompose.composition.tree import Composition, Node
from gnncompose.execution.outputs import OutputCache, in_batches, operator_function, whole_split_output
from gnncompose.execution.sessions import SessionPool
from gnncompose.tasks.task import Split, Task

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

    def save(self, path: Path) -> None:
        """Write whole or not at all; outputs must have one shape."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial.npz")
        arrays: Mapping[str, np.ndarray] = {
            "nodes": np.array(list(self.outputs)),
            "outputs": np.stack(list(self.outputs.values())),
            "routers": np.array(list(self.routes), dtype=np.str_),
            "routes": np.array(list(self.routes.values())),
        }
        np.savez(partial, **arrays)
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> Outcomes:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            outputs, routes = arrays["outputs"], arrays["routes"]
            return cls(
                {str(key): outputs[number] for number, key in enumerate(arrays["nodes"])},
                {str(key): routes[number] for number, key in enumerate(arrays["routers"])},
            )


def route_key(node: Node) -> str:
    """What a router's choice depends on: the operator and what it reads."""
    return f"{node.operator.identity}({node.inputs[0].id})"


def run_on_split(
    task: Task, composition: Composition, split: Split, sessions: SessionPool, cache: OutputCache
) -> Outcomes:
    """Run a composition on every row and keep what its nodes answered.

    Args:
        task: Whose composition it is.
        composition: What to run.
        split: On which rows.
        sessions: Gives the sessions.
        cache: Outputs of nodes that ran before; what it holds is not run again.

    Raises:
        EvaluationError: An operator failed.
    """
    found = Outcomes()
    for node in composition.nodes:
        if task.output.type.accepts(node.type, {}):
            found.outputs[node.id] = whole_split_output(Composition(node), split, sessions, cache)
        if node.operator.kind == "router":
            key = route_key(node)
            choice = cache.get(key, split.sha256)
            if choice is None:
                source = node.inputs[0]
                data = (
                    whole_split_output(Composition(source), split, sessions, cache)
                    if isinstance(source, Node)
                    else split.x
                )
                choice = in_batches(operator_function(node, sessions), [data], BATCH).argmax(axis=1)
                cache.put(key, split.sha256, choice)
            found.routes[key] = choice
    return found
