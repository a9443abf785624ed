"""Are measurements the same tomorrow? The same random compositions, measured twice, in two fresh processes.

    python benchmarks/repeatability.py [--tasks digits fashion] [--compositions 100] [--load single_stream]

Each process measures the compositions in an order of its own: once on a machine that is left alone (`idle`), once
while another process keeps one core busy (`loaded`). For latency and CPU time it gives Kendall's tau between the two
processes; `deviation`, the median of |log(first / second)|; how many of the pairs of compositions the processes rank
differently, and how many of these differ by less than 3 %, mean of both, so that no protocol could tell them apart
for certain. `slower` is the median of log(loaded / idle): 0 where the correction for a slower machine is exact.
`p99_told` is the share of measurements that were steady enough for a p99; then how far the two processes' p99s are
apart, where both would tell them and where one would withhold it. The last line is one JSON object.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from gnncompose.composition.tree import Composition
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.tasks.shipped import open_task
from gnncompose.tasks.task import Task, World

FIGURES = ("latency_ms_mean", "cpu_ms")
CLOSE = 0.03
BUSY = "import numpy as np\nx = np.ones((256, 256), np.float32)\nwhile True: sum(range(20000)); x @ x"


def some_compositions(task: Task, count: int) -> list[Composition]:
    """Distinct random ones, always the same for a bundle."""
    generator, found = np.random.default_rng(0), {}
    while len(found) < count:
        composition = task.space.random(generator, 10)
        found[composition.id] = composition
    return list(found.values())


def measure_all(task: Task, count: int, load: str, seed: int) -> dict[str, dict[str, float]]:
    """Figures by composition; the order is drawn."""
    evaluator = OnnxEvaluator(task, World(load=load), load_prices(), measure_memory=False)
    compositions = some_compositions(task, count)
    found: dict[str, dict[str, float]] = {}
    for i in np.random.default_rng(seed).permutation(count):
        measurement = evaluator.measure(compositions[i])
        found[compositions[i].id] = {name: getattr(measurement, name) for name in FIGURES} | {
            "noise": measurement.noise,
            "p99": float(np.percentile(measurement.samples_ms, 99)),
            "p99_told": float(measurement.why_withheld(99) is None),
            "samples": measurement.samples_ms.size,
        }
    return found


def in_fresh_process(task: str, count: int, load: str, seed: int) -> dict[str, np.ndarray]:
    """Figures as arrays, compositions in a fixed order."""
    command = [sys.executable, str(Path(__file__)), "--worker", str(seed), "--tasks", task]
    command += ["--compositions", str(count), "--load", load]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    names = next(iter(found.values())).keys()
    return {name: np.array([found[key][name] for key in sorted(found)]) for name in names}


def agreement(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """How well two measurements of the same compositions agree."""
    i, j = np.triu_indices(len(first), 1)
    logs = np.log(np.stack([first, second]))
    gaps = logs[:, i] - logs[:, j]
    discordant = gaps[0] * gaps[1] < 0
    return {
        "tau": round(float(kendalltau(first, second).statistic), 4),
        "deviation": round(float(np.median(np.abs(logs[0] - logs[1]))), 4),
        "largest_deviation": round(float(np.max(np.abs(logs[0] - logs[1]))), 4),
        "pairs": len(i),
        "discordant": int(discordant.sum()),
        "discordant_close": int((discordant & (np.abs(gaps.mean(axis=0)) < CLOSE)).sum()),
    }


def tail_agreement(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict[str, float | None]:
    """How well p99s agree: those that both processes would tell, and those that at least one would withhold."""
    apart = np.abs(np.log(first["p99"] / second["p99"]))
    told = first["p99_told"] * second["p99_told"] > 0
    return {
        "p99_told": round(float(np.mean([first["p99_told"], second["p99_told"]])), 3),
        "p99_deviation_told": round(float(np.median(apart[told])), 4) if told.any() else None,
        "p99_deviation_withheld": round(float(np.median(apart[~told])), 4) if not told.all() else None,
    }


def compare(task: str, count: int, load: str) -> dict[str, dict[str, object]]:
    """Both conditions of the machine, two processes in each."""
    record: dict[str, dict[str, object]] = {}
    runs: dict[str, list[dict[str, np.ndarray]]] = {}
    for condition in ("idle", "loaded"):
        busy = subprocess.Popen([sys.executable, "-c", BUSY]) if condition == "loaded" else None
        try:
            started = time.perf_counter()
            first, second = (in_fresh_process(task, count, load, seed) for seed in (1, 2))
        finally:
            if busy is not None:
                busy.kill()
                busy.wait()
        runs[condition] = [first, second]
        record[condition] = {
            **{name: agreement(first[name], second[name]) for name in FIGURES},
            "noise_median": round(float(np.median([first["noise"], second["noise"]])), 3),
            "noise_p90": round(float(np.percentile([first["noise"], second["noise"]], 90)), 3),
            **tail_agreement(first, second),
            "seconds": round(time.perf_counter() - started, 1),
        }
        print(task, condition, json.dumps(record[condition]), flush=True)
    for name in FIGURES:
        idle, loaded = (np.log([run[name] for run in runs[condition]]).mean(axis=0) for condition in runs)
        record["loaded"][f"{name}_slower"] = round(float(np.median(loaded - idle)), 4)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["digits", "fashion"], help="shipped tasks or bundles' folders")
    parser.add_argument("--compositions", type=int, default=100)
    parser.add_argument("--load", default="single_stream")
    parser.add_argument("--worker", type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        task = open_task(arguments.tasks[0])
        print(json.dumps(measure_all(task, arguments.compositions, arguments.load, arguments.worker)))
        return
    found = {task: compare(task, arguments.compositions, arguments.load) for task in arguments.tasks}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
