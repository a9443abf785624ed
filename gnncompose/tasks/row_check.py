"""Runs every operator of a bundle on a few real rows in the sandbox, together and alone."""

from __future__ import annotations

import numpy as np

from gnncompose.catalog.operator import Operator
from gnncompose.catalog.reading import entry_name
from gnncompose.composition.chains import operator_alone
from gnncompose.composition.tree import Node
from gnncompose.errors import CatalogError, EvaluationError
from gnncompose.execution.outputs import BATCH_BYTES, check_output, join_rows, node_inputs, operator_function
from gnncompose.execution.runner import Runner, Workspace
from gnncompose.execution.sandbox import FULL, Sandbox
from gnncompose.execution.worker import Limits
from gnncompose.tasks.task import Split, Task

ROWS = 32
LARGEST_ROW_DEVIATION = 1e-2
SUM_TOLERANCE = 1e-3


def check_artifacts(task: Task, limits: Limits | None = None) -> dict[str, float]:
    """Check each artifact's content and run each operator that is not builtin on real rows; all in the sandbox.

    Args:
        task: Whose artifacts.
        limits: What the sandbox may take for one operator.

    Returns:
        By operator, the largest deviation between rows that run together and the same rows alone.

    Raises:
        CatalogError: An artifact breaks a rule, an operator does not run, mixes rows, or gives no probabilities.
    """
    sandbox = Sandbox(task.catalog, limits, modules=(*FULL, __name__))
    rows = task.split("clean", "validation")
    count = max(2, min(ROWS, BATCH_BYTES * len(rows.x) // rows.x.nbytes))  # of large rows, a few tell as much
    few, found = Split(rows.x[:count], rows.y[:count]), {}
    try:
        for operator in task.catalog.operators:
            if operator.builtin is None:
                found[operator.name] = _deviation(task, operator, few, sandbox)
    finally:
        sandbox.close()
    return found


def _deviation(task: Task, operator: Operator, rows: Split, sandbox: Runner) -> float:
    where = entry_name(task.catalog, operator)
    node = operator_alone(operator, task.catalog, task.input.type)
    try:
        if node is None:
            if operator.artifact is not None:
                sandbox.call(admitted, operator)  # what is wrong with the artifact itself is said first
            raise CatalogError(f"{where}: no chain of operators leads to its inputs; add a transform that does")
        together, alone = sandbox.call(run_rows, node, rows)
        due = len(rows.x) if node.type.axes[0] == task.input.type.axes[0] else None
        for output in (together, alone):
            check_output(output, node.type, due, "it")
    except EvaluationError as problem:
        raise CatalogError(f"{where}: does not run on clean validation rows: {problem}; export it again") from None
    return _check_outputs(together, alone, operator, where)


def admitted(workspace: Workspace, operator: Operator) -> bool:
    """True: a call that names an operator is made only once its artifact was let in."""
    return bool(workspace.sessions.session(operator))


def run_rows(workspace: Workspace, node: Node, rows: Split) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of a node's operator on rows that run together, and on the same rows one by one.

    Where rows of several kinds meet, what runs alone is all that belongs to one row of the task.
    """
    # ONNX Runtime takes text as object arrays only.
    x = rows.x.astype(object) if rows.x.dtype.kind == "U" else rows.x
    sessions, cache, function = workspace.sessions, workspace.outputs, operator_function(node, workspace.sessions)
    inputs = node_inputs(node, Split(x, rows.y), sessions, cache)
    if node.operator.is_row_wise:
        requests = [[array[i : i + 1] for array in inputs] for i in range(len(inputs[0]))]
    else:
        requests = [node_inputs(node, Split(x[i : i + 1], rows.y[i : i + 1]), sessions, cache) for i in range(len(x))]
    return function(inputs), join_rows([function(request) for request in requests], node)


def _check_outputs(together: np.ndarray, alone: np.ndarray, operator: Operator, where: str) -> float:
    if together.shape != alone.shape or not together.size:
        raise CatalogError(f"{where}: gives nothing, or other shapes for rows alone than together; export it again")
    if together.dtype.kind not in "fiub":
        return float((together != alone).any())
    with np.errstate(invalid="ignore"):  # infinity less infinity is told below
        deviation = float(np.abs(together.astype(np.float64) - alone.astype(np.float64)).max())
    if not deviation <= LARGEST_ROW_DEVIATION:
        raise CatalogError(
            f"{where}: rows alone and together differ by {deviation:.2g}, above {LARGEST_ROW_DEVIATION}; "
            f"export it row-independent (static, not dynamic, quantisation; normalisation in inference mode)"
        )
    if operator.outputs[0].type.domain == "probs":
        off = float(np.abs(together.sum(axis=-1) - 1).max())  # of no infinite ones: their deviation is no number
        if not np.isfinite(together).all() or not off <= SUM_TOLERANCE or together.min() < -SUM_TOLERANCE:
            raise CatalogError(
                f"{where}: its output is no probabilities (finite, sum 1 ± {SUM_TOLERANCE}); add a Softmax"
            )
    return deviation
