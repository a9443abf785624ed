"""Our loads against MLPerf's LoadGen, on one composition, in turn, in one process on one claimed core.

    python benchmarks/speed/loadgen.py [--task digits] [--repetitions 7]

The composition is the dearest by profile of 300 random ones, so that LoadGen's own time per query counts little:
with a function that answers at once in its place, a median query takes `loadgen_single_stream_us` and
`loadgen_server_us` (where it mostly is the waking of a thread that slept until the query was due). Scenarios:
SingleStream (90th percentile, and its early-stopping estimate), Offline in batches of 64 (samples per second) and
Server (99th percentile) at the rate that keeps the composition busy for half of the time. LoadGen reports the
machine as it is, so our figures are taken back to it from the machine at its best. Ratios are ours over LoadGen's:
smallest, median and largest over the repetitions; `_net` takes LoadGen's own time off first. `discarded_agree` says
whether our early-stopping rule discarded as many samples as LoadGen's in every run. The last line is one JSON object.
"""

import argparse
import ctypes
import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import mlperf_loadgen
import numpy as np

from gnncompose.composition.tree import Composition
from gnncompose.execution.cores import claimed_cores, no_garbage_collection
from gnncompose.execution.latency import Effort, sample_rows
from gnncompose.execution.load import Load, Offline, Server, SingleStream
from gnncompose.execution.percentiles import discarded, early_stopping_estimate
from gnncompose.execution.plan import Plan
from gnncompose.execution.reference import baseline_ns
from gnncompose.execution.sessions import SessionPool
from gnncompose.provenance import hardware
from gnncompose.tasks.shipped import open_task
from gnncompose.tasks.task import Task

ROWS, BATCH, CANDIDATES = 128, 64, 300
QUERIES = 2048
SERVER_QUERIES = 8192
UTILISATION = 0.5
PR_SET_TIMERSLACK = 29
Run = Callable[[np.ndarray], np.ndarray]


def dearest(task: Task) -> Composition:
    """By profile, of random compositions; always the same for a bundle."""
    generator = np.random.default_rng(0)
    candidates = [task.space.random(generator, 10) for _ in range(CANDIDATES)]
    return max(candidates, key=lambda c: sum(node.operator.profile.latency_ms or 0.0 for node in c.nodes))


@dataclass
class LoadGen:
    """Runs LoadGen's scenarios on a function of rows.

    LoadGen issues queries from the calling thread; that thread is pinned at the first query, so that LoadGen's own
    logging threads, which inherit where they may run, stay off the core. Sleeping until a query is due is made
    exact, since the system's default slack of 50 microseconds would count as latency.

    Attributes:
        rows: [rows, ...]: the samples.
        cores: Where queries are answered.
        everywhere: Where LoadGen's other threads may run.
    """

    rows: np.ndarray
    cores: tuple[int, ...]
    everywhere: set[int]

    def run(self, run: Run, scenario: str, queries: int, batch: int = 1, rate_per_s: float = 1.0, seed: int = 0) -> str:
        """LoadGen's summary of one test."""
        settings = mlperf_loadgen.TestSettings()
        settings.scenario = getattr(mlperf_loadgen.TestScenario, scenario)
        settings.mode = mlperf_loadgen.TestMode.PerformanceOnly
        settings.min_duration_ms = 0
        settings.min_query_count = queries
        settings.single_stream_target_latency_percentile = 0.9
        settings.server_target_latency_percentile = 0.99
        settings.server_target_latency_ns = 10**10  # never the reason to stop
        settings.server_target_qps = rate_per_s
        settings.schedule_rng_seed = settings.sample_index_rng_seed = settings.qsl_rng_seed = seed

        singles = [self.rows[i : i + 1].copy() for i in range(len(self.rows))]

        def issue(samples: list[mlperf_loadgen.QuerySample]) -> None:
            os.sched_setaffinity(0, self.cores)
            for first in range(0, len(samples), batch):
                part = samples[first : first + batch]
                run(singles[part[0].index] if len(part) == 1 else self.rows[[sample.index for sample in part]])
                answers = [mlperf_loadgen.QuerySampleResponse(sample.id, 0, 0) for sample in part]
                mlperf_loadgen.QuerySamplesComplete(answers)

        with tempfile.TemporaryDirectory() as folder:
            output = mlperf_loadgen.LogOutputSettings()
            output.outdir, output.copy_summary_to_stdout = folder, False
            logs = mlperf_loadgen.LogSettings()
            logs.log_output, logs.enable_trace = output, False
            sut = mlperf_loadgen.ConstructSUT(issue, lambda: None)
            samples = mlperf_loadgen.ConstructQSL(len(self.rows), len(self.rows), lambda _: None, lambda _: None)
            ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
            os.sched_setaffinity(0, self.everywhere)
            try:
                mlperf_loadgen.StartTestWithLogSettings(sut, samples, settings, logs)
            finally:
                os.sched_setaffinity(0, self.cores)
                ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 0, 0, 0, 0)
            mlperf_loadgen.DestroyQSL(samples)
            mlperf_loadgen.DestroySUT(sut)
            return (Path(folder) / "mlperf_log_summary.txt").read_text()


def figure(summary: str, pattern: str) -> float:
    """The number that a pattern captures in LoadGen's summary."""
    found = re.search(pattern, summary)
    if found is None:
        raise SystemExit(f"LoadGen's summary has no {pattern!r}:\n{summary}")
    return float(found[1])


@dataclass
class Ours:
    """Runs our loads on a function of rows.

    Attributes:
        rows: [rows, ...]: the samples.
        baseline_ns: The reference's time at the machine's best.
        noise: Of every timing so far.
    """

    rows: np.ndarray
    baseline_ns: float
    noise: list[float] = field(default_factory=list)

    def time(self, run: Run, load: Load, queries: int) -> tuple[np.ndarray, float]:
        """Samples in nanoseconds, and rows per second, of the machine as it was and not as it is at its best."""
        requests = load.rows(Effort(ROWS)) // load.batch
        effort = Effort(ROWS, repeats=-(-queries // requests), seconds=0.0)
        timing = load.time(run, self.rows, effort, 1, self.baseline_ns)
        slowdown = timing.reference_ms * 1e6 / self.baseline_ns
        self.noise.append(timing.noise)
        return timing.samples_ms * slowdown * 1e6, timing.throughput_per_s / slowdown


def in_turn(mine: Callable[[], tuple[np.ndarray, float]], theirs: Callable[[], str], swap: bool) -> tuple:
    """Both, the other one first where they swap."""
    if swap:
        summary = theirs()
        return (*mine(), summary)
    return (*mine(), theirs())


def percentile_ns(summary: str, percent: int) -> float:
    """A percentile of LoadGen's latencies."""
    return figure(summary, rf"\n{percent}.00 percentile latency \(ns\) +: (\d+)")


def repetition(run: Run, ours: Ours, loadgen: LoadGen, rate_per_s: float, seed: int) -> dict[str, float]:
    """Every scenario once by both; ratios of ours over LoadGen's."""
    swap = bool(seed % 2)
    samples, _, single = in_turn(
        lambda: ours.time(run, SingleStream(), QUERIES),
        lambda: loadgen.run(run, "SingleStream", QUERIES, seed=seed),
        swap,
    )
    _, throughput, offline = in_turn(
        lambda: ours.time(run, Offline(BATCH), QUERIES // BATCH),
        lambda: loadgen.run(run, "Offline", 4 * QUERIES, batch=BATCH, seed=seed),
        swap,
    )
    latencies, _, server = in_turn(
        lambda: ours.time(run, Server(rate_per_s), SERVER_QUERIES),
        lambda: loadgen.run(run, "Server", SERVER_QUERIES, rate_per_s=rate_per_s, seed=seed),
        swap,
    )
    own = percentile_ns(loadgen.run(lambda rows: rows, "SingleStream", QUERIES, seed=seed), 50)
    own_server = percentile_ns(loadgen.run(lambda rows: rows, "Server", QUERIES, rate_per_s=rate_per_s, seed=seed), 50)
    estimate = figure(single, r"Early stopping 90.0th percentile estimate: (\d+)")
    queries = int(figure(single, r"Processed at least 64 queries \((\d+)\)"))
    p50, p90 = np.percentile(samples, [50, 90])
    server_p50, server_p99 = np.percentile(latencies, [50, 99])
    return {
        "single_stream_p50": p50 / percentile_ns(single, 50),
        "single_stream_p50_net": p50 / (percentile_ns(single, 50) - own),
        "single_stream_p90": p90 / percentile_ns(single, 90),
        "single_stream_p90_net": p90 / (percentile_ns(single, 90) - own),
        "single_stream_p90_estimate": (early_stopping_estimate(samples, 90) or np.nan) / estimate,
        "offline_samples_per_s": throughput / figure(offline, r"Samples per second: ([\d.]+)"),
        "server_p50": server_p50 / percentile_ns(server, 50),
        "server_p50_net": server_p50 / (percentile_ns(server, 50) - own_server),
        "server_p99": server_p99 / percentile_ns(server, 99),
        "discarded_agree": discarded(queries, 90) == figure(single, r"Would discard (\d+) highest"),
        "loadgen_single_stream_us": own / 1000,
        "loadgen_server_us": own_server / 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="digits", help="a shipped task's name, or the folder of a bundle")
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    task = open_task(arguments.task)
    composition = dearest(task)
    plan = Plan(composition, SessionPool(task.catalog))
    x = task.split("clean", "validation").x
    rows = x[sample_rows(len(x), ROWS)]
    cpu, everywhere = str(hardware()["cpu"]), os.sched_getaffinity(0)
    with claimed_cores() as cores, no_garbage_collection():
        ours, loadgen = Ours(rows, baseline_ns(cpu)), LoadGen(rows, cores, everywhere)
        samples, _ = ours.time(plan.run, SingleStream(), QUERIES)
        rate_per_s = round(UTILISATION * 1e9 / float(np.median(samples, axis=1).mean()))
        print(f"{composition}\n{float(np.median(samples)) / 1e6:.3f} ms, server at {rate_per_s} per second")
        found = []
        for seed in range(arguments.repetitions):
            found.append(repetition(plan.run, ours, loadgen, rate_per_s, seed))
            print({name: round(float(value), 4) for name, value in found[-1].items()})
    record: dict[str, object] = {}
    for name in found[0]:
        values = [one[name] for one in found]
        spread = [min(values), float(np.median(values)), max(values)]
        record[name] = all(values) if name == "discarded_agree" else [round(float(value), 4) for value in spread]
    record |= {
        "latency_ms": round(float(np.median(samples)) / 1e6, 4),
        "rate_per_s": rate_per_s,
        "noise": round(max(ours.noise), 2),
        "repetitions": arguments.repetitions,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
