"""Compare with the AutoML tools that a user of tables would reach for: same data, wall time and core.

    python benchmarks/automl.py [tasks=letter,census,flights] [tools=flaml,tpot,autogluon] [seconds=60] [seeds=1]
                                [runs=DIR] [results=DIR]

Each tool is fitted in a virtual environment of its own (runs/automl/venvs/TOOL, made from automl/TOOL.txt), to the
clean training rows, and once more to these and the condition's labelled validation rows, which are what our search
sees. Ours is the local search with real execution, stopped after as many seconds, once with the default reward and once
for accuracy alone. Rows that are there are not run again; docs/automl.md says how the jobs differ.
"""

from __future__ import annotations

import csv
import datetime
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rows import write_csv
from sheets import Sheet, markdown
from suite import HERE, RESULTS, RUNS, BenchmarkError, names, read_arguments, run_script, whole_number
from tqdm import tqdm

from gnncompose.errors import INTERRUPTED
from gnncompose.evaluation.metrics import find_metric
from gnncompose.execution.sessions import PROVIDERS, session_options
from gnncompose.tasks.shipped import open_task
from gnncompose.tasks.task import Task
from gnncompose.tracking.files import write_atomically

sys.path.insert(0, str(HERE / "automl"))
from latency import one_row_latency_ms

CONDITIONS = {
    "letter": ("clean", "eight_bit_missing"),
    "census": ("clean", "months_missing"),
    "flights": ("clean", "seconds_missing"),
}
TOOLS = ("flaml", "tpot", "autogluon")
OURS = {"gnncompose": (), "gnncompose, accuracy alone": ("reward.latency=0", "reward.cost=0")}
COLUMNS = (
    *("task", "condition", "tool", "trained_on", "seed", "seconds", "metric", "validation", "test"),
    *("latency_ms", "latency_ms_p5", "latency_ms_p95", "wall_s", "what", "date"),
)
IDENTITY = COLUMNS[:6]
HEADER = (
    *("task, condition", "tool", "trained on", "seconds", "seeds", "validation", "test", "one row, ms", "wall s"),
    "returns",
)
Row = dict[str, str]
MORE_ROWS = "clean + validation"
MOST_EXTRA_S = 240


@dataclass(frozen=True)
class Place:
    """Where a tool is tried: a task in a condition, a seed, and how long it has."""

    task: str
    condition: str
    seed: int
    seconds: int

    def row(self, tool: str, trained_on: str, found: dict[str, Any]) -> Row:
        """A finished row."""
        values = (self.task, self.condition, tool, trained_on, self.seed, self.seconds)
        row = dict(zip(IDENTITY, values, strict=True)) | found | {"date": datetime.date.today().isoformat()}
        return {name: str(row[name]) for name in COLUMNS}


def environment(tool: str, root: Path) -> Path:
    """The Python of a tool's own environment, which is made where it is missing.

    Raises:
        BenchmarkError: It cannot be installed.
    """
    folder = root / "venvs" / tool
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        wanted = HERE / "automl" / f"{tool}.txt"
        done = subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)], capture_output=True, text=True
        )
        if done.returncode:
            reason = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), done.stderr[-200:])
            raise BenchmarkError(f"tools={tool}: cannot be installed: {reason}; leave it out with tools=…")
        (folder / "installed").touch()
    return python


def fitted(place: Place, task: Task, tool: str, trained_on: str, root: Path) -> dict[str, Any]:
    """Fit a tool in its environment, and score what it answers.

    Raises:
        BenchmarkError: It fails, or does not end.
    """
    folder = root / place.task / place.condition / tool
    folder.mkdir(parents=True, exist_ok=True)
    train, validation, test = (
        task.split("clean" if name == "train" else place.condition, name) for name in ("train", "validation", "test")
    )
    parts = [train, validation] if trained_on == MORE_ROWS else [train]
    np.savez(
        folder / "data.npz",
        train_x=np.concatenate([part.x for part in parts]),
        train_y=np.concatenate([part.y for part in parts]),
        validation_x=validation.x,
        test_x=test.x,
    )
    answers = folder / "answers.npz"
    answers.unlink(missing_ok=True)
    command = [str(environment(tool, root)), str(HERE / "automl" / "fit.py"), tool, str(folder / "data.npz")]
    command += [str(answers), task.metric, str(place.seconds), str(place.seed)]
    with (folder / "fit.log").open("w") as log:
        try:
            subprocess.run(command, stdout=log, stderr=log, cwd=folder, timeout=place.seconds + MOST_EXTRA_S)
        except subprocess.TimeoutExpired:
            print(f"did not end in time: {folder}", file=log)
    if not answers.exists():
        raise BenchmarkError(f"{tool} failed on {place.task}/{place.condition}; see {folder / 'fit.log'}")
    metric, classes = find_metric(task.metric), len(task.classes or ())
    with np.load(answers) as found:
        given = {split: metric.compute(np.eye(classes)[found[split]], task.split(place.condition, split).y)
                 for split in ("validation", "test")}  # fmt: skip
        seen = trained_on == MORE_ROWS
        return {
            "metric": task.metric,
            "validation": "seen" if seen else given["validation"],
            "test": given["test"],
            **_latency([float(value) for value in found["latency_ms"]]),
            "wall_s": round(float(found["wall_s"]), 1),
            "what": str(found["what"]),
        }


def searched(place: Place, task: Task, settings: Sequence[str], root: Path) -> dict[str, Any]:
    """Search with real execution, and stop when the time is over.

    Raises:
        BenchmarkError: The search failed.
    """
    folder = root / place.task / place.condition / f"gnncompose_{len(settings)}"
    command = [sys.executable, str(HERE.parent / "experiments" / "search.py"), f"task={place.task}", "budget=1000000"]
    command += [f"condition={place.condition}", f"seed={place.seed}", "agent=local_search", "evaluator=onnx"]
    command += ["tracker=files", f"hydra.run.dir={folder}", *settings]
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "search.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_hear_interrupts)
        try:
            process.wait(place.seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(MOST_EXTRA_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.returncode not in (0, INTERRUPTED):
        raise BenchmarkError(f"the search of {place.task}/{place.condition} failed; see {folder / 'search.log'}")
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    found, drawn = run["summary"]["found"], json.loads((folder / "best.composition.json").read_text(encoding="utf-8"))
    return {
        "metric": task.metric,
        "validation": found["validation"]["metric"],
        "test": found["test"]["metric"],
        **_latency(one_row_latency_ms(_merged(folder / "best.onnx"), task.split(place.condition, "test").x)),
        "wall_s": round(time.perf_counter() - started, 1),
        "what": f"{run['evaluations']} evaluated; {len(drawn['nodes'])} operators",
    }


def _hear_interrupts() -> None:
    """What a shell runs in the background ignores interrupts, and so would what that starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _merged(path: Path) -> Callable[[np.ndarray], object]:
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), session_options(), providers=list(PROVIDERS))
    name = session.get_inputs()[0].name
    return lambda row: session.run(None, {name: row})


def _latency(found: Sequence[float]) -> dict[str, float]:
    return dict(zip(("latency_ms", "latency_ms_p5", "latency_ms_p95"), found, strict=True))


def missing(
    places: Sequence[Place], tools: Sequence[str], known: set[tuple[str, ...]]
) -> Iterator[tuple[Place, str, str]]:
    """Place, tool and training rows of every row that is not there yet."""
    for place in places:
        contenders = [(tool, rows) for tool in tools for rows in ("clean", MORE_ROWS)]
        contenders += [(ours, "catalog") for ours in OURS]
        for tool, rows in contenders:
            key = (place.task, place.condition, tool, rows, str(place.seed), str(place.seconds))
            if key not in known:
                yield place, tool, rows


def read(path: Path) -> list[Row]:
    """Rows that are there."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(rows: Sequence[Row], folder: Path) -> str:
    """Rows as CSV, and their table as Markdown, which is also returned."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "automl.csv", COLUMNS, rows)
    table = markdown([sheet(rows)])
    write_atomically(folder / "automl.md", table.encode())
    return table


def sheet(rows: Sequence[Row]) -> Sheet:
    """A line for each task, condition and tool: means over seeds, medians of latency."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in IDENTITY if name != "seed"), []).append(row)
    lines = []
    for (task, condition, tool, trained_on, seconds), own in groups.items():
        score, latency_ms, wall_s = ([float(row[name]) for row in own] for name in ("test", "latency_ms", "wall_s"))
        seen = own[0]["validation"] == "seen"
        validation = "(seen)" if seen else f"{np.mean([float(row['validation']) for row in own]):.3f}"
        line = (f"{task}, {condition}", tool, trained_on, seconds, str(len(own)), validation, f"{np.mean(score):.3f}")
        lines.append((*line, f"{np.median(latency_ms):.3f}", f"{np.mean(wall_s):.0f}", own[0]["what"]))
    note = "Each task's own metric. One row: median of 48 rows in 7 rounds, as its user would call what it returns."
    return Sheet("Outside AutoML", HEADER, tuple(lines), note)


def main(arguments: list[str]) -> int:
    defaults = {"tasks": ",".join(CONDITIONS), "tools": ",".join(TOOLS), "seconds": "60", "seeds": "1"}
    given, _ = read_arguments(arguments, {**defaults, "runs": str(RUNS), "results": str(RESULTS)})
    for key, known in (("tasks", tuple(CONDITIONS)), ("tools", TOOLS)):
        if strange := [name for name in names(given[key]) if name not in known]:
            raise BenchmarkError(f"{key}={strange[0]}: is not known; give some of {', '.join(known)}")
    seconds, seeds = (whole_number(key, given[key]) for key in ("seconds", "seeds"))
    root, results = Path(given["runs"]).absolute() / "automl", Path(given["results"])
    os.environ["OMP_NUM_THREADS"] = "1"
    places = [
        Place(task, condition, seed, seconds)
        for seed, task in itertools.product(range(seeds), names(given["tasks"]))
        for condition in CONDITIONS[task]
    ]
    rows, failures = read(results / "automl.csv"), []
    todo = list(missing(places, names(given["tools"]), {tuple(row[name] for name in IDENTITY) for row in rows}))
    for place, tool, trained_on in tqdm(todo, desc="automl", unit="fit", disable=not todo):
        task = open_task(place.task)
        try:
            if tool in OURS:
                found = searched(place, task, OURS[tool], root)
            else:
                found = fitted(place, task, tool, trained_on, root)
        except BenchmarkError as problem:
            failures.append(str(problem))
            continue
        rows = sorted([*rows, place.row(tool, trained_on, found)], key=lambda row: [row[name] for name in IDENTITY])
        write(rows, results)
    print(write(rows, results))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    run_script(main)
