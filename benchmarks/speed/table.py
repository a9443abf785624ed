"""How fast a recorded table replays evaluations.

    python benchmarks/speed/table.py [--table digits] [--condition mixed]

`replayed_evaluations_per_s` asks `Evaluator.evaluate` for compositions drawn from all of the table, one by one;
`budgeted_evaluations_per_s` asks through a budget with the default reward, as a search does; `rows_per_s` reads rewards
of rows from an array. Each is a median over rounds, with the 5th and 95th percentile; `load_s` is what comes first. The
last line is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.evaluation import Budget
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.execution.cores import no_garbage_collection
from gnncompose.reward import WeightedSum
from gnncompose.tasks.task import World

COMPOSITIONS = 4000


def rates(run: Callable[[], int], rounds: int) -> np.ndarray:
    """How many things a second each round did."""
    found = np.empty(rounds)
    with no_garbage_collection():
        for number in range(rounds):
            started = time.perf_counter()
            count = run()
            found[number] = count / (time.perf_counter() - started)
    return found


def figures(table: str, condition: str, rounds: int) -> dict:
    started = time.perf_counter()
    evaluator = TableEvaluator(recorded_task(table), World(condition), load_prices())
    evaluator.evaluate(evaluator.task.space.start)
    load_s = time.perf_counter() - started
    reward = WeightedSum().bind(evaluator.task.catalog, load_prices(), evaluator.world)
    drawn = np.random.default_rng(0).choice(len(evaluator.table), COMPOSITIONS, replace=False)
    compositions = [evaluator.table.space.composition(int(row)) for row in drawn]
    rewards, rows = evaluator.rewards(reward), np.random.default_rng(1).integers(len(evaluator.table), size=1_000_000)

    def replay() -> int:
        for composition in compositions:
            evaluator.evaluate(composition)
        return len(compositions)

    def budgeted() -> int:
        budget = Budget(evaluator, reward, COMPOSITIONS)
        for composition in compositions:
            budget.evaluate(composition)
        return len(compositions)

    def read() -> int:
        return len(rewards[rows])

    ways = {
        "replayed_evaluations_per_s": replay,
        "budgeted_evaluations_per_s": budgeted,
        "rows_per_s": read,
    }
    found = {"table": table, "condition": condition, "compositions": len(evaluator.table), "load_s": round(load_s, 3)}
    for name, way in ways.items():
        measured = rates(way, rounds)
        found[name] = round(float(np.median(measured)))
        found[f"{name}_spread"] = [round(float(np.percentile(measured, percent))) for percent in (5, 95)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default="digits")
    parser.add_argument("--condition", default="clean")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    try:
        print(json.dumps(figures(arguments.table, arguments.condition, arguments.rounds)))
    except GnncomposeError as problem:
        raise SystemExit(f"error: {problem}") from None


if __name__ == "__main__":
    main()
