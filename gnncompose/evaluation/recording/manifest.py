"""What a table says of itself: formula and its errors, the optimum under each condition, where the numbers are from."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from gnncompose.composition.enumeration import ClosedSpace
from gnncompose.errors import TableError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.cost_model.figures import closeness
from gnncompose.evaluation.cost_model.memory import fit_memory
from gnncompose.evaluation.recording.answers import timed_rows
from gnncompose.evaluation.recording.files import (
    CLOSURE,
    MANIFEST,
    MEASURED,
    Columns,
    file_sha256,
    read_columns,
    read_json,
    read_space,
    rows_file,
    write_json,
)
from gnncompose.evaluation.recording.formula import Structure, Weights, fit
from gnncompose.evaluation.recording.recipe import Recipe
from gnncompose.evaluation.recording.table import memory_bytes, reached_of, task_document
from gnncompose.evaluation.recording.times import read_times
from gnncompose.evaluation.table import TableEvaluator
from gnncompose.execution.latency import PROTOCOL, Effort
from gnncompose.provenance import git_sha, hardware, versions
from gnncompose.reward import WeightedSum
from gnncompose.tasks.task import Task, World

NEAR_OPTIMUM = 0.01
SPREAD = (5, 25, 50, 75, 95)
TIMED = {"latency": "latency_ms", "cpu": "cpu_ms"}


def write_manifest(name: str, recipe: Recipe, task: Task, folder: Path, world: World, prices: Prices) -> None:
    """Fit the formula, check it, and write down what there is to know of a table.

    A condition of which something was not recorded yet is left out.

    Args:
        name: Of the table.
        recipe: What was recorded.
        task: The part of the task that was.
        folder: Where the table lies.
        world: Resource and load that it was timed in.
        prices: For the rewards.

    Raises:
        TableError: No condition was recorded yet.
    """
    space, _ = read_space(folder, task.catalog, task.input.type)
    task = _recorded(task, folder)
    rows = {condition: read_columns(folder / rows_file(condition)) for condition in task.conditions}
    columns = read_columns(folder / MEASURED)
    known = np.isin(columns["condition"].astype(str), task.conditions)
    measured = {name: values[known] for name, values in columns.items()}
    timed = {
        condition: {
            split: len(timed_rows(world.load, len(task.split(condition, split).x), Effort()))
            for split in ("validation", "test")
        }
        for condition in task.conditions
    }
    formula, check = _fitted(folder, space, task, rows, timed, measured)
    manifest = described(name, recipe, task, folder, world) | {
        "compositions": len(space),
        "chains": len(space.expressions.chains),
        "formula": formula,
        "check": check,
        "conditions": {c: {"timed": timed[c], "data": data_of(task, c)} for c in task.conditions},
    }
    write_json(folder / MANIFEST, manifest)
    for condition in task.conditions:  # told by the table itself, which needs what was just written
        manifest["conditions"][condition] |= _landscape(task, replace(world, condition=condition), prices, folder)
    write_json(folder / MANIFEST, manifest)


def described(name: str, recipe: Recipe, task: Task, folder: Path, world: World) -> dict[str, Any]:
    """What a manifest says of any table; its files are written by now."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (MANIFEST, CLOSURE))
    closure = folder / CLOSURE
    return {
        "format": 1,
        "name": name,
        "task": task_document(task),
        "recipe": recipe.model_dump(mode="json"),
        "limits": asdict(task.limits),
        "catalog_sha256": task.catalog.sha256,
        "closure": read_json(closure) if closure.exists() else None,
        "resource": world.resource,
        "load": world.load,
        "protocol": PROTOCOL,
        "effort": asdict(recipe.effort),
        "hardware": hardware(),
        "versions": versions(),
        "git_sha": git_sha(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "bytes": sum(path.stat().st_size for path in files),
        "sha256": {path.relative_to(folder).as_posix(): file_sha256(path) for path in files},
    }


def _recorded(task: Task, folder: Path) -> Task:
    """The task with the conditions that were answered and timed."""
    found = read_times(folder, "latency_ms")
    conditions = tuple(c for c in task.conditions if c in found and (folder / rows_file(c)).exists())
    if not conditions:
        raise TableError(f"{folder}: no condition was recorded yet; run the stages rows and times first")
    return replace(task, conditions=conditions)


def data_of(task: Task, condition: str) -> dict[str, str]:
    """SHA-256 of the data of each split."""
    return {split: task.split(condition, split).sha256 for split in ("validation", "test")}


def _fitted(
    folder: Path,
    space: ClosedSpace,
    task: Task,
    rows: dict[str, Columns],
    timed: dict[str, dict[str, int]],
    measured: Columns,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The formula as fitted to one part of what was measured, and how it does on the other."""
    picked, conditions = measured["row"].astype(np.int64), measured["condition"]
    structure = Structure(space, picked)
    reached = np.stack([reached_of(rows[c], "validation")[row] for c, row in zip(conditions, picked, strict=True)])
    shares = structure.shares(reached, np.array([timed[c]["validation"] for c in conditions])[:, None])
    parts = {part: np.flatnonzero(measured["part"] == part) for part in ("fit", "check")}
    told = np.array([rows[c]["metric_validation"][row] for c, row in zip(conditions, picked, strict=True)])
    formula: dict[str, Any] = {}
    check: dict[str, Any] = {
        "compositions": len(parts["check"]),
        "fitted_to": len(parts["fit"]),
        "scores_compared": len(told),
        "scores_differing": int((told != measured["metric"]).sum()),
        "median_load_per_core": round(float(np.median(measured["load"])), 2),
    }
    for name, figure in TIMED.items():
        by_condition = read_times(folder, figure)
        times_ms, values = np.stack([by_condition[c] for c in conditions]), measured[figure].astype(np.float64)
        fitting, held = parts["fit"], parts["check"]
        weights = fit(Structure(space, picked[fitting]), times_ms[fitting], shares[fitting], values[fitting])
        formula[name] = weights.to_json()
        told_ms = _told(space, picked[held], times_ms[held], shares[held], weights)
        check[name] = check_of(told_ms, values[held])
    formula["memory"], check["memory"] = _fitted_memory(space, task, measured, parts)
    return formula, check


def _told(
    space: ClosedSpace, rows: np.ndarray, times_ms: np.ndarray, shares: np.ndarray, weights: Weights
) -> np.ndarray:
    """What the formula gives for rows that each lie in a condition of their own."""
    found = np.empty(len(rows))
    for number in range(len(rows)):
        one = slice(number, number + 1)
        found[one] = Structure(space, rows[one]).milliseconds(times_ms[number], shares[one], weights)
    return found


def _fitted_memory(
    space: ClosedSpace, task: Task, measured: Columns, parts: dict[str, np.ndarray]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Formula and error of the peak memory."""
    peaks, picked = measured["peak_memory_bytes"], measured["row"].astype(np.int64)
    fitting, held = (part[peaks[part] > 0] for part in (parts["fit"], parts["check"]))
    if not len(fitting) or not len(held):
        raise TableError(f"table of {task.name}: too little memory was measured; run stage=memory first")
    model = fit_memory([(space.composition(int(picked[n])), task.catalog, int(peaks[n])) for n in fitting])
    told, _ = memory_bytes(Structure(space, picked[held]), task.catalog, asdict(model))
    return asdict(model), {"compositions": len(held), **check_of(told.astype(np.float64), peaks[held])}


def check_of(told: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """How close the figures of a table are to what was measured, rounded."""
    return {name: round(value, 4) for name, value in closeness(told, measured).items() if name != "count"}


def _landscape(task: Task, world: World, prices: Prices, folder: Path) -> dict[str, Any]:
    """Optimum and spread of the default reward on validation data, and how rare good compositions are."""
    evaluator = TableEvaluator(task, world, prices, path=str(folder))
    table, figures = evaluator.table, evaluator.figures()
    rewards = evaluator.rewards(WeightedSum().bind(table.task.catalog, prices, world))
    best = int(rewards.argmax())
    return landscape(
        rewards,
        figures.score,
        singles=[table.row(composition) for composition in table.task.space.single_models()],
        start=table.row(table.task.space.start),
        optimum={
            "composition": str(table.space.composition(best)),
            "id": table.space.composition(best).id,
            "latency_ms_mean": round(float(figures.latency_ms_mean[best]), 5),
            "test_score": float(evaluator.figures("test").score[best]),
        },
    )


def landscape(
    rewards: np.ndarray, scores: np.ndarray, *, singles: Sequence[int], start: int, optimum: dict[str, Any]
) -> dict[str, Any]:
    """What there is to say of the compositions of a table in a condition.

    Args:
        rewards: float64[rows].
        scores: float64[rows].
        singles: Rows of models alone.
        start: Row of the start.
        optimum: What the best row is.
    """
    best = int(rewards.argmax())
    return {
        "optimum": {"reward": float(rewards[best]), "score": float(scores[best])} | optimum,
        "best_score": float(scores.max()),
        "start": float(rewards[start]),
        "best_single": max(float(rewards[row]) for row in singles),
        "share_within_1_percent": float((rewards >= rewards[best] - NEAR_OPTIMUM * abs(rewards[best])).mean()),
        "spread": {f"p{percent}": round(float(np.percentile(rewards, percent)), 5) for percent in SPREAD},
        "standard_deviation": round(float(rewards.std()), 5),
    }
