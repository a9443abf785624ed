"""Fill the missing rows of a suite: every task, condition, agent, budget and seed is one search.

    python benchmarks/run.py [suite=small] [jobs=N] [agents=A,B] [tasks=A,B] [runs=DIR] [published=DIR]
        [hydra/launcher=…]

A row is there when its run folder holds a run.json made with the suite's settings, so a suite that was stopped, or
killed, goes on where it was. With `published=benchmarks/results` the rows that lie there are there, too, and not run:
so days, or machines, can share a suite. `jobs` searches run side by side, by default one a core, through Hydra's joblib
launcher; another launcher is given as to any Hydra app. The rows go to runs/SUITE/rows/, a file for each agent; what
failed is listed at the end, and the exit code is 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from launching import launch, prepare
from rows import Row, key_of, read_rows, row_of, write_rows
from suite import RUNS, Cell, Key, load_suite, names, read_arguments, run_script, whole_number

from gnncompose.resuming import occupied

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fill(name: str, cells: Sequence[Cell], root: Path, jobs: int, launcher: Sequence[str]) -> dict[Cell, str]:
    """Run what is missing, write the rows of all that is there; returns the reasons of what failed."""
    optima = prepare(cells)
    missing = [cell for cell in cells if not cell.is_done(root)]
    if missing:
        print(f"{name}: {len(missing)} of {len(cells)} rows are missing; they go to {root / 'rows'}", flush=True)
    rewrite(root, missing, {})  # an older run's row must not stand for one that is missing
    failures = launch(missing, root, jobs, launcher, name) if missing else {}
    done = [cell for cell in cells if cell not in failures]
    rewrite(root, cells, {c.key: row_of(c, root / c.folder, optima[c.task, c.condition]) for c in done})
    print(f"{name}: {len(cells)} rows, {len(cells) - len(missing)} were there, {len(failures)} failed")
    return failures


def rewrite(root: Path, cells: Sequence[Cell], rows: Mapping[Key, Row]) -> None:
    """Put these rows in the place of all those of some cells."""
    agents = {cell.agent for cell in cells}
    (root / "rows").mkdir(parents=True, exist_ok=True)
    with occupied(root / "rows", waits=True):
        known = {key_of(row): row for row in read_rows(root / "rows", sorted(agents))} if agents else {}
        others = {key: row for key, row in known.items() if key not in {cell.key for cell in cells}}
        write_rows({**others, **rows}.values(), root / "rows", agents)


def without(rows: Sequence[Row], cells: Sequence[Cell]) -> list[Cell]:
    """The cells that none of the rows is there for, with the same settings."""
    there = {(key_of(row), row["overrides"]) for row in rows}
    return [cell for cell in cells if (cell.key, " ".join(cell.overrides)) not in there]


def main(arguments: list[str]) -> int:
    known = {"suite": "small", "jobs": str(CORES), "agents": "", "tasks": "", "runs": str(RUNS), "published": ""}
    given, launcher = read_arguments(arguments, known)
    name, suite = load_suite(given["suite"])
    cells = suite.cells(name, names(given["agents"]), names(given["tasks"]))
    if given["published"]:
        cells = without(read_rows(Path(given["published"]) / name / "rows"), cells)
    root = Path(given["runs"]).absolute() / name
    failures = fill(name, cells, root, whole_number("jobs", given["jobs"]), launcher)
    for cell, reason in failures.items():
        print(f"failed: {cell.folder}: {reason}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    run_script(main)
