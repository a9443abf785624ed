"""What is asked of a workspace: answers on a whole split, timings, one merged file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple

import numpy as np

from gnncompose.composition.tree import Composition, Node
from gnncompose.execution.combiners import combiner, confidence_of
from gnncompose.execution.latency import Effort, time_one_by_one
from gnncompose.execution.load import parse_load
from gnncompose.execution.merge import merge_contents
from gnncompose.execution.outputs import (
    BATCH,
    in_batches,
    node_inputs,
    node_output,
    operator_function,
    whole_split_output,
)
from gnncompose.execution.plan import Plan
from gnncompose.execution.runner import Workspace
from gnncompose.tasks.task import Split

EACH_NODE = Effort(rows=8, repeats=5, seconds=0.0)  # a reader wants to know which node is the slow one, not more


def answers(workspace: Workspace, composition: Composition, split: Split) -> np.ndarray:
    """[rows, ...]: output of a composition on every row of a split.

    Raises:
        EvaluationError: An artifact does not load, or an operator failed.
    """
    return whole_split_output(composition, split, workspace.sessions, workspace.outputs)


def applied(workspace: Workspace, composition: Composition, inputs: list[np.ndarray]) -> np.ndarray:
    """[rows, ...]: what the last node of a composition gives on what its ports read.

    Raises:
        EvaluationError: An artifact does not load, or the operator failed.
    """
    return node_output(composition.root, inputs, workspace.sessions)


def branches_chosen(workspace: Workspace, composition: Composition, split: Split) -> np.ndarray:
    """int64[rows]: the branch that the router at the output of a composition chooses for every row of a split.

    Raises:
        EvaluationError: An artifact does not load, or an operator failed.
    """
    router = composition.root
    source, data = router.inputs[0], split.x
    if isinstance(source, Node):
        data = answers(workspace, Composition(source), split)
    return in_batches(operator_function(router, workspace.sessions), [data], BATCH).argmax(axis=1)


def rows_reached(workspace: Workspace, composition: Composition, split: Split, requests: np.ndarray) -> np.ndarray:
    """int64[requests, nodes]: on how many rows of each request a node runs, in the order of `Composition.nodes`.

    Args:
        workspace: Gives the sessions.
        composition: What runs.
        split: Whose rows are asked about.
        requests: int64[requests, batch]: which of them make up each request.

    Raises:
        EvaluationError: An artifact does not load, or an operator failed.
    """
    plan = Plan(composition, workspace.sessions)
    found = [plan.row_counts(split.x[rows]) for rows in requests]
    return np.array([[counts[node.id] for node in composition.nodes] for counts in found])


def timed(
    workspace: Workspace,
    composition: Composition,
    split: Split,
    load: str,
    effort: Effort,
    threads: int,
    baseline_ns: float,
) -> tuple[np.ndarray, float, float, float, float, float]:
    """The attributes of the `Timing` of a composition under a load, on the core that this thread is pinned to.

    Args:
        workspace: Gives the sessions.
        composition: What is timed.
        split: Whose rows are sampled.
        load: How requests arrive, as `parse_load` reads it.
        effort: How much is timed.
        threads: Cores that the sessions use.
        baseline_ns: The reference's time at the machine's best.

    Raises:
        EvaluationError: It cannot be run, or does not sustain the load.
    """
    plan = Plan(composition, workspace.sessions)
    timing = parse_load(load).time(plan.run, split.x, effort, threads, baseline_ns)
    return astuple(timing)


def timed_nodes(
    workspace: Workspace,
    composition: Composition,
    split: Split,
    load: str,
    effort: Effort,
    threads: int,
    baseline_ns: float,
) -> tuple[np.ndarray, np.ndarray]:
    """What each node takes alone on what it reads; the arguments are those of `timed`.

    Returns:
        float64[nodes], in the order of `Composition.nodes`: milliseconds of a request that reaches the node, 0 where
        none does; and the share of the requests that do.

    Raises:
        EvaluationError: An artifact does not load, or an operator failed.
    """
    requests = parse_load(load).requests(len(split.x), effort)
    reached = rows_reached(workspace, composition, split, requests) > 0
    asked: list[tuple[int, Callable[[list[np.ndarray]], object], list[np.ndarray]]] = []
    for number, node in enumerate(composition.nodes):
        function = _alone(node, workspace)
        some = requests[reached[:, number]][: EACH_NODE.rows]
        asked += [(number, function, _read_by(node, split, rows, workspace)) for rows in some]
    # in one measurement, so that what it waits for a busy machine is waited once
    timing = time_one_by_one(lambda one: one[1](one[2]), asked, EACH_NODE, threads, baseline_ns)
    medians, whose = np.median(timing.samples_ms, axis=1), np.array([number for number, _, _ in asked])
    found = [medians[whose == number].mean() if (whose == number).any() else 0.0 for number in range(len(reached.T))]
    return np.array(found), reached.mean(axis=0)


def _alone(node: Node, workspace: Workspace) -> Callable[[list[np.ndarray]], object]:
    """What a node itself does with its inputs; a cascade looks how sure its first stage is."""
    if node.operator.kind == "cascade":
        confidence = confidence_of(node.type)
        return lambda inputs: confidence(inputs[0])
    if node.operator.kind == "ensemble":
        return combiner(node)
    decide = operator_function(node, workspace.sessions)
    return (lambda inputs: decide(inputs[:1])) if node.operator.kind == "router" else decide


def _read_by(node: Node, split: Split, rows: np.ndarray, workspace: Workspace) -> list[np.ndarray]:
    """What a node reads to answer some rows of a split."""
    arrays = node_inputs(node, split, workspace.sessions, workspace.outputs)
    if node.operator.is_row_wise and all(len(array) == len(split.x) for array in arrays):
        return [array[rows] for array in arrays]
    return node_inputs(node, Split(split.x[rows], split.y[rows]), workspace.sessions, workspace.outputs)


def merged(
    workspace: Workspace, composition: Composition, contents: dict[str, bytes], input_name: str, output_name: str
) -> bytes:
    """A composition as one ONNX file whose input and output have these names.

    Raises:
        CatalogError: An artifact cannot be brought to the others' opset.
        CompositionError: A router joins outputs whose size is not known beforehand.
    """
    return merge_contents(composition, contents, input_name, output_name).SerializeToString()
