import numpy as np
import pytest
from scipy.stats import bootstrap

from gnncompose.stats import (
    alike,
    best_at,
    bootstrap_interval,
    censored_median,
    critical_difference,
    evaluations_to,
    friedman,
    interquartile_mean,
    mean_ranks,
    normalised_regret,
)

# Demšar, JMLR 2006, table 6: AUC of C4.5 with the parameters m and cf as they are, or chosen, on 14 data sets.
# The paper ranks its two .975 apart, which three digits do not tell.
DEMSAR = np.array(
    [
        [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.0, 0.940, 0.619, 0.972, 0.957],
        [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.0, 0.962, 0.666, 0.981, 0.978],
        [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.0, 0.965, 0.614, 0.9751, 0.946],
        [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.0, 0.962, 0.669, 0.975, 0.970],
    ]
)


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


def test_bootstrap_interval__of_a_curve_is_that_of_each_of_its_points() -> None:
    values = np.random.default_rng(1).random((10, 3, 4))[..., [2, 2, 0, 1, 3, 3]]
    curve = np.array(bootstrap_interval(values, np.random.default_rng(7), resamples=100))
    points = [bootstrap_interval(values[..., point], np.random.default_rng(7), resamples=100) for point in range(6)]
    np.testing.assert_array_equal(curve, np.array(points).T)


def test_bootstrap_interval__refuses_a_single_seed() -> None:
    with pytest.raises(ValueError, match="two seeds"):
        bootstrap_interval(np.array([1.0]), np.random.default_rng(0))


def test_bootstrap_interval__agrees_with_scipy_on_strata() -> None:
    values = np.random.default_rng(2).gamma(2.0, size=(10, 4)) * [1, 2, 5, 0.1]
    own = bootstrap_interval(values, np.random.default_rng(3), resamples=20_000)

    def pooled(*strata: np.ndarray, axis: int) -> np.ndarray:
        return interquartile_mean(np.concatenate(strata, axis=axis))

    # several samples, redrawn apart from each other, are scipy's words for strata
    theirs = bootstrap(
        tuple(values.T), pooled, method="percentile", n_resamples=20_000, rng=np.random.default_rng(4), batch=1000
    ).confidence_interval
    width = theirs.high - theirs.low
    assert own == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)


def test_bootstrap_interval__agrees_with_rliable() -> None:
    # get_interval_estimates of rliable 1.2.0 (arch 7.2.0, pandas 2.3.3) with aggregate_iqm and 50,000 repetitions; it
    # refuses pandas 3, so its figures stand here
    values = np.random.default_rng(5).beta(2, 5, size=(10, 6))
    assert interquartile_mean(values.ravel()) == pytest.approx(0.28197232, abs=1e-8)
    own = bootstrap_interval(values, np.random.default_rng(6), resamples=20_000)
    assert own == pytest.approx((0.23868666, 0.33228149), abs=0.002)
    curve = np.random.default_rng(6).random((8, 3, 2))
    assert interquartile_mean(curve.reshape(24, 2).T) == pytest.approx([0.47879027, 0.5105225], abs=1e-8)
    low, high = bootstrap_interval(curve, np.random.default_rng(7), resamples=20_000)
    assert low == pytest.approx([0.29963446, 0.37119796], abs=0.006)
    assert high == pytest.approx([0.65609163, 0.68615828], abs=0.006)


def test_bootstrap_interval__of_a_curve_is_that_of_each_point_with_the_same_draws() -> None:
    values = np.random.default_rng(8).random((6, 2, 3))
    low, high = bootstrap_interval(values, np.random.default_rng(9), resamples=300)
    for point in range(3):
        own = bootstrap_interval(values[..., point], np.random.default_rng(9), resamples=300)
        assert own == (low[point], high[point])


def test_bootstrap_interval__knows_infinities() -> None:
    values = np.array([[3.0], [5.0], [np.inf], [np.inf], [np.inf]])
    low, high = bootstrap_interval(values, np.random.default_rng(0), censored_median)
    assert (low, high) == (3.0, np.inf)


def test_censored_median__is_when_half_of_the_runs_were_done() -> None:
    assert censored_median(np.array([7.0, 3.0, np.inf, np.inf])) == 7.0
    assert censored_median(np.array([7.0, np.inf, np.inf])) == np.inf
    assert censored_median(np.array([[9.0, 1.0, 4.0], [2.0, 2.0, np.inf]])).tolist() == [4.0, 2.0]


def test_best_at__follows_the_steps() -> None:
    found = best_at(np.array([1, 4, 9]), np.array([0.2, 0.5, 0.7]), [1, 3, 4, 8, 9, 100])
    assert found.tolist() == [0.2, 0.2, 0.5, 0.5, 0.7, 0.7]


def test_best_at__is_nothing_before_the_first_step() -> None:
    assert best_at(np.array([10]), np.array([0.2]), [9, 10]).tolist() == [-np.inf, 0.2]


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (-5.0, 1.0), (3.0, 0.01)])
def test_normalised_regret__knows_no_shift_or_scale(shift: float, scale: float) -> None:
    best = shift + scale * np.array([0.2, 0.6, 1.0])
    found = normalised_regret(best, shift + scale * 0.2, shift + scale * 1.0)
    assert found == pytest.approx([1.0, 0.5, 0.0], abs=1e-9)


def test_normalised_regret__is_none_where_the_start_is_optimal() -> None:
    assert normalised_regret(np.array([0.7]), 0.7, 0.7).tolist() == [0.0]


def test_normalised_regret__refuses_an_optimum_that_is_none() -> None:
    with pytest.raises(ValueError, match="above the optimum"):
        normalised_regret(np.array([0.9]), 0.1, 0.8)


def test_evaluations_to__finds_the_step_and_says_never() -> None:
    evaluations, regrets = np.array([1, 12, 40]), np.array([1.0, 0.05, 0.004])
    assert evaluations_to(evaluations, regrets, 0.95) == 12
    assert evaluations_to(evaluations, regrets, 0.99) == 40
    assert evaluations_to(evaluations, regrets, 1.0) == np.inf


def test_mean_ranks__are_those_that_were_published() -> None:
    assert mean_ranks(-DEMSAR) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)


def test_critical_difference__is_the_one_that_was_published() -> None:
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=5e-3)
    assert critical_difference(4, 14, significance=0.1) == pytest.approx(1.12, abs=5e-3)
    # its table 5(a): critical values for 2 to 10 classifiers
    published = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    quantiles = [critical_difference(k, 1) / np.sqrt(k * (k + 1) / 6) for k in range(2, 11)]
    assert quantiles == pytest.approx(published, abs=1.5e-3)


def test_friedman__has_the_p_value_of_the_published_statistic() -> None:
    from scipy.stats import chi2

    # The paper's 9.28 leaves ties out of account; correcting for them can only raise the statistic.
    found = friedman(-DEMSAR)
    assert found is not None
    assert chi2.sf(11, 3) < found < chi2.sf(9.28, 3)


def test_friedman__tells_nothing_of_two_or_of_equals() -> None:
    assert friedman(DEMSAR[:2]) is None
    assert friedman(np.ones((4, 5))) is None


def test_alike__gives_the_largest_groups() -> None:
    assert alike(np.array([3.143, 2.000, 2.893, 1.964]), 1.25) == [(3, 1, 2, 0)]
    assert alike(np.array([1.0, 2.0, 3.0]), 1.5) == [(0, 1), (1, 2)]
    assert alike(np.array([1.0, 2.0, 3.0]), 0.5) == []
