"""False alarms of drift detectors, and how soon they notice that the data changed.

    python benchmarks/drift.py [tasks=digits,letter] [seeds=10] [rows=10000] [inputs=train] [jobs=1] [publish=true]

The deployed composition is the task's start. Its answers come from real runs on the test split of each condition; a
stream draws rows of such a split with replacement. The reference is clean validation; with `inputs=train` its inputs
are those of train. A stream of `rows` clean rows counts false alarms; after one the monitor begins anew. Then, for each
other condition and seed, the data change at a random row between 500 and 2,000, and the delay is the number of rows
until the first alarm after it; 2,000 rows without one are a miss. Labels come 200 rows late. Rows are looked at 32 at a
time, and an alarm counts when its block is full.

With `publish=true` rows and table go to benchmarks/results/drift/. The last line is one JSON object.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rows import publish, write_csv
from sheets import Sheet, markdown
from suite import names, read_arguments, run_script, whole_number

from gnncompose.adaptation.detectors import BLOCK, Adwin, Detector, PageHinkley, PopulationStability
from gnncompose.adaptation.drift import DETECTORS, Alarm, DriftMonitor, Reference
from gnncompose.tasks.task import Task

TASKS = "digits,letter,census,flights"
EARLIEST, LATEST, PATIENCE, LABELS_LATE = 500, 2000, 2000, 200
# Which detectors, and whether labels come.
WAYS: dict[str, tuple[Sequence[Detector], bool]] = {
    "ADWIN": ((Adwin(),), False),
    "Page-Hinkley": ((PageHinkley(),), False),
    "PSI": ((PopulationStability(),), False),
    "confidence alone": (tuple(make(kinds=("answer",)) for make in (Adwin, PageHinkley, PopulationStability)), False),
    "errors alone": ((Adwin(kinds=("error",)), PageHinkley(allowance=0.1, kinds=("error",))), True),
    "monitor, no labels": (DETECTORS, False),
    "monitor, late labels": (DETECTORS, True),
}
COLUMNS = ("task", "way", "condition", "seed", "rows", "false_alarms", "delay", "signal", "detector", "us_per_row")
Row = dict[str, object]


@dataclass(frozen=True, eq=False)
class Answered:
    """A split with what was answered.

    Attributes:
        x: [rows, ...], inputs.
        answers: [rows, class], probabilities.
        errors: [rows], 1 where the most probable class is not the label.
    """

    x: np.ndarray
    answers: np.ndarray
    errors: np.ndarray

    def drawn(self, rows: int, generator: np.random.Generator) -> Answered:
        """Rows drawn with replacement."""
        chosen = generator.integers(len(self.x), size=rows)
        return Answered(self.x[chosen], self.answers[chosen], self.errors[chosen])

    def followed_by(self, other: Answered) -> Answered:
        """These rows, then those."""
        pairs = ((self.x, other.x), (self.answers, other.answers), (self.errors, other.errors))
        return Answered(*(np.concatenate(pair) for pair in pairs))


def answered(task: Task, parts: Sequence[tuple[str, str]]) -> list[Answered]:
    """What the task's start answers on splits of conditions, really run."""
    from gnncompose.execution.isolation import Isolation
    from gnncompose.execution.work import answers
    from gnncompose.execution.worker import Limits

    isolation, found = Isolation(task.catalog, Limits()), []
    runner = isolation.runner(task.space.start)
    for condition, name in parts:
        split = task.split(condition, name)
        output = runner.call(answers, task.space.start, split)
        found.append(Answered(split.x, output, (output.argmax(axis=1) != split.y).astype(float)))
    isolation.close()
    return found


def alarms_of(monitor: DriftMonitor, stream: Answered, has_labels: bool) -> Iterator[tuple[int, tuple[Alarm, ...]]]:
    """How many rows have come, and the alarms then, block by block; labels are `LABELS_LATE` rows late."""
    base = monitor.rows
    for start in range(0, len(stream.x) - BLOCK + 1, BLOCK):
        end = start + BLOCK
        found = monitor.update(stream.x[start:end], stream.answers[start:end])
        rows = np.arange(max(start - LABELS_LATE, 0), max(end - LABELS_LATE, 0))
        if has_labels and len(rows):
            found += monitor.update_errors(base + rows, stream.errors[rows])
        yield end, found


def stationary(monitor: DriftMonitor, reference: Reference, stream: Answered, has_labels: bool) -> tuple[int, float]:
    """How often a stream without change raises an alarm, and microseconds per row."""
    count, began = 0, time.process_time()
    for _, found in alarms_of(monitor, stream, has_labels):
        if found:
            count += 1
            monitor.rebase(reference)
    return count, 1e6 * (time.process_time() - began) / len(stream.x)


def delayed(
    monitor: DriftMonitor, reference: Reference, stream: Answered, change: int, has_labels: bool
) -> tuple[float, Alarm | None]:
    """Rows from the change to the first alarm after it, and that alarm; infinite where there is none."""
    for rows, found in alarms_of(monitor, stream, has_labels):
        if found and rows > change:
            return rows - change, found[0]
        if found:
            monitor.rebase(reference)
    return float("inf"), None


def rows_of(name: str, seed: int, rows: int, inputs: str) -> list[Row]:
    """Every way, on a stream that stays and on one that changes to each condition."""
    from gnncompose.tasks.shipped import open_task

    task = open_task(name)
    conditions = task.conditions[1:]
    parts = [("clean", "validation"), *((condition, "test") for condition in task.conditions)]
    validation, clean, *changed = answered(task, parts)
    found: list[Row] = []
    for way, (detectors, has_labels) in WAYS.items():
        errors = validation.errors if has_labels else None
        reference = Reference(task.split("clean", inputs).x, validation.answers, errors)
        generator, row = np.random.default_rng([seed, 0]), {"task": name, "way": way, "seed": seed}
        monitor = DriftMonitor(reference, detectors)
        count, us_per_row = stationary(monitor, reference, clean.drawn(rows, generator), has_labels)
        own = {"condition": "clean", "rows": rows, "false_alarms": count, "us_per_row": round(us_per_row, 1)}
        found.append(row | own)
        for number, (condition, after) in enumerate(zip(conditions, changed, strict=True)):
            generator = np.random.default_rng([seed, 1, number])
            change = int(generator.integers(EARLIEST, LATEST))
            stream = clean.drawn(change, generator).followed_by(after.drawn(PATIENCE, generator))
            monitor.rebase(reference)
            delay, alarm = delayed(monitor, reference, stream, change, has_labels)
            own = {"condition": condition, "rows": len(stream.x), "delay": delay}
            told = {} if alarm is None else {"signal": alarm.signal, "detector": alarm.detector}
            found.append(row | own | told)
    return found


def figures_of(rows: Sequence[Row]) -> dict[str, object]:
    """False alarms in 10,000 rows; median, 5th and 95th percentile of the delay; share that was missed."""
    stayed = [row for row in rows if row["condition"] == "clean"]
    delays = np.array([float(str(row["delay"])) for row in rows if row["condition"] != "clean"])
    total, count = (sum(int(str(row[name])) for row in stayed) for name in ("rows", "false_alarms"))
    low, middle, high = np.percentile(delays, [5, 50, 95], method="inverted_cdf").tolist() if len(delays) else [0.0] * 3
    figures = {"clean_rows": total, "false_alarms": count, "false_alarms_per_10000": round(10_000 * count / total, 3)}
    figures |= {"delay_p5": low, "delay_median": middle, "delay_p95": high}
    return figures | {
        "missed": round(float(np.mean(np.isinf(delays))), 4) if len(delays) else 0.0,
        "us_per_row": round(float(np.median([float(str(row["us_per_row"])) for row in stayed])), 1),
    }


def sheets_of(rows: Sequence[Row]) -> list[Sheet]:
    """For each task a table of ways, and one of the delays of the whole monitor by condition."""
    sheets: list[Sheet] = []
    for name in dict.fromkeys(str(row["task"]) for row in rows):
        own = [row for row in rows if row["task"] == name]
        lines = []
        for way in WAYS:
            f = figures_of([row for row in own if row["way"] == way])
            lines.append((way, str(f["false_alarms_per_10000"]), _delay(f), f"{f['missed']:.1%}", str(f["us_per_row"])))
        header = ("", "false alarms in 10,000 rows", "delay, rows [p5, p95]", "missed", "µs a row")
        seeds, conditions = (len({row[key] for row in own}) for key in ("seed", "condition"))
        clean_rows = figures_of([row for row in own if row["way"] == "ADWIN"])["clean_rows"]
        note = f"{clean_rows} clean rows, {seeds * (conditions - 1)} changes."
        sheets.append(Sheet(f"Drift in {name}", header, tuple(lines), note))
        header = ("", *WAYS)
        lines = []
        for condition in list(dict.fromkeys(str(row["condition"]) for row in own))[1:]:
            cells = [[r for r in own if r["way"] == way and r["condition"] in ("clean", condition)] for way in WAYS]
            lines.append((condition, *(_with_misses(figures_of(cell)) for cell in cells)))
        sheets.append(
            Sheet(f"Median delay by condition in {name}", header, tuple(lines), "In brackets what was missed.")
        )
    return sheets


def _delay(figures: dict[str, object]) -> str:
    low, middle, high = (_rows(figures[f"delay_{name}"]) for name in ("p5", "median", "p95"))
    return f"{middle} [{low}, {high}]"


def _with_misses(figures: dict[str, object]) -> str:
    missed = float(str(figures["missed"]))
    return _rows(figures["delay_median"]) + (f" ({missed:.0%})" if missed else "")


def _rows(delay: object) -> str:
    return f"{delay:.0f}" if np.isfinite(float(str(delay))) else f"> {PATIENCE}"


def main(arguments: list[str]) -> int:
    """Run all, and print the tables."""
    from joblib import Parallel, delayed
    from tqdm import tqdm

    keys = {"tasks": TASKS, "seeds": "10", "rows": "10000", "inputs": "validation", "jobs": "1", "publish": "false"}
    given, _ = read_arguments(arguments, keys)
    seeds, rows = (whole_number(key, given[key]) for key in ("seeds", "rows"))
    cells = [(name, seed, rows, given["inputs"]) for name in names(given["tasks"]) for seed in range(seeds)]
    jobs = Parallel(n_jobs=whole_number("jobs", given["jobs"]), return_as="generator")
    found = [row for some in tqdm(jobs(delayed(rows_of)(*cell) for cell in cells), total=len(cells)) for row in some]
    text = markdown(sheets_of(found))
    print(text)
    if given["publish"] == "true":
        write_csv(publish("drift", text) / "rows.csv", COLUMNS, found)
    summary = {
        name: {way: figures_of([r for r in found if r["task"] == name and r["way"] == way]) for way in WAYS}
        for name in names(given["tasks"])
    }
    print(json.dumps(summary).replace("Infinity", "null"))
    return 0


if __name__ == "__main__":
    run_script(main)
