import numpy as np
import pytest

from gnncompose.tasks.series_conditions import MISSING, gaps, noise, scaled, series_conditions, spikes, wander

CONDITIONS = series_conditions()


@pytest.fixture
def series() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((200, 3, 50), dtype=np.float32)


@pytest.mark.parametrize("name", CONDITIONS)
def test_condition__keeps_shape_dtype_and_its_argument_and_repeats_with_the_seed(name: str, series: np.ndarray) -> None:
    before = series.copy()
    first, again = (CONDITIONS[name](series, np.random.default_rng(5)) for _ in range(2))
    assert first.shape == series.shape
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(series, before)


def test_spikes__hit_the_stated_share_up_and_down(series: np.ndarray) -> None:
    jumps = spikes(0.1, 6.0)(series, np.random.default_rng(0)) - series
    hit = np.abs(jumps) > 1e-3
    assert hit.mean() == pytest.approx(0.1, abs=0.01)
    assert np.abs(jumps[hit]).min() > 2.9
    assert np.abs(jumps).max() < 6.1
    assert (jumps[hit] > 0).mean() == pytest.approx(0.5, abs=0.05)


def test_noise__has_the_stated_deviation(series: np.ndarray) -> None:
    assert (noise(0.4)(series, np.random.default_rng(0)) - series).std() == pytest.approx(0.4, abs=0.01)


def test_wander__drifts_slowly_and_within_its_height(series: np.ndarray) -> None:
    baseline = wander(2.0)(series, np.random.default_rng(0)) - series
    assert np.abs(baseline).max() <= 2.51
    assert np.abs(np.diff(baseline)).max() < 0.2
    rise = baseline[:, :, -1] - baseline[:, :, 0]
    assert np.abs(rise).min() > 0.9
    assert (rise > 0).mean() == pytest.approx(0.5, abs=0.1)


def test_gaps__take_whole_stretches_of_all_channels(series: np.ndarray) -> None:
    broken = gaps(0.2, 2)(series, np.random.default_rng(0))
    out = broken == MISSING
    assert (out == out[:, :1]).all()
    assert set(out[:, 0].sum(axis=1)) <= set(range(5, 11))
    np.testing.assert_array_equal(broken[~out], series[~out])


def test_scaled__changes_gain_and_zero_point_of_a_row(series: np.ndarray) -> None:
    result = scaled(3.0, 1.0)(series, np.random.default_rng(0))
    gain = result.std(axis=(1, 2)) / series.std(axis=(1, 2))
    offset = result.mean(axis=(1, 2)) - gain * series.mean(axis=(1, 2))
    assert gain.min() >= 1 / 3.01
    assert gain.max() <= 3.01
    assert np.abs(offset).max() <= 1.01
    np.testing.assert_allclose(result, series * gain[:, None, None] + offset[:, None, None], atol=1e-4)


def test_missing_wander__keeps_the_baseline_out_of_the_gaps(series: np.ndarray) -> None:
    result = CONDITIONS["missing_wander"](series, np.random.default_rng(0))
    assert ((result == MISSING) | (result > MISSING / 2)).all()
    assert (result == MISSING).any()


def test_mixed__holds_every_other_condition(series: np.ndarray) -> None:
    result = CONDITIONS["mixed"](series, np.random.default_rng(0))
    untouched = (result == series).all(axis=(1, 2)).mean()
    broken = (result == MISSING).any(axis=(1, 2)).mean()
    assert untouched == pytest.approx(1 / 7, abs=0.07)
    assert broken == pytest.approx(2 / 7, abs=0.1)
