"""Evaluations as rows of the store, and back."""

from __future__ import annotations

import datetime
import json
import math
import zlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gnncompose.errors import EvaluationError
from gnncompose.evaluation.evaluation import Evaluation, Measurement
from gnncompose.evaluation.store.schema import FIGURES, PERCENTILES
from gnncompose.provenance import git_sha, hardware, versions

if TYPE_CHECKING:
    import sqlalchemy as sql

    from gnncompose.evaluation.cost import Prices
    from gnncompose.evaluation.store.key import Key
    from gnncompose.tasks.task import World

INTEGERS = ("peak_memory_bytes", "artifact_bytes")
REASON_LIMIT = 2000  # characters


def evaluation_row(key: Key, evaluation: Evaluation) -> dict[str, Any]:
    """The row of an evaluation that was measured.

    Raises:
        EvaluationError: It has no measurement, or a figure of it is no number.
    """
    measurement = evaluation.measurement
    if measurement is None or evaluation.is_predicted:
        raise EvaluationError("an evaluation without its measurement cannot be stored")
    figures = {
        name: getattr(evaluation if hasattr(evaluation, name) else measurement, name) for name in FIGURES + PERCENTILES
    }
    broken = [name for name, value in figures.items() if not (value is None or math.isfinite(value))]
    if broken:
        raise EvaluationError(f"{broken[0]} of composition {key.composition_id} is {figures[broken[0]]}, no number")
    kinds = {name: int if name in INTEGERS else float for name in figures}
    return {
        **key.columns,
        **{name: None if value is None else kinds[name](value) for name, value in figures.items()},
        "failure": None,
        "samples": zlib.compress(np.ascontiguousarray(measurement.samples_ms, dtype="<f8").tobytes()),
        "repeats": measurement.samples_ms.shape[1],
        "noise": float(measurement.noise) if math.isfinite(measurement.noise) else None,
        "wall_s": float(evaluation.wall_s),
        "evaluator": evaluation.evaluator,
        **(measurement.origin or origin()),
        **_now(),
    }


def failure_row(key: Key, reason: str, evaluator: str, wall_s: float) -> dict[str, Any]:
    """The row of an evaluation that failed; its reason becomes one line without control characters."""
    printable = "".join(letter if letter.isprintable() else " " for letter in reason)
    return {
        **key.columns,
        "failure": " ".join(printable.split())[:REASON_LIMIT],
        "wall_s": float(wall_s),
        "evaluator": evaluator,
        **origin(),
        **_now(),
    }


def row_evaluation(row: sql.RowMapping, world: World, split: str, prices: Prices) -> Evaluation:
    """The evaluation of a row, at today's prices.

    Raises:
        EvaluationError: The resource has no price.
    """
    figures: dict[str, Any] = {name: row[name] for name in FIGURES + PERCENTILES if name != "reference_ms"}
    measurement = Measurement(
        samples_ms=row_samples_ms(row["samples"], row["repeats"]),
        cpu_ms=row["cpu_ms"],
        throughput_per_s=row["throughput_per_s"],
        peak_memory_bytes=row["peak_memory_bytes"],
        artifact_bytes=row["artifact_bytes"],
        reference_ms=row["reference_ms"],
        noise=math.nan if row["noise"] is None else row["noise"],  # the first stores did not keep it
    )
    occupied_ms = 1000 / row["throughput_per_s"]
    cost = prices.usd_per_million(row["resource"], row["cpu_ms"], row["peak_memory_bytes"], occupied_ms)
    return Evaluation(
        composition_id=row["composition_id"],
        world=world,
        split=split,
        cost_usd_per_million=cost,
        evaluator=row["evaluator"],
        cached=True,
        wall_s=row["wall_s"] or 0.0,
        measurement=measurement,
        **figures,
    )


def row_samples_ms(packed: bytes, repeats: int) -> np.ndarray:
    """The raw samples of a row, float64[requests, repeats]."""
    return np.frombuffer(zlib.decompress(packed), dtype="<f8").reshape(-1, repeats)


def moment(when: datetime.datetime) -> str:
    """A moment as the store writes it: in UTC, to the second, so that text order is time order."""
    return when.astimezone(datetime.UTC).isoformat(timespec="seconds")


def _now() -> dict[str, str]:
    return {"measured_at": moment(datetime.datetime.now(datetime.UTC))}


@cache
def origin() -> dict[str, str | None]:
    """Hardware, versions and commit of this process, as rows note them."""
    return {
        "hardware": ", ".join(f"{name}: {value}" for name, value in hardware().items()),
        "versions": json.dumps(versions()),
        "git_sha": git_sha(),
    }
