"""Replay published rows, and name those that do not hold.

    python benchmarks/validate.py [suite=small] [rows=DIR] [agents=A,B] [tasks=A,B] [searches=all] [jobs=N]
        [hydra/launcher=…]

Every row is first held against its suite and itself: same settings, a rising curve that its marks lie on, the
composition that its id names. Where the suite is repeatable (recorded evaluations), its search is then run again with
its seed, and every figure but wall time must come out the same, the whole curve included. Where it is not (measured
evaluations), what was found and the best single model are measured again: scores must be equal, latency and cost may
differ by the suite's noise, and the reward must follow from the row's own figures.

`searches=N` runs only N searches of each agent again, always the same ones; of the other rows what was found and the
best single model are looked up again, which takes minutes where searches take hours.

`rows` is the folder of the rows, by default benchmarks/results/SUITE/rows. The last line is one JSON object; the exit
code is 1 where a row does not hold. Rows that the suite has and the folder lacks are named, since a choice among rows
may be what misleads.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from launching import launch, opened, prepare
from rows import SPLITS, TESTED, Row, curve_of, differing, key_of, marked, name_of, read_rows, row_of
from run import CORES
from suite import (
    RESULTS,
    RUNS,
    BenchmarkError,
    Cell,
    Suite,
    load_suite,
    names,
    read_arguments,
    run_script,
    whole_number,
)

from gnncompose.composition.files import composition_from_json
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.optimum import known_optimum
from gnncompose.tracking.records import METRICS

if TYPE_CHECKING:
    from gnncompose.composition.tree import Composition
    from gnncompose.evaluation.evaluation import Evaluation, Evaluator

SAME = ("metric", "score")  # what does not depend on the machine's speed
ROUNDING = 1e-9
Problems = dict[int, list[str]]


def consistency(row: Row, cell: Cell | None) -> list[str]:
    """What is wrong with a row as it stands, without a run."""
    if cell is None:
        return ["its suite has no such row"]
    if row["overrides"] != " ".join(cell.overrides):
        return [f"its settings are not the suite's: {row['overrides']!r}, not {' '.join(cell.overrides)!r}"]
    try:
        evaluations, best = curve_of(row)
    except BenchmarkError as problem:
        return [str(problem)]
    found = [] if row["evaluator"] == cell.evaluator else [f"evaluator is {row['evaluator']}, not {cell.evaluator}"]
    marks = marked(list(zip(evaluations.tolist(), best.tolist(), strict=True)), cell.budget)
    found += [f"{name} is {row[name]}, the curve says {value}" for name, value in marks.items() if row[name] != value]
    if not evaluations[-1] <= int(row["evaluations"]) <= cell.budget:  # type: ignore[arg-type]
        found.append(f"evaluations is {row['evaluations']}, budget {cell.budget}, the curve ends at {evaluations[-1]}")
    if isinstance(row["optimum"], float) and best[-1] > row["optimum"] + ROUNDING:
        found.append(f"the curve's {best[-1]} is above the optimum {row['optimum']}")
    return found


def replayed(rows: dict[int, Row], cells: dict[int, Cell], jobs: int, launcher: Sequence[str], title: str) -> Problems:
    """Search again, and compare every figure."""
    optima = prepare(list(cells.values()))
    found: Problems = {}
    with tempfile.TemporaryDirectory(prefix="gnncompose-replay-") as folder:
        root = Path(folder)
        failures = launch(list(cells.values()), root, jobs, launcher, title)
        for number, cell in cells.items():
            if cell in failures:
                found[number] = [f"the search failed when run again: {failures[cell]}"]
                continue
            again = row_of(cell, root / cell.folder, optima[cell.task, cell.condition])
            found[number] = differences(rows[number], again)
    return found


def differences(row: Row, again: Row) -> list[str]:
    """Every column that came out otherwise, and versions that may be why."""
    found = [f"{name} is {_short(row[name])}, run again {_short(again[name])}" for name in differing(row, again)]
    if found:
        before, now = (json.loads(str(r["versions"])) for r in (row, again))
        changed = [f"{k} {before.get(k)} then, {now.get(k)} now" for k in now if before.get(k) != now.get(k)]
        if row["hardware"] != again["hardware"]:
            changed.append("another machine")
        found += [f"({', '.join(changed)})"] if changed else []
    return found


class Remeasuring:
    """Measures the compositions of rows again; keeps one evaluator per task and condition.

    Attributes:
        noise: By which share a figure that depends on speed may differ.
        largest: The largest |log ratio| of such a figure so far.
    """

    def __init__(self, noise: float) -> None:
        self.noise = noise
        self.largest = 0.0
        self._opened: dict[tuple[str, str], tuple[Evaluator, Callable[[Evaluation], float], float | None]] = {}

    def problems(self, row: Row, cell: Cell) -> list[str]:
        """What came out otherwise."""
        place = cell.task, cell.condition
        if place not in self._opened:
            evaluator, reward = opened(cell)
            self._opened[place] = evaluator, reward, known_optimum(evaluator, reward)
        evaluator, reward, optimum = self._opened[place]
        task = evaluator.task
        found = []
        if row["optimum"] != optimum:
            found.append(f"optimum is {row['optimum']}, the evaluator's {optimum}")
        if evaluator is evaluator.real and row["found_reward"] != curve_of(row)[1][-1]:
            found.append(f"found_reward is {row['found_reward']}, the curve ends at {curve_of(row)[1][-1]}")
        try:
            composition = composition_from_json(json.loads(str(row["found"])), task.catalog, task.input.type)
            tested = {"found": [composition], "best_single": task.space.single_models()}
            for who in TESTED:
                known = {composition.id: composition for composition in tested[who]}
                if row[f"{who}_id"] not in known:
                    found.append(f"{who}_id is {row[f'{who}_id']}, there is {', '.join(known)}")
                    continue
                found += self._measured(row, who, known[str(row[f"{who}_id"])], evaluator.real, reward)
        except (GnncomposeError, ValueError) as problem:
            return [*found, f"cannot be evaluated: {problem}"]
        return found

    def _measured(
        self,
        row: Row,
        who: str,
        composition: Composition,
        evaluator: Evaluator,
        reward: Callable[[Evaluation], float],
    ) -> list[str]:
        found = []
        for split in SPLITS:
            evaluation = evaluator.evaluate(composition, split)
            found += self._compared(row, f"{who}_{split}", evaluation)
            if split == "validation":
                own = reward(replace(evaluation, **{name: row[f"{who}_{split}_{name}"] for name in METRICS}))
                if not math.isclose(own, float(str(row[f"{who}_reward"])), abs_tol=ROUNDING):
                    found.append(f"{who}_reward is {row[f'{who}_reward']}, its own figures give {own}")
        return found

    def _compared(self, row: Row, prefix: str, evaluation: Evaluation) -> list[str]:
        found = []
        for name in METRICS:
            then, now = float(str(row[f"{prefix}_{name}"])), float(getattr(evaluation, name))
            if name in SAME:
                if then != now:
                    found.append(f"{prefix}_{name} is {then}, measured again {now}")
                continue
            deviation = abs(math.log(then / now)) if then > 0 else math.inf
            self.largest = max(self.largest, deviation)
            if deviation > math.log1p(self.noise):
                found.append(f"{prefix}_{name} is {then:.6g}, measured again {now:.6g}: more than {self.noise:.0%} off")
        return found


def drawn(rows: dict[int, Row], searches: int) -> set[int]:
    """Numbers of rows, `searches` of each agent where it has as many: always the same ones."""
    by_agent: dict[str, list[int]] = defaultdict(list)
    for number, row in rows.items():
        by_agent[str(row["agent"])].append(number)
    found: set[int] = set()
    for numbers in by_agent.values():
        chosen = np.random.default_rng(0).permutation(len(numbers))[:searches]
        found |= {numbers[place] for place in chosen}
    return found


def examine(
    name: str, suite: Suite, rows: Sequence[Row], searches: int | None, jobs: int, launcher: Sequence[str]
) -> tuple[Problems, int, float | None]:
    """Hold rows against their suite, their own figures, and what comes out when they are made again.

    Args:
        name: Of the suite.
        suite: That the rows belong to.
        rows: What to examine.
        searches: How many searches of each agent are run again at most; None for all.
        jobs: How many of them run side by side.
        launcher: Settings of another launcher of Hydra's.

    Returns:
        Problems by row, the number of searches that were run again, and the largest deviation of what was measured
        again (|log ratio|), None where nothing was.
    """
    agents = sorted({str(row["agent"]) for row in rows})
    known = suite.known_cells(name, agents)
    cells = {number: known.get(key_of(row)) for number, row in enumerate(rows)}
    times = Counter(map(key_of, rows))
    found = {number: consistency(row, cells[number]) for number, row in enumerate(rows)}
    for number, row in enumerate(rows):
        if times[key_of(row)] > 1:
            found[number].append("stands twice")
    sound = {number: cell for number, cell in cells.items() if cell is not None and not found[number]}
    to_search = set(sound) if suite.repeatable else set()
    if searches is not None:
        to_search &= drawn({number: rows[number] for number in sound}, searches)
    measuring = Remeasuring(suite.noise)
    for number, cell in sound.items():
        if number not in to_search:
            found[number] = measuring.problems(rows[number], cell)
    if to_search:
        own = {number: cell for number, cell in sound.items() if number in to_search}
        found |= replayed({number: rows[number] for number in own}, own, jobs, launcher, f"replay of {name}")
    return found, len(to_search), None if suite.repeatable else measuring.largest


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def main(arguments: list[str]) -> int:
    known = {"suite": "small", "rows": "", "agents": "", "tasks": "", "searches": "all", "jobs": str(CORES)}
    given, launcher = read_arguments(arguments, known)
    (name, suite), tasks = load_suite(given["suite"]), names(given["tasks"])
    folder = Path(given["rows"] or RESULTS / name / "rows")
    rows = [row for row in read_rows(folder, names(given["agents"])) if not tasks or row["task"] in tasks]
    if not rows:
        hint = f"python benchmarks/run.py suite={given['suite']} makes some, which rows={RUNS / name / 'rows'} replays"
        raise BenchmarkError(f"{folder}: holds no rows to replay; {hint}")
    searches = None if given["searches"] == "all" else whole_number("searches", given["searches"])
    jobs = whole_number("jobs", given["jobs"])
    there = {key_of(row) for row in rows}
    for agent in sorted({str(row["agent"]) for row in rows}):
        cells = suite.known_cells(name, [agent], tasks)
        lacking = len(cells.keys() - there)
        if lacking:
            print(f"missing: {agent} lacks {lacking} of the suite's {len(cells)} rows", file=sys.stderr)
    problems, again, largest = examine(name, suite, rows, searches, jobs, launcher)
    failed = {number: own for number, own in problems.items() if own}
    for number, own in sorted(failed.items()):
        print(f"does not hold: {name_of(rows[number])}: {'; '.join(own)}", file=sys.stderr)
    figures = {"suite": name, "rows": len(rows), "hold": len(rows) - len(failed), "do_not_hold": len(failed)}
    if suite.repeatable:
        figures["searched_again"] = again
    if largest is not None:
        figures["largest_deviation"] = round(largest, 4)
    print(json.dumps(figures))
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
