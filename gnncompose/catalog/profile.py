"""Profiles: what each operator of a bundle takes alone, measured and written into its `catalog.yaml`."""

from __future__ import annotations

import datetime
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.graph import graph_features
from gnncompose.catalog.operator import BATCH, SMALL_BATCH, GraphFeatures, Operator, Profile
from gnncompose.catalog.reading import entry_name, read_artifact
from gnncompose.composition.chains import operator_alone
from gnncompose.composition.tree import Composition, Input, Node, make_node
from gnncompose.errors import CatalogError, EvaluationError
from gnncompose.evaluation.metrics import find_metric
from gnncompose.execution.cores import claimed_cores
from gnncompose.execution.isolation import Isolation
from gnncompose.execution.latency import Effort, sample_rows, time_one_by_one
from gnncompose.execution.memory import REQUESTS, peak_memory_bytes
from gnncompose.execution.outputs import check_output, join_rows, node_inputs, operator_function, rows_due
from gnncompose.execution.reference import baseline_ns
from gnncompose.execution.runner import Runner, Workspace
from gnncompose.execution.sandbox import FULL
from gnncompose.execution.work import answers
from gnncompose.execution.worker import Limits
from gnncompose.provenance import hardware
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Split, Task

SINGLE = Effort(rows=32, repeats=5)
# Of operators that take longer than this, fewer rows tell enough.
LONG_S, FEW = 0.005, Effort(rows=8, repeats=3)
TOGETHER = Effort(rows=1, repeats=7)
# Where a batch would take longer, its time is left out: that of small ones tells enough, and takes seconds already.
LONGEST_BATCH_MS = 500.0
LIMITS = Limits(cache_bytes=1 << 30)


def profile_catalog(
    directory: Path, progress: Callable[[str], None] = lambda name: None, limits: Limits = LIMITS
) -> Catalog:
    """Measure every operator of a bundle that runs code of its own, and write the profiles into its catalog.

    Each runs alone on clean validation data, brought to it by the shortest chain of operators.
    Everything else in `catalog.yaml` stays, but for comments, which YAML's writer does not keep.

    Args:
        directory: The bundle.
        progress: Called with the name of each operator when it is done.
        limits: What a sandbox may take for one operator.

    Returns:
        The catalog with its new profiles.

    Raises:
        TaskError: The bundle is not readable.
        CatalogError: An operator does not run, or nothing leads to it; nothing is written then.
    """
    task = load_task(directory)
    profiler = _Profiler(task, limits)
    profiles: dict[str, Profile] = {}
    for operator in task.catalog.operators:
        if operator.builtin is None:
            try:
                profiles[operator.name] = profiler.profile(operator)
            except EvaluationError as problem:
                raise CatalogError(f'catalog.yaml: operator "{operator.name}" does not run: {problem}') from None
            progress(operator.name)
    profiler.isolation.close()
    path = directory / "catalog.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in document["operators"]:
        if entry["name"] in profiles:
            entry["profile"] = profiles[entry["name"]].model_dump(mode="json", exclude_none=True)
    _replace(path, document)
    return load_task(directory).catalog


class _Profiler:
    """Measures operators of one task one by one."""

    def __init__(self, task: Task, limits: Limits) -> None:
        self.task = task
        self.limits = limits
        self.split = task.split("clean", "validation")
        self.isolation = Isolation(task.catalog, limits, modules=(*FULL, __name__))
        machine = hardware()
        self.cpu = str(machine["cpu"])
        self.hardware = f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}"

    def profile(self, operator: Operator) -> Profile:
        """What one operator takes alone; raises where no chain leads to it or it does not run."""
        node = operator_alone(operator, self.task.catalog, self.task.input.type)
        if node is None:
            raise CatalogError(
                f"{entry_name(self.task.catalog, operator)}: no chain of operators leads from {self.task.input.type} "
                f"to it; add one that gives {operator.inputs[0].type}"
            )
        runner = self.isolation.runner(Composition(node))
        baseline = baseline_ns(self.cpu)
        with claimed_cores() as cores, runner.pinned(cores):
            speed, inputs = runner.call(time_operator, node, self.split, baseline)
        return Profile(
            **{name: _rounded(value) for name, value in speed.items()},
            **self._size(operator, runner),
            peak_memory_bytes=self._peak_memory(node, inputs),
            score=self._score(operator, node),
            hardware=self.hardware,
            measured_at=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )

    def _size(self, operator: Operator, runner: Runner) -> dict[str, Any]:
        """What its file tells; a host operator has none."""
        if operator.artifact is None:
            return {}
        content = read_artifact(self.task.catalog, operator)
        return {
            "artifact_bytes": len(content),
            "weights": runner.call(count_weights, content),
            "graph": GraphFeatures.model_validate(runner.call(read_graph, content)),
        }

    def _peak_memory(self, node: Node, inputs: list[np.ndarray]) -> int:
        """Of a process that serves the operator alone; with its chain where it has several inputs."""
        if len(inputs) > 1:
            return peak_memory_bytes(Composition(node), self.task.catalog, self.split.x, self.limits)
        alone = make_node(node.operator, [Input(node.inputs[0].type)], dict(node.parameters))
        return peak_memory_bytes(Composition(alone), self.task.catalog, inputs[0], self.limits)

    def _score(self, operator: Operator, node: Node) -> float | None:
        """On clean validation, of a model whose chain answers the task."""
        if operator.kind != "model" or not self.task.space.is_answer(node.type):
            return None
        composition = Composition(node)
        metric = find_metric(self.task.metric)
        output = self.isolation.runner(composition).call(answers, composition, self.split)
        return _rounded(metric.score(metric.compute(output, self.split.y)))


def time_operator(
    workspace: Workspace, node: Node, split: Split, baseline_ns: float
) -> tuple[dict[str, float], list[np.ndarray]]:
    """Speed of a node's operator on what its inputs give for a split, and a few rows of these."""
    operator, function = node.operator, operator_function(node, workspace.sessions)
    arrays = node_inputs(node, split, workspace.sessions, workspace.outputs)
    count = len(arrays[0]) if operator.is_row_wise else len(split.x)

    def request(rows: np.ndarray) -> list[np.ndarray]:
        """Inputs of some rows; where pages and lines come together, of all that belongs to some pages."""
        if operator.is_row_wise:
            return [array[rows] for array in arrays]
        few = Split(split.x[rows], split.y[rows])
        return node_inputs(node, few, workspace.sessions, workspace.outputs)

    singles = [request(np.array([row])) for row in sample_rows(count, SINGLE.rows)]
    function(singles[0])
    started = time.perf_counter()
    function(singles[0])
    is_long = time.perf_counter() - started > LONG_S
    effort, requests = (FEW, singles[:: SINGLE.rows // FEW.rows]) if is_long else (SINGLE, singles)
    alone = time_one_by_one(function, requests, effort, 1, baseline_ns)
    speed = {"latency_ms": float(np.median(alone.samples_ms, axis=1).mean()), "cpu_ms": alone.cpu_ms}
    for size, name in ((SMALL_BATCH, "latency_ms_batch8"), (BATCH, "latency_ms_batch64")):
        if size == SMALL_BATCH or size * speed["latency_ms"] <= LONGEST_BATCH_MS:
            rows = np.arange(size) % count
            batch = request(rows)
            output = function(batch)
            check_output(output, node.type, rows_due(node, batch), "it")
            timing = time_one_by_one(function, [batch], TOGETHER, 1, baseline_ns, size)
            speed[name] = float(np.median(timing.samples_ms))
            single = [function(request(rows[i : i + 1])) for i in range(size)]
            speed["row_deviation"] = row_deviation(output, join_rows(single, node))
            if operator.makes_rows:
                speed["rows_made"] = len(output) / size
    return speed, [array[:REQUESTS] for array in arrays]


def row_deviation(together: np.ndarray, alone: np.ndarray) -> float:
    """Largest difference between rows that run together and the same rows alone; 0 or 1 for text."""
    if together.shape != alone.shape:
        raise EvaluationError("it gives other rows together than alone; make each row depend on itself only")
    if not np.issubdtype(together.dtype, np.number):
        return float((together != alone).any())
    deviation = float(np.abs(together.astype(np.float64) - alone).max())
    if not np.isfinite(deviation):
        raise EvaluationError("it gives numbers that are not finite; export it again")
    return deviation


def count_weights(workspace: Workspace, content: bytes) -> int:
    """Numbers that an artifact carries: initialisers, constants, and lists in attributes, as trees have."""
    model = onnx.load_model_from_string(content)
    total = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    for node in model.graph.node:
        for attribute in node.attribute:
            total += len(attribute.floats)
            if attribute.HasField("t"):
                total += int(np.prod(attribute.t.dims))
    return total


def read_graph(workspace: Workspace, content: bytes) -> dict[str, Any]:
    """What the artifact's graph tells of its speed, as plain data."""
    return graph_features(content).model_dump()


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _replace(path: Path, document: dict[str, Any]) -> None:
    """Write a YAML file whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".new")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            yaml.safe_dump(document, stream, sort_keys=False, allow_unicode=True, width=120)
        mode = path.stat().st_mode & 0o777
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
