"""Timing, memory, prices, metrics: what must hold whatever the machine does."""

import gc
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from sklearn import metrics as sklearn_metrics

from gnncompose.errors import EvaluationError, TaskError
from gnncompose.evaluation.cost import load_prices, require_provider
from gnncompose.evaluation.metrics import METRICS, find_metric
from gnncompose.execution.cores import claimed_cores
from gnncompose.execution.latency import Effort, measure, sample_rows

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system knows no affinity")


def test_measure__keeps_every_sample_and_leaves_the_process_as_it_was() -> None:
    seen: list[int] = []
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    collecting: set[bool] = set()

    def run(row: int) -> None:
        seen.append(row)
        collecting.add(gc.isenabled())

    timing = measure(run, list(range(7)), Effort(repeats=3, seconds=0.0))
    assert timing.samples_ms.shape == (7, 3)
    assert (timing.samples_ms > 0).all()
    assert timing.cpu_ms > 0
    assert timing.reference_ms > 0
    assert all(seen.count(row) >= 4 for row in range(7))
    assert collecting == {False}
    assert gc.isenabled()
    assert affinity is None or os.sched_getaffinity(0) == affinity


def test_measure__restores_affinity_when_what_it_times_fails() -> None:
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None

    def fail(row: int) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        measure(fail, [1], Effort(repeats=2))
    assert gc.isenabled()
    assert before is None or os.sched_getaffinity(0) == before


def test_sample_rows__are_always_the_same_distinct_ones() -> None:
    rows = sample_rows(1000, 48)
    assert len(set(rows.tolist())) == 48
    assert (rows == sample_rows(1000, 48)).all()
    assert list(sample_rows(5, 48)) == [0, 1, 2, 3, 4]


@pytest.fixture
def own_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims of other measurements on this machine must not get in the way."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def _hold(connection) -> None:
    with claimed_cores() as cores:
        connection.send(cores)
        connection.recv()


@needs_affinity
@pytest.mark.usefixtures("own_claims")
def test_claimed_cores__two_processes_hold_different_ones() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core only")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_hold, args=(theirs,))
    process.start()
    try:
        other = ours.recv()
        with claimed_cores() as cores:
            assert not set(cores) & set(other)
            assert os.sched_getaffinity(0) == set(cores)
    finally:
        ours.send(None)
        process.join()


@needs_affinity
@pytest.mark.usefixtures("own_claims")
def test_claimed_cores__wait_for_a_holder_that_dies() -> None:
    code = "from gnncompose.execution.cores import claimed_cores; import os, time\n"
    code += "with claimed_cores(len(os.sched_getaffinity(0))): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    started = time.monotonic()
    with claimed_cores(len(os.sched_getaffinity(0))) as cores:
        assert len(cores) == len(os.sched_getaffinity(0))
    assert time.monotonic() - started < 50


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("accuracy", sklearn_metrics.accuracy_score),
        ("balanced_accuracy", sklearn_metrics.balanced_accuracy_score),
        ("f1_macro", lambda y, p: sklearn_metrics.f1_score(y, p, average="macro")),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_metric__is_that_of_scikit_learn(name: str, reference, seed: int) -> None:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(6), size=40).astype(np.float32)
    labels = generator.integers(0, 2 + seed, size=40)  # some classes never occur
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        expected = reference(labels, probabilities.argmax(axis=1))
    metric = METRICS[name]
    assert metric.compute(probabilities, labels) == pytest.approx(expected)
    assert metric.score(0.3) == 0.3


def test_metric__unknown_name_is_refused() -> None:
    with pytest.raises(TaskError, match="choose one of accuracy"):
        find_metric("acuracy")


def test_prices__are_dated_and_sourced() -> None:
    prices = load_prices(None)
    assert [resource.name for resource in prices.resources] == ["cpu-1", "cpu-2", "gpu"]
    assert all("https://" in resource.source and resource.date.year >= 2026 for resource in prices.resources)
    assert prices.resource("cpu-2").threads == 2
    assert prices.resource("gpu").provider == "CUDAExecutionProvider"
    with pytest.raises(EvaluationError, match='no resource "gpu-9"'):
        prices.usd_per_million("gpu-9", 1, 1, 1)


def test_prices__cpu_time_is_paid_when_used_and_memory_while_held() -> None:
    prices, hour_ms = load_prices(None), 3.6e6
    price = prices.resource("cpu-1")
    cost = prices.usd_per_million("cpu-1", cpu_ms=hour_ms, peak_memory_bytes=2 * 2**30, occupied_ms=3 * hour_ms)
    assert cost == pytest.approx(1e6 * (price.usd_per_vcpu_hour + 3 * 2 * price.usd_per_gb_hour))


def test_prices__gpu_is_paid_while_occupied() -> None:
    prices, hour_ms = load_prices(None), 3.6e6
    price = prices.resource("gpu")
    assert price.usd_per_gpu_hour > 0
    cost = prices.usd_per_million("gpu", cpu_ms=0.0, peak_memory_bytes=0, occupied_ms=hour_ms)
    assert cost == pytest.approx(1e6 * price.usd_per_gpu_hour)


def test_require_provider__names_the_package_that_brings_it() -> None:
    prices = load_prices(None)
    require_provider(prices.resource("cpu-1"))
    missing = prices.resource("gpu").model_copy(update={"provider": "RocketExecutionProvider"})
    with pytest.raises(EvaluationError, match='"gpu" needs RocketExecutionProvider'):
        require_provider(missing)
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(EvaluationError, match="install onnxruntime-gpu in place of onnxruntime"):
            require_provider(prices.resource("gpu"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("format: 1\nresources: []", "resources"), ("format: 1\nresource: 3", "unknown key|is missing"), ("a: [", "YAML")],
)
def test_prices__mistakes_in_the_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=message):
        load_prices(path)


def test_memory_helper__never_imports_torch() -> None:
    code = "import sys, gnncompose.execution.memory, gnncompose.execution.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
