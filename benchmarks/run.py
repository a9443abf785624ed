"""Run the missing rows of a suite: every task, condition, agent and seed is one search in a process of its own.

    python benchmarks/run.py suite=fashion jobs=2

A row is done when its run folder holds a run.json, so an interrupted suite goes on where it stopped.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import yaml
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
RUNS = HERE.parent / "runs"


@dataclass(frozen=True)
class Suite:
    """What a suite's YAML file holds."""

    name: str
    tasks: list[str]
    conditions: list[str]
    agents: list[str]
    seeds: int
    budget: int
    overrides: list[str]


def load_suite(name: str) -> Suite:
    path = HERE / "suites" / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        sys.exit(f"error: suite={name}: there is no such suite; use one of {known}")
    return Suite(**yaml.safe_load(path.read_text(encoding="utf-8")))


def rows(suite: Suite) -> dict[Path, list[str]]:
    """Run folder and overrides of every row; seeds outermost, so that a stopped suite is balanced."""
    found = {}
    cells = itertools.product(range(suite.seeds), suite.tasks, suite.conditions, suite.agents)
    for seed, task, condition, agent in cells:
        folder = RUNS / suite.name / task / condition / agent / f"seed_{seed}"
        row = [f"task={task}", f"condition={condition}", f"agent={agent}", f"budget={suite.budget}", f"seed={seed}"]
        found[folder] = [*row, *suite.overrides, f"hydra.run.dir={folder}"]
    return found


def run_row(overrides: list[str]) -> str | None:
    """Run one search; the last line of its errors where it failed."""
    command = [sys.executable, str(HERE.parent / "experiments" / "search.py"), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]


def main() -> None:
    arguments = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    if unknown := arguments.keys() - {"suite", "jobs"}:
        sys.exit(f"error: {sorted(unknown)[0]}: unknown; usage: python benchmarks/run.py suite=NAME [jobs=N]")
    suite = load_suite(arguments.get("suite", "small"))
    missing = {folder: row for folder, row in rows(suite).items() if not (folder / "run.json").exists()}
    failures = {}
    with ThreadPoolExecutor(int(arguments.get("jobs", "1"))) as pool:
        running = {pool.submit(run_row, row): folder for folder, row in missing.items()}
        for future in tqdm(as_completed(running), total=len(running), desc=suite.name, unit="run"):
            if reason := future.result():
                failures[running[future]] = reason
    for folder, reason in failures.items():
        print(f"failed: {folder.relative_to(RUNS)}: {reason}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
