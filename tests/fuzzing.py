"""Runs hostile artifacts in a sandbox, one after the other, and says how each one ended."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
from hostile import IMAGE, PROBS
from hostile_graphs import nested_ifs
from hostile_kernels import counted, normalised, recurrent, trees
from hostile_models import GOES_ON, bombed, floats, loop, node
from onnx import ModelProto, numpy_helper

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import Operator
from gnncompose.catalog.reading import read_artifact
from gnncompose.composition.chains import operator_alone
from gnncompose.composition.tree import Input, Node, make_node
from gnncompose.errors import CatalogError, EvaluationError, GnncomposeError
from gnncompose.execution.sandbox import FULL, Sandbox
from gnncompose.execution.worker import Limits
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.row_check import run_rows
from gnncompose.tasks.task import Split

LARGEST_BYTES = 1 << 18
ROWS = 8
ENDS = {
    "timed_out": r"did not end within",
    "out_of_memory": r"needs more memory than|most likely for lack of memory",
    "crashed": r"crashed \(|ended its process|failed: its process",
}


def outcome(problem: GnncomposeError | None) -> str:
    """How a call ended, in a word.

    Raises:
        AssertionError: The message is not one line that a person can read.
    """
    if problem is None:
        return "answered"
    text = str(problem)
    assert text.isprintable(), repr(text)
    assert 10 < len(text) < 2100, repr(text)
    ends = (name for name, pattern in ENDS.items() if re.search(pattern, text))
    return next(ends, "refused" if isinstance(problem, CatalogError) else "failed")


def small_convolution() -> ModelProto:
    """Convolution, pooling, normalisation and a resize."""
    nodes = [
        node("Conv", ["image", "kernel"], "maps", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["maps", *["per_map"] * 4], "even"),
        node("MaxPool", ["even"], "pooled", kernel_shape=[2, 2], strides=[2, 2]),
        node("Resize", ["pooled", "", "scales"], "bomb", mode="linear"),
    ]
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    return bombed(nodes, [floats("kernel", np.ones((3, 1, 3, 3))), floats("per_map", np.ones(3)), scales])


def small_loop() -> ModelProto:
    """A loop of three turns."""
    return bombed([loop(GOES_ON, "trips", "")], [numpy_helper.from_array(np.int64(3), "trips")])


SMALL = {
    "small_convolution": small_convolution,
    "small_loop": small_loop,
    "small_ifs": lambda: ModelProto.FromString(nested_ifs(3)),
    "small_lstm": recurrent("LSTM", 8, 4, (1, 32, 64), (1, 32, 8)),
    "small_gru": recurrent("GRU", 8, 3, (1, 24, 64), (1, 24, 8)),
    "small_trees": trees(),
    "small_regression": trees("TreeEnsembleRegressor"),
    "small_counts": counted(),
    "small_words": normalised(case_change_action="LOWER", locale="C"),
}


class Fuzzer:
    """A sandbox for artifacts that stand in for those of a bundle.

    Attributes:
        artifacts: What may be mutated: the smaller artifacts of the bundle, and small models of other kinds.
        sandbox: Where they run.
    """

    def __init__(self, bundle: Path, folder: Path, limits: Limits) -> None:
        (folder / "operators").mkdir(parents=True)
        task = load_task(bundle)
        rows = task.split("clean", "validation")
        self._path = folder / "operators" / "mutation.onnx"
        self._rows = Split(rows.x[:ROWS], rows.y[:ROWS])
        self._nodes: dict[str, Node] = {}
        self.artifacts: dict[str, bytes] = {}
        for operator in task.catalog.operators:
            node = operator_alone(operator, task.catalog, task.input.type) if operator.artifact else None
            content = read_artifact(task.catalog, operator) if node else b""
            # A node behind others would have these run too, whose files are not there.
            if node and all(isinstance(child, Input) for child in node.inputs) and len(content) <= LARGEST_BYTES:
                self._nodes[operator.name], self.artifacts[operator.name] = node, content
        like = self._nodes["logistic"]
        for name, make in SMALL.items():
            ports = {"inputs": [{"name": "image", "type": IMAGE}], "outputs": [{"name": "probs", "type": PROBS}]}
            operator = Operator.model_validate(
                {"name": name, "kind": "model", "artifact": "x", "sha256": "0" * 64, **ports}
            )
            self._nodes[name], self.artifacts[name] = make_node(operator, like.inputs), make().SerializeToString()
        self.sandbox = Sandbox(Catalog("fuzz", (), folder), limits, modules=(*FULL, run_rows.__module__))

    def run(self, name: str, content: bytes) -> str:
        """Run an artifact in place of an operator's own; how it ended."""
        self._path.write_bytes(content)
        node = self._nodes[name]
        changed = {"artifact": "operators/mutation.onnx", "sha256": hashlib.sha256(content).hexdigest()}
        operator = Operator.model_validate(node.operator.model_dump(exclude={"profile"}, exclude_none=True) | changed)
        try:
            self.sandbox.call(run_rows, make_node(operator, node.inputs, dict(node.parameters)), self._rows)
        except (CatalogError, EvaluationError) as problem:
            return outcome(problem)
        return outcome(None)

    def close(self) -> None:
        """End the sandbox."""
        self.sandbox.close()
