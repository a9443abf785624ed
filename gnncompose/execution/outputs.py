"""Outputs of nodes on whole splits, kept so that a composition runs only what is new in it.

Scoring needs every node on every row sooner or later: neighbours in a search share most nodes, and a cascade's
threshold moves which rows need a stage. Rows are independent of each other, so cascades and routers are
resolved by picking rows from whole-split outputs, which gives what a plan gives.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from gnncompose.catalog.operator import PortType
from gnncompose.composition.tree import Composition, Expression, Node
from gnncompose.errors import CatalogError, EvaluationError
from gnncompose.execution.combiners import cascaded, combiner
from gnncompose.execution.sessions import SessionPool, first_line, run_of
from gnncompose.tasks.task import Split

BATCH = 256
# What large rows become inside a network is many times their size.
BATCH_BYTES = 1 << 20


class OutputCache:
    """Arrays by (node id, SHA-256 of the data); the least recently used go when it is full.

    Attributes:
        limit_bytes: Most bytes of arrays that are kept; 0 keeps none.
        hits: Look-ups that found something.
        misses: Look-ups that found nothing.
    """

    def __init__(self, limit_bytes: int = 1 << 30) -> None:
        self.limit_bytes = limit_bytes
        self.hits = 0
        self.misses = 0
        self._arrays: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Bytes kept now."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._arrays)

    def get(self, node_id: str, data: str) -> np.ndarray | None:
        """The output of a node on the data, where it is kept."""
        found = self._arrays.get((node_id, data))
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
            self._arrays.move_to_end((node_id, data))
        return found

    def put(self, node_id: str, data: str, output: np.ndarray) -> None:
        """Keep an output, unless it alone exceeds the limit; it must not be written to afterwards."""
        if output.nbytes > self.limit_bytes or (node_id, data) in self._arrays:
            return
        self._arrays[node_id, data] = output
        self._bytes += output.nbytes
        while self._bytes > self.limit_bytes:
            _, dropped = self._arrays.popitem(last=False)
            self._bytes -= dropped.nbytes


def whole_split_output(
    composition: Composition, split: Split, sessions: SessionPool, cache: OutputCache, batch: int = BATCH
) -> np.ndarray:
    """Output of a composition on every row of a split; only nodes that the cache lacks are run.

    Args:
        composition: What to run.
        split: On which rows.
        sessions: Gives the sessions.
        cache: Is asked for the output of every node, and filled.
        batch: Rows that run at once.

    Returns:
        [rows, ...] of the task's output type.

    Raises:
        EvaluationError: An artifact does not load, or an operator failed.
    """
    return _output(composition.root, split, sessions, cache, batch, {})


def _output(
    expression: Expression,
    split: Split,
    sessions: SessionPool,
    cache: OutputCache,
    batch: int,
    here: dict[str, np.ndarray],
) -> np.ndarray:
    """Output of an expression; `here` holds those of this call, and goes with it at once, without the collector."""
    if not isinstance(expression, Node):
        return split.x
    found = here.get(expression.id)
    if found is None:
        found = cache.get(expression.id, split.sha256)
    if found is None:
        inputs = [_output(child, split, sessions, cache, batch, here) for child in expression.inputs]
        found = node_output(expression, inputs, sessions, batch)
        cache.put(expression.id, split.sha256, found)
    here[expression.id] = found
    return found


def node_inputs(node: Node, split: Split, sessions: SessionPool, cache: OutputCache) -> list[np.ndarray]:
    """What a node reads on a split, port by port; raises as `whole_split_output` does."""
    return [
        whole_split_output(Composition(child), split, sessions, cache) if isinstance(child, Node) else split.x
        for child in node.inputs
    ]


def join_rows(parts: Sequence[np.ndarray], node: Node) -> np.ndarray:
    """What a node gave for one row at a time, as it would give it for all; boxes state in column 0 whose they are."""
    if node.operator.makes_rows and node.type.domain == "boxes":
        parts = [np.concatenate([part[:, :1] + row, part[:, 1:]], axis=1) for row, part in enumerate(parts)]
    return np.concatenate(parts)


def node_output(node: Node, inputs: list[np.ndarray], sessions: SessionPool, batch: int = BATCH) -> np.ndarray:
    """[rows, ...]: what a node gives on what its ports read; raises as `whole_split_output` does."""
    kind, where = node.operator.kind, f'operator "{node.operator.name}"'
    try:
        if kind == "cascade":
            return cascaded(node, inputs)
        if kind == "router":
            route = in_batches(operator_function(node, sessions), inputs[:1], batch)
            check_output(route, node.operator.outputs[0].type, len(inputs[0]), where)
            return _pick(route.argmax(axis=1), inputs[1:])
        if kind == "ensemble":
            return combiner(node)(inputs)
        function = operator_function(node, sessions)
        output = in_batches(function, inputs, batch) if node.operator.is_row_wise else function(inputs)
        check_output(output, node.type, rows_due(node, inputs), where)
        return output
    except EvaluationError:
        raise
    except CatalogError as problem:
        raise EvaluationError(str(problem)) from problem
    except Exception as problem:  # ONNX Runtime raises a dozen own types
        raise EvaluationError(f"{where} failed: {first_line(problem)}") from None


def rows_due(node: Node, inputs: Sequence[np.ndarray]) -> int | None:
    """How many rows a node must give: those of the input that has its first axis; None where it makes rows."""
    pairs = zip(node.inputs, inputs, strict=True)
    return next((len(array) for child, array in pairs if child.type.axes[0] == node.type.axes[0]), None)


def check_output(output: object, kind: PortType, rows: int | None, where: str) -> None:
    """Hold an output to the type of its port; what a file says of its outputs, ONNX Runtime does not hold it to.

    Args:
        output: What came out.
        kind: What was to come out.
        rows: For how many rows; None where it says itself how many, at least one.
        where: How the message names the operator.

    Raises:
        EvaluationError: It is something else.
    """
    if not isinstance(output, np.ndarray):
        raise EvaluationError(f"{where} gives a {type(output).__name__}, not {kind}; export it with a tensor as output")
    dtype = "str" if output.dtype.kind in "OU" else str(output.dtype)
    due = output.shape[:1] == (rows,) if rows is not None else output.size > 0
    if not kind.accepts(PortType(kind.domain, dtype, output.shape), {}) or not due:
        shape = ",".join(map(str, output.shape))
        raise EvaluationError(
            f"{where} gives {dtype}[{shape}] for {rows or 'its'} rows, not {kind}; fix its entry, or export it again"
        )


def check_answers(output: np.ndarray, composition: Composition, rows: int) -> None:
    """Hold the answers of a composition to the task's output type, and numbers to be finite.

    Raises:
        EvaluationError: They are something else.
    """
    check_output(output, composition.root.type, rows, str(composition))
    if output.dtype.kind == "f" and not np.isfinite(output).all():
        raise EvaluationError(f"{composition} gives answers that are not finite; export its operators again")


def operator_function(node: Node, sessions: SessionPool) -> Callable[[list[np.ndarray]], np.ndarray]:
    """An operator with an artifact, or a host operator, as a function of its input arrays."""
    if node.operator.host is not None:
        hosted, given = sessions.host(node.operator), dict(node.parameters)
        return lambda inputs: hosted(*inputs, **given)
    run = run_of(sessions.session(node.operator))
    ports = [port.name for port in node.operator.inputs]
    outputs = [node.operator.outputs[0].name]
    constants = {name: np.array(value, dtype=np.float32) for name, value in node.parameters}
    return lambda inputs: run(outputs, dict(zip(ports, inputs, strict=True)) | constants)[0]


def in_batches(function: Callable[[list[np.ndarray]], np.ndarray], inputs: list[np.ndarray], batch: int) -> np.ndarray:
    """Apply a function to batches of rows and join what it gives; of large rows fewer run at once."""
    rows = len(inputs[0])
    batch = max(1, min(batch, BATCH_BYTES * rows // max(1, sum(array.nbytes for array in inputs))))
    if rows <= batch:
        return function(inputs)
    parts = [function([array[i : i + batch] for array in inputs]) for i in range(0, rows, batch)]
    return np.concatenate(parts)


def _pick(choice: np.ndarray, branches: list[np.ndarray]) -> np.ndarray:
    output = branches[0].copy()
    for number, branch in enumerate(branches[1:], start=1):
        rows = choice == number
        output[rows] = branch[rows]
    return output
