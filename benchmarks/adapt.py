"""What an adapted deployment gives up while the world changes, against one that always knows.

    python benchmarks/adapt.py [tasks=digits,fashion] [changes=sudden] ["ways=A;B"] [seeds=10] [jobs=N] [publish=true]

The stream is the task's own scenario, its steps four times as long (`experiments/adapt.py`); what is best in its first
world, by the recorded table, is deployed. Changes of the data are sudden, gradual, recurring and mixed; new_model,
withdrawn_model, price_doubled and load_burst leave the data alone, in one condition of the scenario (`CHANGES`). Each
way is an agent and when it searches: never, every 1,600 rows, or on drift, which is also when the world tells of a
change; a search measures at most ten compositions on 300 labelled rows, whose labels come 128 rows late. Before, each
agent spent 100 evaluations in the first world; those that can recall them do. The flagship's surrogate was trained
without the task at hand.

Raw rows go to runs/adapt/TASK_CHANGE.csv, or below another `runs=DIR`; rows that are there are not run again. With
`publish=true` rows and tables go to benchmarks/results/adapt/.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from flagship import flagship_without
from rows import publish, read_csv, write_csv
from run import CORES
from sheets import Entry, Figure, Sheet, markdown
from suite import RUNS, names, read_arguments, run_script, whole_number

from gnncompose.adaptation.stream import Change, Gradual, Mixed, Recurring, Sudden
from gnncompose.adaptation.worlds import LoadBurst, NewModel, PriceRise, WithdrawnModel
from gnncompose.errors import GnncomposeError
from gnncompose.stats import bootstrap_interval, interquartile_mean

if TYPE_CHECKING:
    from gnncompose.adaptation.controller import Trigger
    from gnncompose.adaptation.recorded import Recorded
    from gnncompose.agents.agent import Agent
    from gnncompose.tasks.task import Scenario

STRETCH, LATE, BEFORE, EVERY = 4, 128, 100, 1600
FIGURES = ("regret", "static_regret", "regained", "of_best", "searches", "unprompted", "delay_rows")
COLUMNS = ("task", "change", "way", "seed", *FIGURES)
# Of each way its agent, when it searches, and how often for one reason.
WAYS = {
    "never": ("random", "never", 1),
    "local_search, every 1,600 rows": ("local_search", "every", 1),
    "gnn_ts_pretrained, every 1,600 rows": ("gnn_ts_pretrained", "every", 1),
    "random, on drift": ("random", "drift", 1),
    "local_search, on drift": ("local_search", "drift", 1),
    "gp_ts, on drift": ("gp_ts", "drift", 1),
    "gnn_ts, on drift": ("gnn_ts", "drift", 1),
    "gnn_ts_pretrained, on drift": ("gnn_ts_pretrained", "drift", 1),
    "gnn_ts_pretrained, on drift, three times": ("gnn_ts_pretrained", "drift", 3),
}
Row = dict[str, object]


@dataclass(frozen=True)
class Kind:
    """A kind of change.

    Attributes:
        change: How worlds follow one another.
        cost: Weight of the cost in the reward.
    """

    change: Change
    cost: float = 0.01


# Models and load count most in noise. A doubled price changes nothing as long as money hardly counts: there it does.
CHANGES = {
    "sudden": Kind(Sudden()),
    "gradual": Kind(Gradual()),
    "recurring": Kind(Recurring()),
    "mixed": Kind(Mixed()),
    "new_model": Kind(NewModel("noise")),
    "withdrawn_model": Kind(WithdrawnModel("noise")),
    "price_doubled": Kind(PriceRise("impulse"), cost=0.2),
    "load_burst": Kind(LoadBurst("noise")),
}
_opened: dict[tuple[str, str], tuple[Recorded, Scenario]] = {}


def opened_once(task: str, change: str) -> tuple[Recorded, Scenario]:
    """A task with its table, and what comes; the latest one is kept."""
    from gnncompose.adaptation.runs import opened
    from gnncompose.evaluation.cost import load_prices
    from gnncompose.reward import WeightedSum
    from gnncompose.tasks.shipped import open_task

    if (task, change) not in _opened:
        while _opened:
            _opened.popitem()[1][0].close()
        kind = CHANGES[change]
        reward = WeightedSum(latency=0.01, cost=kind.cost)
        _opened[task, change] = opened(open_task(task), None, kind.change, STRETCH, load_prices(), reward)
    return _opened[task, change]


def agent_of(name: str, task: str) -> Agent:
    """A fresh agent."""
    from gnncompose.agents.gnn_ts import GNNThompson
    from gnncompose.agents.gp_ts import GPThompson
    from gnncompose.agents.local_search import LocalSearch
    from gnncompose.agents.random import Random
    from gnncompose.policies.relational import Relational

    makers: dict[str, Callable[[], Agent]] = {
        "random": Random,
        "local_search": LocalSearch,
        "gp_ts": GPThompson,
        "gnn_ts": lambda: GNNThompson(Relational()),
        "gnn_ts_pretrained": lambda: flagship_without(task),
    }
    return makers[name]()


def trigger_of(name: str) -> Trigger:
    """A fresh trigger."""
    from gnncompose.adaptation.controller import Every, Never, OnDrift

    makers: dict[str, Callable[[], Trigger]] = {"never": Never, "every": lambda: Every(EVERY), "drift": OnDrift}
    return makers[name]()


def rows_of(task: str, change: str, seed: int, ways: Sequence[str]) -> list[Row]:
    """Ways on the stream of one seed."""
    import torch

    from gnncompose.adaptation.controller import Settings
    from gnncompose.adaptation.runs import Life, figures_of, live_through

    torch.set_num_threads(1)
    found, opened = [], opened_once(task, change)
    for way in ways:
        name, when, rounds = WAYS[way]
        settings = Settings(rounds=rounds)
        agent, trigger = agent_of(name, task), trigger_of(when)
        life = Life(*opened, CHANGES[change].change, agent, trigger, settings, LATE, before=BEFORE, seed=seed)
        stream = life.stream()
        figures = figures_of(stream, live_through(life, stream))
        figures["delay_rows"] = " ".join(map(str, figures["delay_rows"]))
        own = {name: "" if figures[name] is None else figures[name] for name in FIGURES}
        found.append({"task": task, "change": change, "way": way, "seed": seed, **own})
    return found


def sheet_of(change: str, rows: list[Row]) -> Sheet:
    """Interquartile means with 95 % stratified-bootstrap intervals; a stratum is a task.

    Ways that lack a seed of a task are left out.
    """
    tasks, seeds = sorted({str(row["task"]) for row in rows}), len({row["seed"] for row in rows})
    lines: list[tuple[Entry, ...]] = []
    for way in WAYS:
        own = [row for row in rows if row["way"] == way]
        if len(own) == len(tasks) * seeds:
            gaining = [row for row in own if row["of_best"] != ""]
            entries = [
                figure_of(own, lambda row: number(row, "regret"), digits=4),
                figure_of(gaining, lambda row: number(row, "regret") / number(row, "static_regret")),
                figure_of(gaining, lambda row: number(row, "regained")),
                figure_of(gaining, lambda row: number(row, "of_best")),
            ]
            delays = [float(delay) for row in own for delay in str(row["delay_rows"]).split()]
            searches, unprompted = (np.mean([number(row, name) for row in own]) for name in FIGURES[4:6])
            shown = f"{np.median(delays):.0f}" if delays and "drift" in way else "–"
            lines.append((way, *entries, f"{searches:.1f}", f"{unprompted:.2f}", shown))
    header = ("", "regret", "static = 1", "regained", "share of the best", "searches", "unprompted", "delay in rows")
    return Sheet(change.replace("_", " "), header, tuple(lines), f"{', '.join(tasks)}; {seeds} seeds.")


def number(row: Row, name: str) -> float:
    """A figure of a row."""
    return float(str(row[name]))


def figure_of(rows: list[Row], value: Callable[[Row], float], digits: int = 3) -> Entry:
    """A figure with its interval; a dash where there are no rows, since nothing was to be gained."""
    if not rows:
        return "–"
    ordered = sorted(rows, key=lambda row: (int(str(row["seed"])), str(row["task"])))
    seeds = len({row["seed"] for row in rows})
    values = np.array([value(row) for row in ordered]).reshape(seeds, -1, 1)
    low, high = bootstrap_interval(values, np.random.default_rng(0))
    mean = interquartile_mean(values.reshape(-1, 1).T)
    return Figure(float(mean[0]), float(low[0]), float(high[0]), digits)


def main(arguments: list[str]) -> int:
    """Fill what is missing, and print the table."""
    from joblib import Parallel, delayed
    from tqdm import tqdm

    keys = {"tasks": "digits,fashion", "changes": "sudden", "ways": "", "seeds": "10", "jobs": str(CORES)}
    given, _ = read_arguments(arguments, keys | {"runs": str(RUNS), "publish": "false"})
    ways = [part.strip() for part in given["ways"].split(";") if part.strip()] or list(WAYS)
    for way in ways:
        if way not in WAYS:
            raise GnncomposeError(f"ways={way}: there is no such way; there are {'; '.join(WAYS)}")
    changes = names(given["changes"])
    for change in changes:
        if change not in CHANGES:
            raise GnncomposeError(f"changes={change}: there is no such change; there are {', '.join(CHANGES)}")
    seeds, folder = whole_number("seeds", given["seeds"]), Path(given["runs"]) / "adapt"
    folder.mkdir(parents=True, exist_ok=True)
    cases = [(task, change) for task in names(given["tasks"]) for change in changes]
    jobs = Parallel(n_jobs=whole_number("jobs", given["jobs"]))
    for (task, change), seed in tqdm(
        [(case, seed) for case in cases for seed in range(seeds)], desc="adapt", unit="seed"
    ):
        path = folder / f"{task}_{change}.csv"
        known = read_csv(path)
        there = {row["way"] for row in known if row["seed"] == str(seed)}
        missing = [way for way in ways if way not in there]
        if missing:
            parts = jobs(delayed(rows_of)(task, change, seed, [way]) for way in missing)
            write_csv(path, COLUMNS, [*known, *(row for part in parts for row in part)])
    paths = [folder / f"{task}_{change}.csv" for task, change in cases]
    rows = [row for path in paths for row in read_csv(path)]
    text = markdown([sheet_of(change, [row for row in rows if row["change"] == change]) for change in changes])
    print(text)
    if given["publish"] == "true":
        publish("adapt", text, paths)
    return 0


if __name__ == "__main__":
    run_script(main)
