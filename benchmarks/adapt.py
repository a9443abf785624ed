"""What an adapted deployment gives up while the data change, against one that always knows.

    python benchmarks/adapt.py [tasks=digits,fashion] [changes=sudden] ["ways=A;B"] [seeds=10] [jobs=N] [publish=true]

The stream is the task's own scenario, its steps four times as long (`experiments/adapt.py`); what is best on its first
state, by the recorded table, is deployed. Each way is an agent and when it searches: never, every 1,600 rows, or on
drift; a search measures at most ten compositions on 300 labelled rows, whose labels come 128 rows late. Before, each
agent spent 100 evaluations on the first state; those that can recall them do. The flagship's surrogate was trained
without the task at hand.

Raw rows go to runs/adapt/TASK_CHANGE.csv, or below another `runs=DIR`; rows that are there are not run again. With
`publish=true` rows and table go to benchmarks/results/adapt/.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rows import publish, read_csv, write_csv
from run import CORES
from sheets import Entry, Figure, Sheet, markdown
from suite import HERE, RUNS, names, read_arguments, run_script, whole_number

from gnncompose.errors import GnncomposeError
from gnncompose.stats import bootstrap_interval, interquartile_mean

if TYPE_CHECKING:
    from gnncompose.adaptation.controller import Trigger
    from gnncompose.adaptation.replay import Recorded
    from gnncompose.agents.agent import Agent
    from gnncompose.tasks.task import Scenario

WEIGHTS = {"latency": 0.01, "cost": 0.01}
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


@cache
def opened_once(task: str) -> tuple[Recorded, Scenario]:
    """A task with its table, and its scenario made longer; once a process."""
    from gnncompose.adaptation.runs import opened
    from gnncompose.evaluation.cost import load_prices
    from gnncompose.reward import WeightedSum
    from gnncompose.tasks.shipped import open_task

    return opened(open_task(task), None, STRETCH, load_prices(), WeightedSum(**WEIGHTS))


def agent_of(name: str, task: str) -> Agent:
    """A fresh agent."""
    from gnncompose.agents.gnn_ts import GNNThompson
    from gnncompose.agents.gp_ts import GPThompson
    from gnncompose.agents.local_search import LocalSearch
    from gnncompose.agents.random import Random
    from gnncompose.policies.relational import Relational

    taught = str(HERE / "surrogates" / f"without_{task}" / "surrogate.pt")
    makers: dict[str, Callable[[], Agent]] = {
        "random": Random,
        "local_search": LocalSearch,
        "gp_ts": GPThompson,
        "gnn_ts": lambda: GNNThompson(Relational()),
        "gnn_ts_pretrained": lambda: GNNThompson(Relational(), taught),
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
    from gnncompose.adaptation.stream import Gradual, Mixed, Recurring, Sudden

    torch.set_num_threads(1)
    changes = {"sudden": Sudden(), "gradual": Gradual(), "recurring": Recurring(), "mixed": Mixed()}
    if change not in changes:
        raise GnncomposeError(f"changes={change}: there is no such change; there are {', '.join(changes)}")
    found, opened = [], opened_once(task)
    for way in ways:
        name, when, rounds = WAYS[way]
        settings = Settings(rounds=rounds)
        life = Life(
            *opened, changes[change], agent_of(name, task), trigger_of(when), settings, LATE, before=BEFORE, seed=seed
        )
        stream = life.stream()
        figures = figures_of(stream, live_through(life, stream))
        figures["delay_rows"] = " ".join(map(str, figures["delay_rows"]))
        own = {name: "" if figures[name] is None else figures[name] for name in FIGURES}
        found.append({"task": task, "change": change, "way": way, "seed": seed, **own})
    return found


def sheet_of(rows: list[Row]) -> Sheet:
    """Interquartile means with 95 % stratified-bootstrap intervals; a stratum is a task in a kind of change."""
    lines: list[tuple[Entry, ...]] = []
    for way in WAYS:
        own = [row for row in rows if row["way"] == way]
        if own:
            entries = [figure_of(own, lambda row: float(str(row["regret"])) / float(str(row["static_regret"])))]
            entries += [
                figure_of(own, lambda row, name=name: float(str(row[name]))) for name in ("regained", "of_best")
            ]
            delays = [float(delay) for row in own for delay in str(row["delay_rows"]).split()]
            means = (np.mean([float(str(row[name])) for row in own]) for name in FIGURES[4:6])
            searches, unprompted = means
            shown = f"{np.median(delays):.0f}" if delays and "drift" in way else "–"
            lines.append((way, *entries, f"{searches:.1f}", f"{unprompted:.2f}", shown))
    header = ("", "regret, static = 1", "regained", "share of the best", "searches", "unprompted", "delay in rows")
    kinds = sorted({f"{row['task']} {row['change']}" for row in rows})
    seeds = len({row["seed"] for row in rows})
    note = f"{', '.join(kinds)}; {seeds} seeds."
    return Sheet("While the data change", header, tuple(lines), note)


def figure_of(rows: list[Row], value: Callable[[Row], float]) -> Figure:
    """A figure with its interval."""
    ordered = sorted(rows, key=lambda row: (int(str(row["seed"])), str(row["task"]), str(row["change"])))
    seeds = len({row["seed"] for row in rows})
    values = np.array([value(row) for row in ordered]).reshape(seeds, -1, 1)
    low, high = bootstrap_interval(values, np.random.default_rng(0))
    mean = interquartile_mean(values.reshape(-1, 1).T)
    return Figure(float(mean[0]), float(low[0]), float(high[0]), digits=3)


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
    seeds, folder = whole_number("seeds", given["seeds"]), Path(given["runs"]) / "adapt"
    folder.mkdir(parents=True, exist_ok=True)
    cases = [(task, change) for task in names(given["tasks"]) for change in names(given["changes"])]
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
    text = markdown([sheet_of([row for path in paths for row in read_csv(path)])])
    print(text)
    if given["publish"] == "true":
        publish("adapt", text, paths)
    return 0


if __name__ == "__main__":
    run_script(main)
