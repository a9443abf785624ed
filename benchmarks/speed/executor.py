"""Speed of the executor: plans and merged models against hand-written chains, the prefix cache against its bound.

    python benchmarks/speed/executor.py [--task BUNDLE]

20 fixed compositions, 5 of them cascades, each at least 50 us chained. The contenders run the same rows in turn
on one claimed core, with the same session options. A ratio is the geometric mean over compositions of the ratio
of mean times, where a row's (or batch's) time is its median over the rounds; its spread comes from resampling
rounds. The prefix cache replays the 500 compositions that five local searches visit, each with and without the
cache in turn; its bound is node runs / distinct nodes. `evaluations_per_s_cold` are whole evaluations (score,
latency, memory) by a new evaluator; `evaluations_per_s_naive` the same by an evaluator made anew for each, which
opens every session again and recomputes everything; `evaluations_per_s_cached` the same ones again, from the store.
`scores_per_s` and `scores_per_s_naive` leave timing and memory out. The last line is one JSON object.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
from chained import Answer, chained

from gnncompose.agents.local_search import LocalSearch
from gnncompose.composition.tree import Composition, Node, make_node
from gnncompose.errors import CompositionError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.metrics import find_metric
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.execution.cores import claimed_cores, no_garbage_collection
from gnncompose.execution.merge import merge
from gnncompose.execution.outputs import OutputCache, whole_split_output
from gnncompose.execution.plan import Plan
from gnncompose.execution.sessions import SessionPool, session_options
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.shipped import load_shipped
from gnncompose.tasks.task import Split, Task, World

COMPOSITIONS, CASCADES = 20, 5
SHORTEST_US = 50
ESTIMATE_US = 80  # by profile, so that the choice is fixed; the measured time is checked
BATCH = 64
RESAMPLES = 200


def estimate_us(root: Node) -> float:
    """Sum of the profiled latencies of the distinct nodes."""
    return 1000 * sum(node.operator.profile.latency_ms or 0.0 for node in Composition(root).nodes)


def fixed_compositions(task: Task, seed: int = 0) -> list[Composition]:
    """15 random compositions without a cascade, and 5 cascades of such; always the same for a bundle."""
    if any(model.profile.latency_ms is None for model in task.catalog.models):
        raise SystemExit("the bundle has no profiles; run gnncompose catalog profile on it")
    generator = np.random.default_rng(seed)
    plain: dict[str, Composition] = {}
    while len(plain) < COMPOSITIONS - CASCADES + 3 * CASCADES:
        candidate = task.space.random(generator, 10)
        kinds = {node.operator.kind for node in candidate.nodes}
        if estimate_us(candidate.root) >= ESTIMATE_US and not kinds & {"cascade", "router"}:
            plain[candidate.id] = candidate
    chosen = list(plain.values())
    rest, stages = chosen[: COMPOSITIONS - CASCADES], chosen[COMPOSITIONS - CASCADES :]
    operator = next(iter(task.catalog.of_kind("cascade")))
    for number in range(CASCADES):
        inputs = [c.root for c in stages[3 * number : 3 * number + 2 + number % 2]]
        threshold = operator.parameters["threshold"].values[number % len(operator.parameters["threshold"].values)]
        try:
            rest.append(Composition(make_node(operator, inputs, {"threshold": threshold})))
        except CompositionError as problem:
            raise SystemExit(f"no cascade of {inputs}: {problem}") from None
    return rest


def contenders(composition: Composition, task: Task, sessions: SessionPool) -> dict[str, Answer]:
    """The three ways to answer, checked to agree."""
    content = merge(composition, task.catalog).SerializeToString()
    merged = ort.InferenceSession(content, session_options(), providers=["CPUExecutionProvider"])
    return {
        "chained": chained(composition.root, sessions),
        "plan": Plan(composition, sessions).run,
        "merged": lambda x: merged.run(["output"], {"input": x})[0],
    }


def timed(ways: dict[str, Answer], inputs: list[np.ndarray], rounds: int) -> dict[str, np.ndarray]:
    """float64[rounds, inputs] of nanoseconds for each way; the order turns from round to round."""
    times = {name: np.empty((rounds, len(inputs))) for name in ways}
    names, now = list(ways), time.perf_counter_ns
    for turn in range(-2, rounds):  # two rounds to warm up
        order = names[turn % 3 :] + names[: turn % 3]
        for i, x in enumerate(inputs):
            for name in order:
                way = ways[name]
                started = now()
                way(x)
                elapsed = now() - started
                if turn >= 0:
                    times[name][turn, i] = elapsed
    return times


def ratio(all_times: list[dict[str, np.ndarray]], way: str, rounds: np.ndarray | slice = slice(None)) -> float:
    """Geometric mean over compositions of a way's time over the chained one's."""
    logs = []
    for times in all_times:
        mine, chain = (np.median(times[name][rounds], axis=0).mean() for name in (way, "chained"))
        logs.append(np.log(mine / chain))
    return float(np.exp(np.mean(logs)))


def with_spread(all_times: list[dict[str, np.ndarray]], way: str) -> tuple[float, list[float]]:
    """The ratio, and its 5th and 95th percentile over resampled rounds."""
    generator, rounds = np.random.default_rng(0), len(all_times[0][way])
    draws = [ratio(all_times, way, generator.integers(rounds, size=rounds)) for _ in range(RESAMPLES)]
    return ratio(all_times, way), [round(float(p), 4) for p in np.percentile(draws, [5, 95])]


def compare_ways(task: Task, x: np.ndarray, rounds: int) -> dict:
    """Figures of plans and merged models against chains."""
    sessions = SessionPool(task.catalog)
    singles = [x[i : i + 1].copy() for i in np.linspace(0, len(x) - 1, 16).astype(int)]
    batches = [np.resize(x[i:], (BATCH, *x.shape[1:])) for i in (0, len(x) // 2)]
    b1: list[dict[str, np.ndarray]] = []
    b64: list[dict[str, np.ndarray]] = []
    for composition in fixed_compositions(task):
        ways = contenders(composition, task, sessions)
        expected = ways["chained"](batches[0])
        for name, way in ways.items():
            assert np.abs(way(batches[0]) - expected).max() < 1e-4, f"{name} differs on {composition}"
        with claimed_cores(), no_garbage_collection():
            b1.append(timed(ways, singles, rounds))
            b64.append(timed(ways, batches, rounds))
        us = {name: np.median(b1[-1][name], axis=0).mean() / 1000 for name in ways}
        us64 = {name: np.median(b64[-1][name], axis=0).mean() / 1000 for name in ways}
        shown = "  ".join(f"{name} {us[name]:7.1f} / {us64[name]:8.1f}" for name in ways)
        print(f"us at batch 1 / {BATCH}:  {shown}   {composition}"[:200], flush=True)
        assert us["chained"] >= SHORTEST_US, f"{composition} takes only {us['chained']:.1f} us"
    figures: dict = {}
    for key, times, way in (
        ("plan_over_chained_b1", b1, "plan"),
        ("plan_over_chained_b64", b64, "plan"),
        ("merged_over_chained_b1", b1, "merged"),
        ("merged_over_chained_b64", b64, "merged"),
    ):
        value, spread = with_spread(times, way)
        figures |= {key: round(value, 4), f"{key}_p5_p95": spread}
    return figures


def visited_by_local_searches(task: Task, world: World, count: int = 500, searches: int = 5) -> list[Composition]:
    """What local searches ask for, one search after the other; rewards are scores less profiled latency."""
    sessions, cache = SessionPool(task.catalog), OutputCache()
    metric, data = find_metric(task.metric), task.split(world.condition, "validation")
    slowest = max(model.profile.latency_ms or 1.0 for model in task.catalog.models)
    visited: list[Composition] = []
    for seed in range(searches):
        rewards: dict[str, float] = {}

        class Trial:
            def __init__(self, composition: Composition, reward: float) -> None:
                self.composition, self.reward = composition, reward

        proposals = LocalSearch().propose(task.space, count // searches, np.random.default_rng(seed))
        composition = next(proposals)
        while len(visited) < (seed + 1) * count // searches:
            if composition.id not in rewards:
                visited.append(composition)
                score = metric.score(metric.compute(whole_split_output(composition, data, sessions, cache), data.y))
                rewards[composition.id] = score - 0.05 * estimate_us(composition.root) / 1000 / slowest
            composition = proposals.send(Trial(composition, rewards[composition.id]))
    return visited


def prefix_cache(task: Task, world: World, repeats: int) -> dict:
    """Whole-split outputs of everything that five local searches visit, with and without the cache."""
    visited = visited_by_local_searches(task, world)
    runs = sum(len(composition.nodes) for composition in visited)
    distinct = len({node.id for composition in visited for node in composition.nodes})
    data, sessions = task.split(world.condition, "validation"), SessionPool(task.catalog)
    speedups: list[float] = []
    with claimed_cores(), no_garbage_collection():
        for composition in visited[:20]:
            whole_split_output(composition, data, sessions, OutputCache(0))
        for _ in range(repeats):
            cache, with_cache, without = OutputCache(), 0.0, 0.0
            for composition in visited:
                without += seconds(partial(whole_split_output, composition, data, sessions, OutputCache(0)))
                with_cache += seconds(partial(whole_split_output, composition, data, sessions, cache))
            speedups.append(without / with_cache)
            print(
                f"prefix cache: {without:.2f} s without, {with_cache:.2f} s with, {cache.bytes >> 20} MiB", flush=True
            )
    bound, speedup = runs / distinct, float(np.median(speedups))
    return {
        "prefix_cache_speedup": round(speedup, 3),
        "prefix_cache_speedups": [round(s, 3) for s in speedups],
        "prefix_cache_bound": round(bound, 3),
        "prefix_cache_over_bound": round(speedup / bound, 3),
        "prefix_cache_node_runs": runs,
        "prefix_cache_distinct_nodes": distinct,
    }


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def naive_scores(composition: Composition, data: Split, task: Task) -> None:
    """Answer a split as a first draft would: open every session anew, keep nothing."""
    whole_split_output(composition, data, SessionPool(task.catalog), OutputCache(0))


def throughput(task: Task, world: World, count: int) -> dict:
    """Evaluations per second, whole and scores only: first visits, a naive loop in turn with them, and the store."""
    compositions, data = visited_by_local_searches(task, world, count, 1), task.split(world.condition, "validation")
    seen: dict[str, list[float]] = {
        name: [] for name in ("evaluations_per_s_cold", "evaluations_per_s_naive", "scores_per_s", "scores_per_s_naive")
    }
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/evaluations.db"
        evaluator, again = (OnnxEvaluator(task, world, load_prices(), store=url) for _ in range(2))
        sessions, cache = SessionPool(task.catalog), OutputCache()
        evaluator.evaluate(task.space.start)  # starts the process that tells memory, which all share
        for composition in compositions:
            ways = (
                partial(evaluator.evaluate, composition),
                lambda c=composition: OnnxEvaluator(task, world, load_prices()).evaluate(c),
                partial(whole_split_output, composition, data, sessions, cache),
                partial(naive_scores, composition, data, task),
            )
            for times, way in zip(seen.values(), ways, strict=True):
                times.append(seconds(way))
        cached = [seconds(partial(again.evaluate, c)) for c in compositions]
    figures = {name: round(count / sum(times), 2) for name, times in seen.items()}
    return {
        **figures,
        "evaluations_per_s_cached": round(count / sum(cached), 1),
        "cold_over_naive": round(sum(seen["evaluations_per_s_naive"]) / sum(seen["evaluations_per_s_cold"]), 3),
        "scores_over_naive": round(sum(seen["scores_per_s_naive"]) / sum(seen["scores_per_s"]), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", type=Path, help="folder of a bundle; default: digits, built where needed")
    parser.add_argument("--condition", help="condition of the data; default: the last one")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--cache-repeats", type=int, default=3)
    arguments = parser.parse_args()
    task = load_task(arguments.task) if arguments.task else load_shipped("digits", build=True)
    world = World(arguments.condition or task.conditions[-1])
    figures = {"task": task.name, "condition": world.condition}
    figures |= compare_ways(task, task.split(world.condition, "validation").x, arguments.rounds)
    figures |= prefix_cache(task, world, arguments.cache_repeats)
    figures |= throughput(task, world, 40)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
