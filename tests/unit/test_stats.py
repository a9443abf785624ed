import numpy as np
import pytest

from gnncompose.stats import bootstrap_interval, interquartile_mean


def test_interquartile_mean__is_the_mean_of_the_middle_half() -> None:
    assert interquartile_mean(np.array([100.0, 1, 2, 3, 4, -50, 5, 6])) == pytest.approx(np.mean([2, 3, 4, 5]))


def test_bootstrap_interval__covers_the_true_centre_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_interval(generator.normal(size=20), generator, resamples=400)
        hits += low <= 0.0 <= high
    assert 170 <= hits <= 200


def test_bootstrap_interval__redraws_within_strata_only() -> None:
    values = np.column_stack([np.zeros(10), np.full(10, 1.0)])
    low, high = bootstrap_interval(values, np.random.default_rng(0), statistic=lambda v: v.mean(axis=-1))
    assert low == high == 0.5


def test_bootstrap_interval__same_generator_same_interval() -> None:
    values = np.random.default_rng(1).random((10, 3))
    first = bootstrap_interval(values, np.random.default_rng(7), resamples=100)
    assert first == bootstrap_interval(values, np.random.default_rng(7), resamples=100)


def test_bootstrap_interval__refuses_a_single_seed() -> None:
    with pytest.raises(ValueError, match="two seeds"):
        bootstrap_interval(np.array([1.0]), np.random.default_rng(0))
