"""Does screening by the cost model help? One agent, equal budgets of real measurements, with it and without.

    python benchmarks/hybrid.py --tasks digits fashion --budget 30 --seeds 10

Prints the best measured reward after so many measurements, mean over seeds with a 95 % bootstrap interval; the last
line is one JSON object.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from gnncompose.agents.agent import search
from gnncompose.agents.local_search import LocalSearch
from gnncompose.evaluation.cost import Prices, load_prices
from gnncompose.evaluation.evaluation import Budget
from gnncompose.evaluation.hybrid import HybridEvaluator
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.reward import WeightedSum
from gnncompose.tasks.shipped import load_shipped
from gnncompose.tasks.task import Task, World

MARKS = (5, 10, 20, 30, 50, 100)
RESAMPLES = 10_000


def run(task: Task, budget: int, seed: int, evaluator: OnnxEvaluator | HybridEvaluator, prices: Prices) -> dict:
    """One search; the best measured reward after each measurement, and what was predicted."""
    reward = WeightedSum().bind(task.catalog, prices, evaluator.world)
    if isinstance(evaluator, HybridEvaluator):
        evaluator.aim(reward)
    kept = Budget(evaluator, reward, budget)
    started = time.perf_counter()
    search(LocalSearch(), task.space, kept, np.random.default_rng(seed))
    wall_s = time.perf_counter() - started
    rewards = [trial.reward for trial in kept.trials if not trial.is_predicted]
    best = np.maximum.accumulate(rewards)
    best = np.concatenate([best, np.full(budget - len(best), best[-1])])
    return {
        "best": best.tolist(),
        "measured": kept.spent,
        "predicted": sum(trial.is_predicted for trial in kept.trials),
        "wall_s": round(wall_s, 1),
    }


def interval(values: np.ndarray, generator: np.random.Generator) -> list[float]:
    means = values[generator.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    return [float(value) for value in np.percentile(means, [2.5, 97.5])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["digits", "fashion"])
    parser.add_argument("--condition", default="mixed")
    parser.add_argument("--budget", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--artifact", default=None, help="file of a fitted cost model; by default the package's")
    parser.add_argument("--chance", type=float, default=0.2)
    parser.add_argument("--patience", type=int, default=40)
    parser.add_argument("--output", type=Path, default=None, help="where the runs go as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prices, generator = load_prices(), np.random.default_rng(0)
    found: dict = {}
    for name in arguments.tasks:
        task, world = load_shipped(name), World(arguments.condition)
        # one real evaluator for both, so that neither waits for sessions the other has open
        real = OnnxEvaluator(task, world, prices)
        settings = {"artifact": arguments.artifact, "chance": arguments.chance, "patience": arguments.patience}
        hybrid = partial(HybridEvaluator, task, world, prices, inner=lambda *_, real=real: real, **settings)
        runs = {"onnx": [], "hybrid": []}
        for seed in range(arguments.seeds):
            runs["onnx"].append(run(task, arguments.budget, seed, real, prices))
            runs["hybrid"].append(run(task, arguments.budget, seed, hybrid(), prices))
            shown = (f"{kind} {done[-1]['best'][-1]:.4f} ({done[-1]['wall_s']} s)" for kind, done in runs.items())
            print(name, seed, *shown, flush=True)
        found[name] = {
            kind: {
                **{
                    f"best_after_{mark}": [
                        float(np.mean([r["best"][mark - 1] for r in rows])),
                        *interval(np.array([r["best"][mark - 1] for r in rows]), generator),
                    ]
                    for mark in MARKS
                    if mark <= arguments.budget
                },
                "predicted": float(np.mean([r["predicted"] for r in rows])),
                "measured": float(np.mean([r["measured"] for r in rows])),
                "wall_s": float(np.mean([r["wall_s"] for r in rows])),
            }
            for kind, rows in runs.items()
        }
        if arguments.output:
            arguments.output.write_text(json.dumps(runs))
    for name, kinds in found.items():
        for kind, figures in kinds.items():
            shown = "  ".join(
                f"{key.removeprefix('best_after_'):>3}: {value[0]:.4f} [{value[1]:.4f}, {value[2]:.4f}]"
                for key, value in figures.items()
                if key.startswith("best")
            )
            print(f"{name:8} {kind:7} {shown}  predicted {figures['predicted']:.0f}")
    print(json.dumps({"budget": arguments.budget, "seeds": arguments.seeds, "condition": arguments.condition, **found}))


if __name__ == "__main__":
    main()
