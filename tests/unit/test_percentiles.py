"""Which percentiles a number of samples tells: hand values, and what MLPerf's LoadGen printed for real runs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from gnncompose.evaluation.evaluation import Measurement
from gnncompose.execution.percentiles import discarded, early_stopping_estimate, percentile, samples_needed

PERCENTS = (50, 90, 95, 99)


@pytest.mark.parametrize(("percent", "count"), [(50, 11), (90, 64), (95, 130), (99, 662)])
def test_samples_needed__is_what_mlperf_demands(percent: int, count: int) -> None:
    assert samples_needed(percent) == count


@pytest.mark.parametrize(("count", "largest"), [(2048, 172), (2116, 178), (2145, 181), (7469, 685)])
def test_discarded__is_what_loadgen_logged(count: int, largest: int) -> None:
    assert discarded(count, 90) == largest


@given(st.sampled_from(PERCENTS), st.integers(11, 3000))
def test_discarded__is_the_most_that_the_binomial_rule_allows(percent: int, count: int) -> None:
    if count < samples_needed(percent):
        with pytest.raises(ValueError, match="needs"):
            discarded(count, percent)
        return
    over = discarded(count, percent) + 1
    assert binom.cdf(over, count, 1 - percent / 100) <= 0.01 < binom.cdf(over + 1, count, 1 - percent / 100)


@given(st.sampled_from(PERCENTS), st.integers(662, 2000), st.integers(0, 2**32 - 1))
def test_early_stopping_estimate__leaves_out_exactly_the_discarded(percent: int, count: int, seed: int) -> None:
    samples = np.random.default_rng(seed).permutation(count).astype(float)
    estimate = early_stopping_estimate(samples, percent)
    assert estimate == count - 1 - discarded(count, percent)
    plain = percentile(samples, percent)
    assert plain is not None
    assert plain <= estimate


def test_early_stopping_estimate__covers_the_true_percentile_in_99_of_100_runs() -> None:
    generator = np.random.default_rng(0)
    covered = [
        (early_stopping_estimate(generator.standard_exponential(700), 99) or 0) >= -np.log(0.01) for _ in range(1000)
    ]
    assert np.mean(covered) >= 0.98


@pytest.mark.parametrize("percent", PERCENTS)
def test_percentile__is_none_below_the_needed_count(percent: int) -> None:
    needed = samples_needed(percent)
    assert percentile(np.ones((1, needed - 1)), percent) is None
    assert early_stopping_estimate(np.ones(needed - 1), percent) is None
    assert percentile(np.ones((needed, 1)), percent) == 1.0


def measurement(count: int, noise: float) -> Measurement:
    samples = np.linspace(1, 2, count).reshape(count, 1)
    return Measurement(samples, 1.0, 1000.0, 1, 1, 0.02, noise)


@pytest.mark.parametrize(
    ("count", "noise", "told", "reason"),
    [
        (700, 1.05, [50, 90, 95, 99], ""),
        (240, 1.05, [50, 90, 95], "needs 662 samples and there are 240"),
        (100, 1.05, [50, 90], "needs 662 samples and there are 100"),
        (700, 9.0, [50, 90], r"too noisy \(noise 9.00"),
    ],
)
def test_measurement__withholds_what_samples_or_machine_do_not_tell(
    count: int, noise: float, told: list[int], reason: str
) -> None:
    found = measurement(count, noise)
    assert [percent for percent in PERCENTS if found.latency_ms_percentile(percent) is not None] == told
    assert (found.why_withheld(99) is None) == (99 in told)
    if reason:
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(found.why_withheld(99))
