"""Evaluations to fill a store with, made up but of the form that a measurement gives, and processes that write them."""

import multiprocessing
from dataclasses import replace

import numpy as np

from gnncompose.evaluation.evaluation import Evaluation, Measurement
from gnncompose.evaluation.store import EvaluationStore, Key
from gnncompose.tasks.task import World


def key(number: int = 0, **changes) -> Key:
    return replace(Key(f"{number:032d}", "data", "cpu-1", "single_stream", 1, "2 accuracy"), **changes)


def evaluation(number: int = 0, latency_ms: float = 0.25, **changes) -> Evaluation:
    generator = np.random.default_rng([number, int(1000 * latency_ms)])
    samples_ms = generator.exponential(latency_ms, (7, 3))
    measurement = Measurement(
        samples_ms=samples_ms,
        cpu_ms=latency_ms / 2,
        throughput_per_s=900 / latency_ms,
        peak_memory_bytes=3_000_000_000,
        artifact_bytes=123_456,
        reference_ms=0.02,
        noise=1.25,
    )
    found = Evaluation(
        composition_id=f"{number:032d}",
        world=World(),
        split="validation",
        metric=0.75,
        score=0.5,
        latency_ms_mean=latency_ms,
        latency_ms_p50=latency_ms * 1.1,
        latency_ms_p90=latency_ms * 1.2,
        latency_ms_p95=latency_ms * 1.3,
        latency_ms_p99=None,
        throughput_per_s=measurement.throughput_per_s,
        cpu_ms=measurement.cpu_ms,
        cost_usd_per_million=0.0,
        peak_memory_bytes=measurement.peak_memory_bytes,
        artifact_bytes=measurement.artifact_bytes,
        evaluator="onnx",
        wall_s=1.5,
        measurement=measurement,
    )
    return replace(found, **changes)


def in_processes(target, jobs: list[tuple]) -> list[int | None]:
    """Exit codes of processes that run side by side, one per job."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(jobs))
    processes = [context.Process(target=target, args=(barrier, *job)) for job in jobs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def open_store(barrier, url: str) -> None:
    barrier.wait()
    EvaluationStore(url).close()


def write_evaluations(barrier, url: str, first: int, count: int, latency_ms: float) -> None:
    barrier.wait()
    with EvaluationStore(url) as store:
        for number in range(first, first + count):
            store.put(key(number), evaluation(number, latency_ms))
