import numpy as np
import pytest
from scipy.ndimage import median_filter, uniform_filter1d
from scipy.signal import detrend, savgol_filter

from gnncompose.tasks.factory.artifact import Artifact, run, session
from gnncompose.tasks.factory.series_filters import (
    despike,
    fill,
    median,
    moving_average,
    normalise,
    polynomial_detrend,
    savitzky_golay,
    series_filters,
)
from gnncompose.tasks.series_conditions import MISSING

CHANNELS, LENGTH, LONGEST_GAP = 3, 50, 12
FILTERS = {artifact.name: artifact for artifact in series_filters(CHANNELS, LENGTH, MISSING, LONGEST_GAP)}


@pytest.fixture
def series() -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.standard_normal((20, CHANNELS, LENGTH), dtype=np.float32).cumsum(axis=2)


def apply(artifact: Artifact, series: np.ndarray, **parameters: float) -> np.ndarray:
    scalars = {name: np.array(value, np.float32) for name, value in parameters.items()}
    return session(artifact.model).run(None, {"series": series, **scalars})[0]


@pytest.mark.parametrize("width", [3, 5, 7, 9])
def test_median__agrees_with_scipy(width: int, series: np.ndarray) -> None:
    expected = median_filter(series, size=(1, 1, width), mode="nearest")
    np.testing.assert_array_equal(run(median(CHANNELS, LENGTH, width), series), expected)


@pytest.mark.parametrize("width", [5, 9, 31])
def test_savitzky_golay__agrees_with_scipy(width: int, series: np.ndarray) -> None:
    expected = savgol_filter(series, width, 2, mode="nearest")
    np.testing.assert_allclose(run(savitzky_golay(CHANNELS, LENGTH, width), series), expected, atol=1e-4)


def test_moving_average__agrees_with_scipy(series: np.ndarray) -> None:
    expected = uniform_filter1d(series, 7, mode="nearest")
    np.testing.assert_allclose(run(moving_average(CHANNELS, LENGTH, 7), series), expected, atol=1e-5)


def test_polynomial_detrend__of_degree_one_agrees_with_scipy(series: np.ndarray) -> None:
    artifact = polynomial_detrend("detrend", CHANNELS, LENGTH, degree=1)
    np.testing.assert_allclose(run(artifact, series), detrend(series.astype(np.float64)), atol=1e-4)


def test_polynomial_detrend__takes_the_least_squares_polynomial_away(series: np.ndarray) -> None:
    time = np.arange(LENGTH)
    fitted = np.polynomial.Polynomial.fit(time, series[0, 0], 5)
    result = run(polynomial_detrend("baseline", CHANNELS, LENGTH, degree=5), series)[0, 0]
    np.testing.assert_allclose(result, series[0, 0] - fitted(time), atol=1e-4)


def test_normalise__gives_mean_zero_and_deviation_one_and_takes_a_flat_channel(series: np.ndarray) -> None:
    series[0, 1] = 4
    result = run(normalise(CHANNELS, LENGTH), series * 30 + 7)
    np.testing.assert_allclose(result.mean(axis=2), 0, atol=1e-5)
    deviation = result.std(axis=2)
    assert deviation[0, 1] == 0
    np.testing.assert_allclose(np.delete(deviation.ravel(), 1), 1, atol=1e-4)


@pytest.mark.parametrize("threshold", [0.5, 2.0])
def test_despike__takes_the_median_where_a_point_stands_out(threshold: float, series: np.ndarray) -> None:
    middle = median_filter(series, size=(1, 1, 5), mode="nearest")
    allowed = threshold * series.std(axis=2, keepdims=True)
    expected = np.where(np.abs(series - middle) > allowed, middle, series)
    result = apply(despike(CHANNELS, LENGTH, 5), series, threshold=threshold)
    assert 0 < (result != series).mean() < 1 or threshold == 2.0
    np.testing.assert_array_equal(result, expected)


def test_fill__interpolates_as_numpy_does(series: np.ndarray) -> None:
    generator = np.random.default_rng(1)
    starts = generator.integers(0, LENGTH - LONGEST_GAP + 1, 20)
    broken = series.copy()
    for row, start in zip(broken, starts, strict=True):
        row[:, start : start + LONGEST_GAP] = MISSING
    broken[0, :, :LONGEST_GAP] = MISSING  # an end that has nothing before it
    expected = broken.copy()
    time = np.arange(LENGTH)
    for row in expected.reshape(-1, LENGTH):
        known = row != MISSING
        row[~known] = np.interp(time[~known], time[known], row[known])
    np.testing.assert_allclose(run(fill(CHANNELS, LENGTH, MISSING, LONGEST_GAP), broken), expected, atol=1e-5)


def test_fill__leaves_whole_series_and_takes_empty_ones(series: np.ndarray) -> None:
    artifact = fill(CHANNELS, LENGTH, MISSING, LONGEST_GAP)
    np.testing.assert_array_equal(run(artifact, series), series)
    empty = np.full((1, CHANNELS, LENGTH), MISSING, np.float32)
    np.testing.assert_array_equal(run(artifact, empty), np.zeros_like(empty))


def test_clip__keeps_within_its_limit(series: np.ndarray) -> None:
    np.testing.assert_array_equal(apply(FILTERS["clip"], series, limit=1.5), np.clip(series, -1.5, 1.5))


@pytest.mark.parametrize("name", FILTERS)
def test_filter__treats_rows_by_themselves(name: str, series: np.ndarray) -> None:
    alone = np.concatenate([run(FILTERS[name], series[i : i + 1]) for i in range(len(series))])
    np.testing.assert_allclose(run(FILTERS[name], series), alone, atol=1e-6)
