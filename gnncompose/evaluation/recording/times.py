"""Timing what a table's formula needs, and whole compositions that tell how close it is; by the usual protocol."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from gnncompose.composition.enumeration import ClosedSpace
from gnncompose.composition.tree import Composition, Node
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.evaluation.recording.files import MEASURED, TIMES, Columns, read_columns, write_columns
from gnncompose.evaluation.recording.recipe import Recipe
from gnncompose.execution.memory import peak_memory_bytes

SAVE_EVERY = 25


class Compositions(Protocol):
    """Compositions by number."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def composition(self, row: int) -> Composition:
        """The composition of a number."""
        ...


def load_per_core() -> float:
    """Processes that wanted a core in the last minute, for each core there is; this one is among them."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def time_expressions(
    folder: Path, condition: str, space: ClosedSpace, evaluator: OnnxEvaluator, tell: Callable[[int], None]
) -> None:
    """Time every expression of a space in a condition, alone; one that was timed already is not timed again.

    Raises:
        EvaluationError: One does not run.
    """
    path = folder / TIMES
    columns = read_columns(path) if path.exists() else {}
    if columns and (columns["condition"] == condition).any():
        return
    found: dict[str, list[float]] = {"latency_ms": [], "cpu_ms": [], "load": []}
    for node in space.expressions.all:
        if isinstance(node, Node):
            measured = evaluator.measure(Composition(node))
            found["latency_ms"].append(measured.latency_ms_mean)
            found["cpu_ms"].append(measured.cpu_ms)
            found["load"].append(load_per_core())
            tell(1)
    count = len(space.expressions.all) - 1
    new: Columns = {
        "condition": np.full(count, condition),
        "expression": np.arange(1, count + 1, dtype=np.uint16),
        **{name: np.array(values, dtype=np.float32) for name, values in found.items()},
    }
    write_columns(path, _joined(columns, new))


def read_times(folder: Path, figure: str) -> dict[str, np.ndarray]:
    """By condition, float64[expressions]: `latency_ms` or `cpu_ms` of each one; 0 for the task's input.

    Raises:
        TableError: Nothing was timed yet.
    """
    columns = read_columns(folder / TIMES)
    found: dict[str, np.ndarray] = {}
    for condition in dict.fromkeys(columns["condition"].tolist()):
        here = columns["condition"] == condition
        found[condition] = np.zeros(int(here.sum()) + 1)
        found[condition][columns["expression"][here]] = columns[figure][here]
    return found


def drawn(recipe: Recipe, rows: int, conditions: tuple[str, ...]) -> Columns:
    """What is really measured: rows of the table, the condition of each, whether it is for the fit or the check.

    Rows are drawn evenly from the table, without repetition; the order is that of the conditions.
    """
    generator = np.random.default_rng([recipe.seed, rows])
    count = min(recipe.fit + recipe.check, rows)
    picked = generator.choice(rows, size=count, replace=False)
    chosen = generator.integers(len(conditions), size=count)
    fitted = generator.permutation(count) < min(recipe.fit, count - 1)
    order = np.argsort(chosen, kind="stable")
    return {
        "condition": np.array(conditions)[chosen[order]],
        "row": picked[order].astype(np.uint32),
        "part": np.where(fitted, "fit", "check")[order],
    }


def measure_compositions(
    folder: Path,
    wanted: Mapping[str, np.ndarray],
    condition: str,
    space: Compositions,
    evaluator: OnnxEvaluator,
    used: Callable[[Composition, OnnxEvaluator], dict[str, float]],
    tell: Callable[[int], None],
) -> None:
    """Really evaluate what was drawn for a condition; what was evaluated already is not evaluated again.

    Args:
        folder: Of the table.
        wanted: What was drawn.
        condition: Of which this is measured now.
        space: The compositions.
        evaluator: In this condition.
        used: What to note beside of each composition, as columns.
        tell: Is told of each.

    Raises:
        EvaluationError: A composition does not run.
    """
    path = folder / MEASURED
    columns = read_columns(path) if path.exists() else {}
    here = wanted["condition"] == condition
    known = set(columns["row"][columns["condition"] == condition].tolist()) if columns else set[int]()
    left = [
        (row, part) for row, part in zip(wanted["row"][here], wanted["part"][here], strict=True) if row not in known
    ]
    for start in range(0, len(left), SAVE_EVERY):
        found: list[dict[str, float]] = []
        some = left[start : start + SAVE_EVERY]
        for row, _ in some:
            composition = space.composition(int(row))
            evaluation = evaluator.evaluate(composition)
            figures = {"latency_ms": evaluation.latency_ms_mean, "cpu_ms": evaluation.cpu_ms, "load": load_per_core()}
            found.append(figures | used(composition, evaluator) | {"metric": evaluation.metric})
            tell(1)
        new: Columns = {
            "condition": np.full(len(some), condition),
            "row": np.array([row for row, _ in some], dtype=np.uint32),
            "part": np.array([str(part) for _, part in some]),
            **{name: np.array([told[name] for told in found], dtype=np.float32) for name in found[0]},
            "metric": np.array([told["metric"] for told in found]),
            "peak_memory_bytes": np.zeros(len(some), dtype=np.int64),
        }
        columns = _joined(columns, new)
        write_columns(path, columns)


def measure_memory(
    folder: Path, count: int, space: Compositions, evaluator: OnnxEvaluator, tell: Callable[[int], None]
) -> None:
    """Measure the peak memory of so many of the compositions that were evaluated, evenly spread over them.

    Raises:
        EvaluationError: A composition does not run.
    """
    columns = read_columns(folder / MEASURED)
    memory = columns["peak_memory_bytes"].copy()
    spread = np.unique(np.linspace(0, len(memory) - 1, min(count, len(memory))).astype(np.int64))
    x = evaluator.task.split(evaluator.world.condition, "validation").x
    for number in spread[memory[spread] == 0]:
        composition = space.composition(int(columns["row"][number]))
        memory[number] = peak_memory_bytes(composition, evaluator.task.catalog, x)
        tell(1)
    write_columns(folder / MEASURED, {**columns, "peak_memory_bytes": memory})


def _joined(columns: Mapping[str, np.ndarray], new: Columns) -> Columns:
    return {name: np.concatenate([columns[name], values]) for name, values in new.items()} if columns else new
