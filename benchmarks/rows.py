"""Raw rows: one run as one line of a CSV file that holds all that tables need and a replay can check.

A suite's rows lie in one file per agent, so that a new agent brings a new file and changes none.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from suite import RESULTS, BenchmarkError, Cell, Key, Suite

from gnncompose.stats import best_at
from gnncompose.tracking.files import write_atomically
from gnncompose.tracking.finished import read_curve
from gnncompose.tracking.records import METRICS

Row = dict[str, str | int | float | None]
MARKS = (10, 30, 100, 300)
TESTED = ("found", "best_single")
SPLITS = ("validation", "test")
IDENTITY = ("suite", "task", "condition", "agent", "budget", "seed")
# What a replay may change: where, when and how fast.
PROVENANCE = ("wall_s", "date", "git_sha", "versions", "hardware")
TEXTS = {
    *("suite", "task", "condition", "agent", "evaluator", "overrides", "curve", "found_id", "found", "best_single_id"),
    *("date", "git_sha", "versions", "hardware"),
}
INTEGERS = {"budget", "seed", "evaluations"}
COLUMNS = (
    *IDENTITY,
    *("evaluator", "overrides", "evaluations", "optimum"),
    *(f"best_at_{mark}" for mark in MARKS),
    *(
        f"{who}_{name}"
        for who in TESTED
        for name in ("id", "reward", *(f"{split}_{name}" for split in SPLITS for name in METRICS))
    ),
    *PROVENANCE,
    *("curve", "found"),
)


def row_of(cell: Cell, folder: Path, optimum: float | None) -> Row:
    """The row of a completed run.

    Args:
        cell: Whose run it is.
        folder: The run's.
        optimum: Reward of the best composition of the space; None where it is not known.

    Raises:
        BenchmarkError: A file of the folder is damaged.
    """
    try:
        return _row_of(cell, folder, optimum)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BenchmarkError(
            f"{folder}: is damaged ({type(problem).__name__}: {problem}); remove it, and run it again"
        ) from None


def _row_of(cell: Cell, folder: Path, optimum: float | None) -> Row:
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    curve = _curve(folder)
    row: Row = dict(zip(IDENTITY, cell.key, strict=True))
    row |= {"evaluator": cell.evaluator, "overrides": " ".join(cell.overrides), "evaluations": run["evaluations"]}
    row |= {"optimum": optimum, **marked(curve, cell.budget)}
    for who in TESTED:
        result = run["summary"][who]
        row |= {f"{who}_{name}": result[name] for name in ("id", "reward")}
        row |= {f"{who}_{split}_{name}": result[split][name] for split in SPLITS for name in METRICS}
    finished = datetime.datetime.fromtimestamp((folder / "run.json").stat().st_mtime, datetime.UTC)
    row |= {"wall_s": run["wall_s"], "date": finished.date().isoformat(), "git_sha": run["git_sha"]}
    row |= {name: json.dumps(run[name], sort_keys=True) for name in ("versions", "hardware")}
    composition = json.loads((folder / "best.composition.json").read_text(encoding="utf-8"))
    return row | {"curve": json.dumps(curve), "found": json.dumps(composition)}


def _curve(folder: Path) -> list[list[float]]:
    """Pairs of an evaluation and the best reward that it raised the run to."""
    spent, best = read_curve(folder)
    steps: dict[int, float] = {}
    for evaluation, reward in zip(spent.tolist(), best.tolist(), strict=True):
        if not steps or reward > steps[max(steps)]:
            steps[evaluation] = reward
    return [[evaluation, reward] for evaluation, reward in steps.items()]


def marked(curve: Sequence[Sequence[float]], budget: int) -> Row:
    """The best so far at each mark that lies within the budget."""
    evaluations, best = (np.array(axis) for axis in zip(*curve, strict=True))
    reached = best_at(evaluations, best, MARKS)
    inside = [mark <= budget and np.isfinite(value) for mark, value in zip(MARKS, reached, strict=True)]
    return {f"best_at_{m}": float(v) if i else None for m, v, i in zip(MARKS, reached, inside, strict=True)}


def key_of(row: Row) -> Key:
    """What tells the row from all others."""
    return tuple(row[name] for name in IDENTITY)  # type: ignore[return-value]


def differing(row: Row, other: Row) -> list[str]:
    """Columns in which two rows differ, those left out that a replay may change."""
    return [name for name in COLUMNS if name not in PROVENANCE and row[name] != other[name]]


def curve_of(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Evaluations and best rewards of the row's curve.

    Raises:
        BenchmarkError: It is no rising curve.
    """
    steps = _steps(str(row["curve"]))
    if steps is None:
        raise BenchmarkError(f"{name_of(row)}: curve is no list of rising [evaluation, reward]; restore the row")
    return steps


@cache  # tables ask for the same curves again and again
def _steps(text: str) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        pairs = np.array(json.loads(text), dtype=float)
        evaluations, best = pairs[:, 0], pairs[:, 1]
    except (ValueError, IndexError):
        return None
    rises = np.all(np.diff(evaluations) > 0) and np.all(np.diff(best) > 0) and np.isfinite(pairs).all()
    return (evaluations, best) if rises else None


def name_of(row: Row) -> str:
    """The row in words."""
    return f"{row['task']}/{row['condition']}/{row['agent']}/budget {row['budget']}/seed {row['seed']}"


def of_suite(name: str, suite: Suite, rows: Iterable[Row]) -> dict[Key, Row]:
    """The rows, by key, that were made with the settings that the suite has now.

    Raises:
        BenchmarkError: One stands twice.
    """
    rows = list(rows)
    cells = suite.known_cells(name, sorted({str(row["agent"]) for row in rows}))
    found: dict[Key, Row] = {}
    for row in rows:
        key = key_of(row)
        if key in cells and row["overrides"] == " ".join(cells[key].overrides):
            if key in found:
                raise BenchmarkError(f"{name_of(row)}: stands twice; drop one")
            found[key] = row
    return found


def write_rows(rows: Iterable[Row], directory: Path, emptied: Iterable[str] = ()) -> list[Path]:
    """Write a file for each agent, which is replaced whole; other agents' files stay.

    Args:
        rows: What to write.
        directory: Where the files go.
        emptied: Agents whose file is removed where they have no row.
    """
    agents: dict[str, list[Row]] = {}
    for row in rows:
        agents.setdefault(str(row["agent"]), []).append(row)
    directory.mkdir(parents=True, exist_ok=True)
    for agent, own in agents.items():
        write_csv(directory / f"{agent}.csv", COLUMNS, sorted(own, key=key_of))
    for agent in set(emptied) - set(agents):
        (directory / f"{agent}.csv").unlink(missing_ok=True)
    return [directory / f"{agent}.csv" for agent in sorted(agents)]


def publish(name: str, table: str, files: Sequence[Path] = ()) -> Path:
    """Put a table, and copies of the files that it is made from, into a folder of the results; the folder."""
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "table.md", table.encode())
    for path in files:
        shutil.copy(path, folder / path.name)
    return folder


def read_csv(path: Path) -> list[dict[str, object]]:
    """Rows of a file, as text; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [dict(line) for line in csv.DictReader(file)]


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a CSV file whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def read_rows(directory: Path, agents: Sequence[str] = ()) -> list[Row]:
    """Rows of a folder, of all agents or of these.

    Raises:
        BenchmarkError: A file has other columns, or a value that is no number where one belongs.
    """
    rows = []
    for path in sorted(directory.glob("*.csv")):
        if agents and path.stem not in agents:
            continue
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise BenchmarkError(f"{path}: has other columns than rows have; make it anew with benchmarks/run.py")
            rows += [_parsed(line, f"{path}: line {reader.line_num}") for line in reader]
    return rows


def _parsed(line: dict[str, str], where: str) -> Row:
    row: Row = {}
    for name, text in line.items():
        try:
            if name in TEXTS:
                row[name] = text
            elif name in INTEGERS:
                row[name] = int(text)
            else:
                row[name] = float(text) if text else None
        except (TypeError, ValueError):  # None where a line is too short
            raise BenchmarkError(f"{where}: {name} is {text!r}, no number; restore the line or drop it") from None
    return row
