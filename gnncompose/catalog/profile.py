"""Profiles: what each operator of a bundle takes alone, measured and written into its `catalog.yaml`."""

from __future__ import annotations

import datetime
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.graph import graph_features
from gnncompose.catalog.operator import Operator, Profile
from gnncompose.composition.chains import shortest_chains
from gnncompose.composition.tree import Composition, Input, Node, make_node
from gnncompose.errors import CatalogError, EvaluationError
from gnncompose.evaluation.metrics import find_metric
from gnncompose.execution.latency import measure, sample_rows
from gnncompose.execution.memory import MemoryProbe
from gnncompose.execution.outputs import OutputCache, operator_function, whole_split_output
from gnncompose.execution.sessions import SessionPool, read_artifact
from gnncompose.provenance import hardware
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task

ROWS = 32
REPEATS = 5
SMALL_BATCH = 8
BATCH = 64
BATCH_REPEATS = 7


def profile_catalog(directory: Path, progress: Callable[[str], None] = lambda name: None) -> Catalog:
    """Measure every operator of a bundle that has an artifact, and write the profiles into its catalog.

    Each operator runs alone on clean validation data, brought to it by the shortest chain of operators.
    Everything else in `catalog.yaml` stays, but for comments, which YAML's writer does not keep.

    Args:
        directory: The bundle.
        progress: Called with the name of each operator when it is done.

    Returns:
        The catalog with its new profiles.

    Raises:
        TaskError: The bundle is not readable.
        CatalogError: An operator does not run, or nothing leads to it; nothing is written then.
    """
    task = load_task(directory)
    profiler = _Profiler(task)
    profiles: dict[str, Profile] = {}
    for operator in task.catalog.operators:
        if operator.artifact is not None:
            try:
                profiles[operator.name] = profiler.profile(operator)
            except EvaluationError as problem:
                raise CatalogError(f'catalog.yaml: operator "{operator.name}" does not run: {problem}') from None
            progress(operator.name)
    profiler.probe.close()
    path = directory / "catalog.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in document["operators"]:
        if entry["name"] in profiles:
            entry["profile"] = profiles[entry["name"]].model_dump(mode="json", exclude_none=True)
    _replace(path, document)
    return load_task(directory).catalog


class _Profiler:
    """Measures operators of one task one by one."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.split = task.split("clean", "validation")
        self.sessions = SessionPool(task.catalog)
        self.cache = OutputCache()
        self.probe = MemoryProbe()
        self.chains = shortest_chains(task.catalog, task.input.type)
        machine = hardware()
        self.hardware = f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}"

    def profile(self, operator: Operator) -> Profile:
        """What one operator takes alone; raises where no chain leads to it or it does not run."""
        node, arrays = self._applied(operator)
        function = operator_function(node, self.sessions)
        rows = sample_rows(len(arrays[0]), ROWS)
        single = measure(function, [[array[row : row + 1].copy() for array in arrays] for row in rows], REPEATS)
        batch = [np.resize(array, (BATCH, *array.shape[1:])) for array in arrays]
        together = measure(function, [batch], BATCH_REPEATS)
        few = measure(function, [[array[:SMALL_BATCH].copy() for array in batch]], BATCH_REPEATS)
        content = read_artifact(operator, self.task.catalog)
        return Profile(
            latency_ms=_rounded(float(np.median(single.samples_ms, axis=1).mean())),
            latency_ms_batch8=_rounded(float(np.median(few.samples_ms))),
            latency_ms_batch64=_rounded(float(np.median(together.samples_ms))),
            cpu_ms=_rounded(single.cpu_ms),
            peak_memory_bytes=self._peak_memory(node, arrays),
            artifact_bytes=len(content),
            weights=count_weights(onnx.load_model_from_string(content)),
            score=self._score(operator),
            row_deviation=_rounded(row_deviation(function, batch)),
            graph=graph_features(content),
            hardware=self.hardware,
            measured_at=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )

    def _applied(self, operator: Operator) -> tuple[Node, list[np.ndarray]]:
        """The operator on what the shortest chain gives it, and the arrays that this is."""
        if operator.kind == "router":
            source = next(
                (
                    c
                    for c in (*self.chains.values(), Input(self.task.input.type))
                    if operator.inputs[0].type.accepts(c.type, {})
                ),
                None,
            )
            if source is None:
                raise CatalogError(f'catalog.yaml: no chain leads to router "{operator.name}"; add a transform')
            alone = operator.model_copy(update={"kind": "transform"})
            node = make_node(alone, [source])
        elif operator.name in self.chains:
            node = self.chains[operator.name]
        else:
            raise CatalogError(
                f'catalog.yaml: operator "{operator.name}": no chain of operators leads from {self.task.input.type} '
                f"to it; add one that gives {operator.inputs[0].type}"
            )
        return node, [self._output(child) for child in node.inputs]

    def _output(self, expression: Node | Input) -> np.ndarray:
        if isinstance(expression, Input):
            return self.split.x
        return whole_split_output(Composition(expression), self.split, self.sessions, self.cache)

    def _peak_memory(self, node: Node, arrays: list[np.ndarray]) -> int:
        """Of a process that serves the operator alone; with its chain where it has several inputs."""
        if len(arrays) > 1:
            return self.probe.peak_memory_bytes(Composition(node), self.task.catalog, self.split.x)
        alone = make_node(node.operator, [Input(node.inputs[0].type)], dict(node.parameters))
        return self.probe.peak_memory_bytes(Composition(alone), self.task.catalog, arrays[0])

    def _score(self, operator: Operator) -> float | None:
        """On clean validation, of a model whose chain answers the task."""
        chain = self.chains.get(operator.name)
        if operator.kind != "model" or chain is None or not self.task.output.type.accepts(chain.type, {}):
            return None
        metric = find_metric(self.task.metric)
        return _rounded(metric.score(metric.compute(self._output(chain), self.split.y)))


def row_deviation(function: Callable[[list[np.ndarray]], np.ndarray], batch: list[np.ndarray]) -> float:
    """Largest difference between rows that run together and the same rows alone; 0 or 1 for text."""
    together = function(batch)
    alone = np.concatenate([function([array[i : i + 1] for array in batch]) for i in range(len(batch[0]))])
    if not np.issubdtype(together.dtype, np.number):
        return float((together != alone).any())
    return float(np.abs(together.astype(np.float64) - alone).max())


def count_weights(model: onnx.ModelProto) -> int:
    """Numbers that an artifact carries: initialisers, constants, and lists in attributes, as trees have."""
    total = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    for node in model.graph.node:
        for attribute in node.attribute:
            total += len(attribute.floats)
            if attribute.HasField("t"):
                total += int(np.prod(attribute.t.dims))
    return total


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
