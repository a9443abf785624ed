"""What old evaluations are worth when the data change.

    python benchmarks/warm_start.py [tables=digits,letter] [seeds=10] [jobs=N] [runs=DIR] [publish=true]

In each table and seed, `gnn_ts_pretrained` searches clean data with 100 evaluations, and the best composition is
deployed. Then the data change to each other condition, and every way has ten evaluations from what is deployed, asked
and told one by one: local search, the flagship from scratch and pre-trained without the task, each of the two with the
100 old trials to recall, too. Regret is 1 for what is deployed, 0 for the best composition of the table.

Raw rows go to runs/warm_start/TABLE.csv, or below `runs=DIR`; a table that is there is not run again. With
`publish=true` rows and table go to benchmarks/results/warm_start/.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from flagship import flagship_without
from rows import publish, read_csv, write_csv
from run import CORES
from sheets import Entry, Figure, Sheet, markdown
from suite import RUNS, names, read_arguments, run_script, whole_number

from gnncompose.stats import best_at, bootstrap_interval, interquartile_mean, normalised_regret

BUDGET, OLD_BUDGET = 10, 100
MARKS = (2, 3, 5, 10)
WEIGHTS = {"latency": 0.01, "cost": 0.01}
REGRETS = tuple(f"regret_{mark}" for mark in MARKS)
COLUMNS = ("table", "condition", "seed", "way", *REGRETS)
TABLES = (
    "digits,fashion,letter,census,flights,series_acsf1,series_arrow_head,series_basic_motions,series_gun_point,"
    "series_italy_power_demand,series_japanese_vowels,series_osu_leaf,series_pickup_gesture"
)
WAYS = {
    "local_search": (False, False, False),
    "gnn_ts": (True, False, False),
    "gnn_ts, recalls": (True, False, True),
    "gnn_ts_pretrained": (True, True, False),
    "gnn_ts_pretrained, recalls": (True, True, True),
}  # whether it is the flagship, pre-trained, recalls
Row = dict[str, object]


def rows_of(name: str, seed: int) -> list[Row]:
    """Every way in every condition but the first."""
    import torch

    from gnncompose.agents.agent import AskTell, search
    from gnncompose.agents.gnn_ts import GNNThompson
    from gnncompose.agents.local_search import LocalSearch
    from gnncompose.evaluation.cost import load_prices
    from gnncompose.evaluation.evaluation import Budget
    from gnncompose.evaluation.table import TableEvaluator, recorded_task
    from gnncompose.policies.relational import Relational
    from gnncompose.reward import WeightedSum
    from gnncompose.tasks.task import World

    torch.set_num_threads(1)
    prices, task = load_prices(), recorded_task(name)

    def opened(condition: str, limit: int) -> tuple[Budget, TableEvaluator, Callable]:
        evaluator = TableEvaluator(task, World(condition), prices)
        reward = WeightedSum(**WEIGHTS).bind(task.catalog, prices, evaluator.world)
        return Budget(evaluator, reward, limit), evaluator, reward

    before, _, _ = opened(task.conditions[0], OLD_BUDGET)
    search(flagship_without(name), task.space, before, np.random.default_rng([seed, 0]))
    deployed, found = before.best.composition, []
    for condition in task.conditions[1:]:
        _, evaluator, reward = opened(condition, BUDGET)
        optimum, start = evaluator.optimum(reward), reward(evaluator.evaluate(deployed))
        for way, (is_flagship, is_taught, recalls) in WAYS.items():
            flagship = flagship_without(name) if is_taught else GNNThompson(Relational())
            agent = flagship if is_flagship else LocalSearch()
            budget, _, _ = opened(condition, BUDGET)
            space, generator = replace(task.space, initial=deployed), np.random.default_rng([seed, 1])
            asked = AskTell(agent, space, BUDGET, generator, before.trials if recalls else ())
            while (wanted := asked.ask()) is not None:
                asked.tell(budget.evaluate(wanted))
            best = np.maximum.accumulate([trial.reward for trial in budget.trials])
            regrets = normalised_regret(best_at(np.arange(1, len(best) + 1), best, MARKS), start, optimum)
            own = dict(zip(REGRETS, regrets.tolist(), strict=True))
            found.append({"table": name, "condition": condition, "seed": seed, "way": way, **own})
    return found


def sheet_of(rows: list[Row]) -> Sheet:
    """Interquartile means with 95 % stratified-bootstrap intervals; a stratum is a table in a condition."""
    lines: list[tuple[Entry, ...]] = []
    for way in WAYS:
        regrets = arranged([row for row in rows if row["way"] == way])
        pooled = regrets.reshape(-1, len(MARKS)).T
        bounds = bootstrap_interval(regrets, np.random.default_rng(0))
        figures = zip(interquartile_mean(pooled).tolist(), *(bound.tolist() for bound in bounds), strict=True)
        lines.append((way, *(Figure(*figure, digits=3) for figure in figures)))
    header = ("", *(f"regret at {mark}" for mark in MARKS))
    note = f"{len({(row['table'], row['condition']) for row in rows})} changes, {len(rows) // len(WAYS)} runs a way."
    return Sheet("When the data change", header, tuple(lines), note)


def arranged(rows: list[Row]) -> np.ndarray:
    """float[seed, change, mark]: regrets of one way."""
    ordered = sorted(rows, key=lambda row: (int(str(row["seed"])), str(row["table"]), str(row["condition"])))
    seeds = len({row["seed"] for row in rows})
    regrets = [[float(str(row[name])) for name in REGRETS] for row in ordered]
    return np.array(regrets).reshape(seeds, -1, len(MARKS))


def main(arguments: list[str]) -> int:
    """Fill what is missing, and print the table."""
    from joblib import Parallel, delayed
    from tqdm import tqdm

    keys = {"tables": TABLES, "seeds": "10", "jobs": str(CORES), "runs": str(RUNS), "publish": "false"}
    given, _ = read_arguments(arguments, keys)
    seeds, folder = whole_number("seeds", given["seeds"]), Path(given["runs"]) / "warm_start"
    folder.mkdir(parents=True, exist_ok=True)
    for name in tqdm(names(given["tables"]), desc="warm_start", unit="table"):
        path = folder / f"{name}.csv"
        if not path.exists():
            jobs = Parallel(n_jobs=whole_number("jobs", given["jobs"]))
            found = jobs(delayed(rows_of)(name, seed) for seed in range(seeds))
            write_csv(path, COLUMNS, [row for some in found for row in some])
    paths = [folder / f"{name}.csv" for name in names(given["tables"])]
    text = markdown([sheet_of([row for path in paths for row in read_csv(path)])])
    print(text)
    if given["publish"] == "true":
        publish("warm_start", text, paths)
    return 0


if __name__ == "__main__":
    run_script(main)
