"""The sandbox against a hostile corpus and mutated artifacts, and what it costs.

    python benchmarks/sandbox.py [--mutations 5000] [--task BUNDLE]

Every artifact of the corpus (tests/hostile.py) is evaluated and checked as a bundle, then as many mutations of real
artifacts run as asked for. A folder beside the bundle is watched (inotify) and compared before and after; where strace
is installed, the corpus runs once more under it, and every call by which a confined worker would reach a file, a
socket or a process is counted. Costs are measured in turn: the same compositions in this process and in the sandbox.
The last line is one JSON object.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import tracing
from fuzzing import Fuzzer, outcome
from hostile import SECRET, Corpus, alone
from mutations import mutations

from gnncompose.composition.tree import Composition
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.execution.forking import ForkServer
from gnncompose.execution.outputs import OutputCache
from gnncompose.execution.runner import LocalRunner, Workspace
from gnncompose.execution.sandbox import FULL, Sandbox
from gnncompose.execution.sessions import SessionPool
from gnncompose.execution.trust import trust_catalog
from gnncompose.execution.work import answers
from gnncompose.execution.worker import Limits, keep
from gnncompose.tasks.bundle import check_bundle, load_task
from gnncompose.tasks.shipped import load_shipped
from gnncompose.tasks.task import Split, Task, World

LIMITS = Limits(memory_bytes=512 << 20, timeout_s=2.0)
# A call may take its time limit twice, once to load and once to run, and some more to start again on a busy machine.
HANG_S = 6 * LIMITS.timeout_s


class Tally:
    """How calls ended.

    Attributes:
        ends: How many ended in each way.
        crashes: Calls that raised something else than one readable message.
        hangs: Calls that took far more than their time limit.
        leaks: Messages that held content of a file outside.
    """

    def __init__(self) -> None:
        self.ends = Counter[str]()
        self.crashes = self.hangs = self.leaks = 0

    def run(self, name: str, call: Callable[[], object]) -> None:
        """Make a call and note how it ended."""
        started = time.monotonic()
        try:
            answer = call()
            self.ends[answer if isinstance(answer, str) else "answered"] += 1
        except GnncomposeError as problem:
            self.ends[outcome(problem)] += 1
            self.leaks += SECRET.decode() in str(problem)
        except Exception as problem:
            self.crashes += 1
            print(f"{name} broke through: {problem!r}", flush=True)
        if time.monotonic() - started > HANG_S:
            self.hangs += 1
            print(f"{name} took {time.monotonic() - started:.1f} s", flush=True)


def evaluate_corpus(corpus: Corpus, tally: Tally) -> None:
    """Evaluate every artifact in one sandbox."""
    task = corpus.task
    evaluator = OnnxEvaluator(
        *(task, World("impulse"), load_prices()),
        rows=2,
        repeats=1,
        seconds=0.0,
        timeout_s=LIMITS.timeout_s,
        memory_bytes=LIMITS.memory_bytes,
        isolate="all",
    )
    for name in corpus.names:
        tally.run(f"evaluate {name}", lambda name=name: evaluator.evaluate(alone(task, name)))
    evaluator.evaluate(alone(task, corpus.sound))
    evaluator.isolation.close()


def hostile_figures(task: Task, count: int) -> dict:
    """The corpus and the mutations."""
    evaluated, checked, mutated = Tally(), Tally(), Tally()
    with tempfile.TemporaryDirectory() as folder, Corpus(Path(folder) / "corpus", task.directory) as corpus:
        started = time.perf_counter()
        evaluate_corpus(corpus, evaluated)
        print(f"evaluated in {time.perf_counter() - started:.0f} s: {dict(evaluated.ends)}", flush=True)
        started = time.perf_counter()
        for name in corpus.names:
            checked.run(f"check {name}", lambda name=name: check_bundle(corpus.bundle(name), LIMITS))
        print(f"checked in {time.perf_counter() - started:.0f} s: {dict(checked.ends)}", flush=True)
        started = time.perf_counter()
        fuzzer = Fuzzer(task.directory, Path(folder) / "fuzz", LIMITS)
        made = mutations(fuzzer.artifacts, np.random.default_rng(0))
        for _ in range(count):
            name, kind, content = next(made)
            mutated.run(f"{kind} of {name}", lambda name=name, content=content: fuzzer.run(name, content))
        fuzzer.close()
        print(f"mutations in {time.perf_counter() - started:.0f} s: {dict(mutated.ends)}", flush=True)
        touched = corpus.touched()
        artifacts = len(corpus.names)
    for line in touched:
        print(f"outside the bundle: {line}", flush=True)
    tallies = (evaluated, checked, mutated)
    return {
        "artifacts": artifacts,
        "mutations": mutated.ends.total() + mutated.crashes,
        "evaluated": dict(evaluated.ends),
        "checked": dict(checked.ends),
        "mutated": dict(mutated.ends),
        "crashes_of_run": sum(tally.crashes for tally in tallies),
        "hangs_of_run": sum(tally.hangs for tally in tallies),
        "files_touched_outside": len(touched),
        "leaks_in_messages": sum(tally.leaks for tally in tallies),
    }


def traced_figures(task: Task) -> dict:
    """The corpus once more, in a process that strace watches."""
    if not tracing.is_available():
        return {"traced_workers": None, "calls_beyond_connection": None}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--traced", folder, "--task", str(task.directory)]
        done, trace = tracing.traced(command, Path(folder) / "trace")
    if done.returncode:
        raise SystemExit(done.stderr)
    for word, calls in (("granted", trace.granted), ("refused", trace.refused)):
        for call in calls[:20]:
            print(f"{word} to a worker: {call}", flush=True)
    sizes = [re.search(r"= (\d+)$", call) for call in trace.granted if re.match(r"(p?read|p?write|send|recv)", call)]
    return {
        "traced_workers": len(trace.workers),
        "calls_beyond_connection": len(trace.granted),
        "calls_refused": len(trace.refused),
        "bytes_outside": sum(int(size[1]) for size in sizes if size),
    }


def spread(values: list[float], digits: int = 3) -> dict:
    """Median, and 5th and 95th percentile."""
    low, high = np.percentile(values, [5, 95])
    return {"median": round(median(values), digits), "p5_p95": [round(low, digits), round(high, digits)]}


def milliseconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - started)


def worker_figures(task: Task, count: int) -> dict:
    """Starting the fork server, and a worker in place of one that ended."""
    starts = []
    for _ in range(5):
        server = ForkServer(FULL)
        starts.append(milliseconds(lambda server=server: server.worker(LIMITS)[1].close()))
        server.close()
    sandbox, nothing = Sandbox(task.catalog, LIMITS), Split(np.zeros((1, 1)), np.zeros(1))
    sandbox.call(keep, nothing)
    fresh, again = [], []
    for _ in range(count):
        again.append(milliseconds(lambda: sandbox.call(keep, nothing)))
        sandbox.close()
        fresh.append(milliseconds(lambda: sandbox.call(keep, nothing)))
    sandbox.close()
    return {"fork_server_ms": spread(starts, 1), "fresh_worker_ms": spread(fresh), "empty_call_ms": spread(again)}


def in_turn(ways: dict[str, Callable[[Composition], object]], chosen: list[Composition]) -> dict[str, list[float]]:
    """Milliseconds of each way on each composition; who comes first changes."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn, composition in enumerate(chosen):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            times[name].append(milliseconds(lambda name=name, composition=composition: ways[name](composition)))
    return times


def overhead(times: dict[str, list[float]]) -> dict:
    """The sandbox's time over this process', by composition."""
    pairs = list(zip(times["sandbox"], times["here"], strict=True))
    return {
        "ratio": spread([ours / theirs for ours, theirs in pairs]),
        "ratio_of_sums": round(sum(times["sandbox"]) / sum(times["here"]), 3),
        "ms": spread([ours - theirs for ours, theirs in pairs]),
    }


def overhead_figures(task: Task, count: int) -> dict:
    """Answers on a whole split, kept or computed, and whole evaluations with their timing."""
    generator, data = np.random.default_rng(0), task.split(task.conditions[-1], "validation")
    chosen = list({c.id: c for c in (task.space.random(generator, 10) for _ in range(4 * count))}.values())[:count]
    figures: dict = {}
    for name, kept in (("kept_answers", 1 << 30), ("answers", 0)):
        limits = Limits(cache_bytes=kept)
        sandbox = Sandbox(task.catalog, limits)
        local = LocalRunner(Workspace(SessionPool(task.catalog), OutputCache(kept)))
        ways = {
            "here": lambda c, local=local: local.call(answers, c, data),
            "sandbox": lambda c, sandbox=sandbox: sandbox.call(answers, c, data),
        }
        in_turn(ways, chosen)  # opens the sessions, and fills what is kept
        figures[f"overhead_{name}"] = overhead(in_turn(ways, chosen * 5))
        sandbox.close()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GNNCOMPOSE_TRUST"] = f"{folder}/trusted.txt"
        trust_catalog(task.catalog, "for a benchmark")
        world, prices = World(task.conditions[-1]), load_prices()
        here, there = (OnnxEvaluator(task, world, prices, isolate=choice) for choice in ("untrusted", "all"))
        assert all(here.isolation.is_trusted(c) and not there.isolation.is_trusted(c) for c in chosen)
        latency: dict[str, list[float]] = {"here": [], "sandbox": []}
        ways = {
            "here": lambda c: latency["here"].append(here.evaluate(c).latency_ms_mean),
            "sandbox": lambda c: latency["sandbox"].append(there.evaluate(c).latency_ms_mean),
        }
        in_turn(ways, chosen[:1])
        latency["here"].clear()
        latency["sandbox"].clear()
        figures["overhead_evaluation"] = overhead(in_turn(ways, chosen))
        there.isolation.close()
    ratios = [a / b for a, b in zip(latency["sandbox"], latency["here"], strict=True)]
    return figures | {"latency_in_sandbox_over_here": spread(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", type=Path, help="folder of the bundle of digits; built where needed")
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=200, help="fresh workers that are timed")
    parser.add_argument("--compositions", type=int, default=40, help="compositions whose overhead is measured")
    parser.add_argument("--traced", type=Path, help="only evaluate the corpus, in this folder; for strace")
    arguments = parser.parse_args()
    task = load_task(arguments.task) if arguments.task else load_shipped("digits", build=True)
    if arguments.traced:
        with Corpus(arguments.traced / "corpus", task.directory) as corpus:
            return evaluate_corpus(corpus, Tally())
    figures = hostile_figures(task, arguments.mutations)
    figures |= traced_figures(task)
    figures |= worker_figures(task, arguments.workers)
    figures |= overhead_figures(task, arguments.compositions)
    print(json.dumps(figures))
    return None


if __name__ == "__main__":
    main()
