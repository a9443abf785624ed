"""Runs every operator of a bundle on a few real rows, in a process of its own.

Artifacts are data from strangers: a crash, a hang or a huge allocation must end this process and nothing else.
Hence `python -m gnncompose.tasks.row_check BUNDLE`, which prints one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

from gnncompose.catalog.operator import Operator
from gnncompose.composition.chains import shortest_chains
from gnncompose.composition.tree import Expression, Input, Node
from gnncompose.errors import CatalogError, GnncomposeError
from gnncompose.tasks.bundle import entry_name, load_task, read_artifact
from gnncompose.tasks.task import Task

ROWS = 32
LARGEST_ROW_DEVIATION = 1e-2
SUM_TOLERANCE = 1e-3
SECONDS = 300
MEMORY_BYTES = 16 << 30


def check_rows(directory: Path) -> dict[str, float]:
    """Run every operator on real rows, together and alone, in another process.

    Returns:
        By operator, the largest deviation between rows that run together and the same rows alone.

    Raises:
        CatalogError: An operator does not run, mixes rows, or gives no probabilities.
    """
    command = [sys.executable, "-m", "gnncompose.tasks.row_check", str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as late:
        last = _last_operator(late.stderr)
        raise CatalogError(f"{last}: did not end within {SECONDS} s; export a model that ends") from None
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = _last_operator(done.stderr)
        raise CatalogError(f"{last}: ended its process with code {done.returncode}; export the model again") from None
    if "error" in answer:
        raise CatalogError(answer["error"])
    return answer["row_deviation"]


def _last_operator(text: str | bytes | None) -> str:
    """The last operator that the process said it would run."""
    content = text.decode(errors="replace") if isinstance(text, bytes) else text or ""
    started = [line.removeprefix("run ") for line in content.splitlines() if line.startswith("run ")]
    return started[-1] if started else "catalog.yaml"


class _Runner:
    """Outputs of chains of operators on the first rows of clean validation."""

    def __init__(self, task: Task) -> None:
        self.task = task
        rows = task.split("clean", "validation").x[:ROWS]
        # ONNX Runtime takes text as object arrays only.
        self.rows = rows.astype(object) if rows.dtype.kind == "U" else rows
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._outputs: dict[str, np.ndarray] = {}

    def output(self, expression: Expression) -> np.ndarray:
        """What the expression gives for all rows together."""
        if isinstance(expression, Input):
            return self.rows
        if expression.id not in self._outputs:
            inputs = [self.output(child) for child in expression.inputs]
            self._outputs[expression.id] = self.run(expression.operator, inputs)
        return self._outputs[expression.id]

    def run(self, operator: Operator, inputs: list[np.ndarray]) -> np.ndarray:
        """One operator on arrays, parameters at their defaults."""
        session = self._session(operator)
        feed: dict[str, np.ndarray] = {p.name: array for p, array in zip(operator.inputs, inputs, strict=True)}
        feed |= {name: np.array(p.default, np.float32) for name, p in operator.parameters.items()}
        return np.asarray(session.run([operator.outputs[0].name], feed)[0])

    def _session(self, operator: Operator) -> ort.InferenceSession:
        if operator.name not in self._sessions:
            content = read_artifact(self.task.catalog, self.task.catalog.operators.index(operator), operator)
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 4
            self._sessions[operator.name] = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return self._sessions[operator.name]


def _deviations(task: Task) -> dict[str, float]:
    runner, found = _Runner(task), {}
    chains = shortest_chains(task.catalog, task.input.type)
    for number, operator in enumerate(task.catalog.operators):
        if operator.artifact is None:
            continue
        where = entry_name(number, operator)
        print(f"run {where}", file=sys.stderr, flush=True)
        try:
            inputs = [runner.output(e) for e in _inputs(task, chains, operator, where)]
            together = runner.run(operator, inputs)
            alone = np.concatenate(
                [runner.run(operator, [a[i : i + 1] for a in inputs]) for i in range(len(inputs[0]))]
            )
        except GnncomposeError:
            raise
        except Exception as problem:  # ONNX Runtime has a dozen error types, all the same to the user
            reason = str(problem).splitlines()[0][:200]
            raise CatalogError(f"{where}: does not run on clean validation rows ({reason}); export it again") from None
        found[operator.name] = _check_outputs(together, alone, operator, where)
    return found


def _inputs(
    task: Task, chains: dict[str, Node], operator: Operator, where: str
) -> tuple[Expression, ...] | list[Expression]:
    """What leads to the operator's ports; a router is fed by any chain that fits it."""
    if operator.name in chains:
        return chains[operator.name].inputs
    candidates: list[Expression] = [Input(task.input.type), *chains.values()]
    fitting = [c for c in candidates if operator.kind == "router" and operator.inputs[0].type.accepts(c.type, {})]
    if not fitting:
        raise CatalogError(f"{where}: no chain of operators leads to its inputs; add a transform that does, or drop it")
    return fitting[:1]


def _check_outputs(together: np.ndarray, alone: np.ndarray, operator: Operator, where: str) -> float:
    if len(together) != len(alone) or together.shape != alone.shape:
        raise CatalogError(f"{where}: gives other shapes for rows alone than together; keep one output row a row")
    if together.dtype.kind not in "fiub":
        return float((together != alone).any())
    deviation = float(np.abs(together.astype(np.float64) - alone.astype(np.float64)).max())
    if not deviation <= LARGEST_ROW_DEVIATION:
        raise CatalogError(
            f"{where}: rows alone and together differ by {deviation:.2g}, above {LARGEST_ROW_DEVIATION}; "
            f"export it row-independent (static, not dynamic, quantisation; normalisation in inference mode)"
        )
    if operator.outputs[0].type.domain == "probs":
        off = float(np.abs(together.sum(axis=-1) - 1).max())
        if not np.isfinite(together).all() or not off <= SUM_TOLERANCE or together.min() < -SUM_TOLERANCE:
            raise CatalogError(
                f"{where}: its output is no probabilities (finite, sum 1 ± {SUM_TOLERANCE}); add a Softmax"
            )
    return deviation


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows, where the parent's timeout is the only guard
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _main(directory: str) -> None:
    _limit_memory()
    try:
        answer: dict[str, object] = {"row_deviation": _deviations(load_task(Path(directory)))}
    except GnncomposeError as problem:
        answer = {"error": str(problem)}
    print(json.dumps(answer))


if __name__ == "__main__":
    _main(sys.argv[1])
