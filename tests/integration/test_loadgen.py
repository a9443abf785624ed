"""The early-stopping rule against MLPerf's LoadGen, really run."""

import re
from pathlib import Path

import pytest

from gnncompose.execution.percentiles import discarded, samples_needed

mlperf_loadgen = pytest.importorskip("mlperf_loadgen")


def single_stream_summary(queries: int, percent: int, folder: Path) -> str:
    """What LoadGen says of a SingleStream run whose queries are answered at once."""
    settings = mlperf_loadgen.TestSettings()
    settings.scenario = mlperf_loadgen.TestScenario.SingleStream
    settings.mode = mlperf_loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = 0
    settings.min_query_count = settings.max_query_count = queries
    settings.single_stream_target_latency_percentile = percent / 100
    logs = mlperf_loadgen.LogSettings()
    logs.log_output.outdir, logs.log_output.copy_summary_to_stdout = str(folder), False

    def issue(samples: list) -> None:
        mlperf_loadgen.QuerySamplesComplete([mlperf_loadgen.QuerySampleResponse(s.id, 0, 0) for s in samples])

    sut = mlperf_loadgen.ConstructSUT(issue, lambda: None)
    samples = mlperf_loadgen.ConstructQSL(8, 8, lambda _: None, lambda _: None)
    try:
        mlperf_loadgen.StartTestWithLogSettings(sut, samples, settings, logs)
    finally:
        mlperf_loadgen.DestroyQSL(samples)
        mlperf_loadgen.DestroySUT(sut)
    return (folder / "mlperf_log_summary.txt").read_text()


@pytest.mark.parametrize("percent", [50, 90, 95, 99])
@pytest.mark.parametrize("extra", [0, 1, 137, 1500])
def test_discarded__is_what_loadgen_discards(percent: int, extra: int, tmp_path: Path) -> None:
    queries = samples_needed(percent) + extra
    summary = single_stream_summary(queries, percent, tmp_path)
    found = re.search(r"Would discard (\d+) highest latency queries", summary)
    assert found is not None, summary
    assert discarded(queries, percent) == int(found[1])


@pytest.mark.parametrize("percent", [50, 90, 95, 99])
def test_samples_needed__one_fewer_is_too_few_for_loadgen(percent: int, tmp_path: Path) -> None:
    needed = samples_needed(percent)
    summary = single_stream_summary(needed - 1, percent, tmp_path)
    assert f"Need to process at least {needed} queries for early stopping" in summary
