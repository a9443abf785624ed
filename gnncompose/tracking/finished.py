"""Run folders that are complete, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gnncompose.composition.tree import INPUT_ID
from gnncompose.errors import GnncomposeError
from gnncompose.resuming import CARD, RUN
from gnncompose.tracking.records import front_of

EVALUATIONS = "evaluations.parquet"
COLUMNS = (
    *("index", "composition_id", "composition", "score", "latency_ms_mean", "cost_usd_per_million"),
    *("reward", "best_reward", "measurements"),
)
FIGURES = ("score", "latency_ms_mean", "cost_usd_per_million")


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A search that went on to its end, as its folder tells of it.

    Attributes:
        folder: Its folder.
        record: The document of run.json.
        rows: Those of evaluations.parquet that were measured; those predicted only where there is nothing else.
        found: The composition found, as its file has it.
        drawing: The drawing of it, an SVG file; None where the folder has none.
    """

    folder: Path
    record: dict[str, Any]
    rows: list[dict[str, Any]]
    found: dict[str, Any]
    drawing: str | None

    @property
    def front(self) -> list[dict[str, Any]]:
        """The rows that no other beats in score, mean latency and cost together, fastest first."""
        measured = [row for row in self.rows if row["score"] is not None]
        if not measured:
            return []
        figures = np.array([[row[name] for name in FIGURES] for row in measured], dtype=np.float64)
        return [measured[number] for number in front_of(figures)]

    @property
    def metric(self) -> str:
        """Name of the task's metric."""
        return str(self.record.get("metric", "metric"))


def read_run(folder: Path) -> FinishedRun:
    """Read a run folder.

    Raises:
        GnncomposeError: It is no folder of a complete search.
    """
    if not folder.is_dir():
        raise GnncomposeError(f"{folder}: there is no such run folder; name folders that gnncompose search wrote")
    try:
        record = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (folder / CARD).is_file():
            raise GnncomposeError(f"{folder}: holds a training; name folders that gnncompose search wrote") from None
        begun = (folder / ".hydra").is_dir()
        mend = f"go on with it by gnncompose search resume={folder}" if begun else "name a folder with a run.json"
        raise GnncomposeError(f"{folder}: holds no complete run: {RUN} is missing; {mend}") from None
    except (OSError, ValueError) as problem:
        raise GnncomposeError(f"{folder / RUN}: is not readable: {problem}; run the search again") from None
    if not isinstance(record, dict) or not isinstance(record.get("summary"), dict):
        raise GnncomposeError(f"{folder / RUN}: is no record of a search; name a folder that gnncompose search wrote")
    if record.get("interrupted"):
        raise GnncomposeError(
            f"{folder}: was interrupted after {record.get('evaluations')} of {record.get('budget')} evaluations; go on "
            f"with it by gnncompose search resume={folder}"
        )
    try:
        found = json.loads((folder / "best.composition.json").read_text(encoding="utf-8"))
        rows = _rows(folder / EVALUATIONS)
        text_of(found)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise GnncomposeError(f"{folder}: is damaged: {problem}; run the search again") from None
    drawing = folder / "best.svg"
    return FinishedRun(folder, record, rows, found, drawing.read_text("utf-8") if drawing.is_file() else None)


def read_curve(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """What a run came to: evaluations spent, and the best reward by then: int64[trial], float64[trial].

    Predictions that cost nothing take no evaluation.

    Raises:
        OSError, ValueError: evaluations.parquet is missing or damaged.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    path = folder / EVALUATIONS
    try:
        table = parquet.read_table(path, columns=["measurements", "best_reward"])
    except arrow.ArrowException as problem:
        raise ValueError(f"{path.name}: {problem}") from None
    return np.cumsum(table["measurements"].to_numpy()), table["best_reward"].to_numpy()


def _rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        rows = parquet.read_table(path, columns=list(COLUMNS)).to_pylist()
    except arrow.ArrowException as problem:
        raise ValueError(f"{path.name}: {problem}") from None
    if not rows or any(name not in rows[0] for name in COLUMNS):
        raise ValueError(f"{path.name} lacks rows or columns")
    return [row for row in rows if row["measurements"]] or rows


def text_of(document: Mapping[str, Any]) -> str:
    """A composition's file as one line, without the catalog that it was made from; see `composition.tree.describe`."""
    nodes = {node["id"]: node for node in document["nodes"]}
    inputs: dict[str, dict[int, str]] = {key: {} for key in nodes}
    for source, target, port in document["edges"]:
        inputs[target][port] = source

    def text(key: str) -> str:
        if key == INPUT_ID:
            return INPUT_ID
        node = nodes[key]
        shown = [f"{name}={_number(value)}" for name, value in node.get("parameters", {}).items()]
        inner = ", ".join(text(inputs[key][port]) for port in sorted(inputs[key]))
        return f"{node['operator']}{'[' + ', '.join(shown) + ']' if shown else ''}({inner})"

    return text(document["output"])


def _number(value: float | list[float]) -> str:
    return "/".join(f"{number:g}" for number in value) if isinstance(value, list) else f"{value:g}"
