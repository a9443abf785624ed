import numpy as np
import pytest

from gnncompose.tasks.factory.artifact import Artifact, run
from gnncompose.tasks.factory.series_features import rocket, spectrum, summary

CHANNELS, LENGTH = 2, 40


@pytest.fixture
def series() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((30, CHANNELS, LENGTH), dtype=np.float32)


def content(artifact: Artifact) -> bytes:
    return artifact.model.SerializeToString(deterministic=True)


def test_summary__holds_the_statistics_of_each_channel(series: np.ndarray) -> None:
    squares = (series - series.mean(axis=2, keepdims=True)) ** 2
    pieces = [rows.reshape(30, CHANNELS, 8, LENGTH // 8).mean(axis=3) for rows in (series, squares)]
    step = np.abs(np.diff(series)).mean(axis=2)
    singles = [series.mean(2), series.std(2), series.min(2), series.max(2), step]
    expected = np.concatenate([np.stack(singles, axis=2), *pieces], axis=2).reshape(30, -1)
    np.testing.assert_allclose(run(summary(CHANNELS, LENGTH), series), expected, atol=1e-5)


def test_spectrum__agrees_with_the_fourier_transform_and_ignores_shifts(series: np.ndarray) -> None:
    artifact = spectrum(CHANNELS, LENGTH)
    expected = np.abs(np.fft.rfft(series))[:, :, 1:] * 2 / LENGTH
    np.testing.assert_allclose(run(artifact, series), expected.reshape(30, -1), atol=1e-5)
    np.testing.assert_allclose(run(artifact, np.roll(series, 7, axis=2)), run(artifact, series), atol=1e-5)


def test_rocket__repeats_with_its_seed_and_gives_two_features_a_kernel(series: np.ndarray) -> None:
    first, again, other = (rocket("rocket", series, 24, seed, "test") for seed in (1, 1, 2))
    assert content(first) == content(again)
    assert content(first) != content(other)
    assert run(first, series).shape == (30, 48)


def test_rocket__shares_lie_between_none_and_all_and_vary_in_train(series: np.ndarray) -> None:
    features = run(rocket("rocket", series, 20, 0, "test"), series)
    # Kernels of three dilations; shares and largest responses take turns by dilation.
    shares = features[:, :7]
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert (features.std(axis=0) > 0).all()


@pytest.mark.parametrize("extractor", ["rocket", "summary", "spectrum"])
def test_extractor__treats_rows_by_themselves(extractor: str, series: np.ndarray) -> None:
    made = {
        "rocket": lambda: rocket("rocket", series, 16, 0, "test"),
        "summary": lambda: summary(CHANNELS, LENGTH),
        "spectrum": lambda: spectrum(CHANNELS, LENGTH),
    }
    artifact = made[extractor]()
    alone = np.concatenate([run(artifact, series[i : i + 1]) for i in range(len(series))])
    np.testing.assert_allclose(run(artifact, series), alone, atol=1e-5)
