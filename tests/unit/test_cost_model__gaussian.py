"""The Gaussian processes against textbook formulas, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

from gnncompose.evaluation.cost_model.effects import EffectPosterior, Priors, fit_priors
from gnncompose.evaluation.cost_model.gaussian import Features, Kernel, Mixture, Posterior, Prior, fit_kernel

DIMENSION, SKETCH = 3, 4


def features(generator: np.random.Generator, rows: int) -> Features:
    return Features(generator.standard_normal((rows, DIMENSION)), generator.standard_normal((rows, SKETCH)))


def prior(generator: np.random.Generator, **kernel) -> Prior:
    given = Kernel(**{"trust": 0.9, "constant": 0.3, "learned": 0.6, "structure": 0.4, "noise": 0.2} | kernel)
    factor = np.tril(generator.standard_normal((DIMENSION, DIMENSION))) + 2 * np.eye(DIMENSION)
    return Prior(generator.standard_normal(DIMENSION), factor, given)


def direct(prior: Prior, seen: Features, targets: np.ndarray, wanted: Features) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance by the formulas of the textbook, with a plain inverse."""
    noise = prior.kernel.noise**2 * np.eye(len(seen))
    inverse = np.linalg.inv(prior.covariance(seen, seen) + noise)
    cross = prior.covariance(wanted, seen)
    mean = prior.expected(wanted) + cross @ inverse @ (targets - prior.expected(seen))
    return mean, prior.covariance(wanted, wanted) - cross @ inverse @ cross.T


def test_posterior__equals_the_formulas_whether_observed_at_once_or_in_parts() -> None:
    generator = np.random.default_rng(0)
    given, seen, wanted = prior(generator), features(generator, 12), features(generator, 5)
    targets = generator.standard_normal(12)
    mean, covariance = direct(given, seen, targets, wanted)
    for parts in ([slice(0, 12)], [slice(0, 1), slice(1, 7), slice(7, 12)]):
        posterior = Posterior(given)
        for part in parts:
            posterior.observe(seen[part], targets[part])
        found, variance = posterior.predict(wanted)
        np.testing.assert_allclose(found, mean, atol=1e-8)
        np.testing.assert_allclose(variance, np.diag(covariance), atol=1e-8)
        np.testing.assert_allclose(posterior.covariance(wanted), covariance, atol=1e-8)


def test_posterior__equals_scikit_learns() -> None:
    generator = np.random.default_rng(1)
    x, wanted = generator.standard_normal((20, DIMENSION)), generator.standard_normal((7, DIMENSION))
    targets = np.sin(x[:, 0]) + x[:, 1]
    kernel = (
        DotProduct(0.5, "fixed") + ConstantKernel(0.7**2, "fixed") * RBF(1.5, "fixed") + WhiteKernel(0.1**2, "fixed")
    )
    theirs, deviation = GaussianProcessRegressor(kernel).fit(x, targets).predict(wanted, return_std=True)
    given = Kernel(trust=1.0, constant=0.5, learned=0.7, learned_length=1.5, structure=1e-9, noise=0.1)
    posterior = Posterior(Prior(np.zeros(DIMENSION), np.eye(DIMENSION), given))
    posterior.observe(Features(x, np.zeros((20, SKETCH))), targets)
    mean, variance = posterior.predict(Features(wanted, np.zeros((7, SKETCH))))
    np.testing.assert_allclose(mean, theirs, atol=1e-7)
    np.testing.assert_allclose(np.sqrt(variance + 0.1**2), deviation, atol=1e-7)


def test_posterior__draws_have_its_mean_and_covariance() -> None:
    generator = np.random.default_rng(2)
    given, seen, wanted = prior(generator), features(generator, 10), features(generator, 4)
    posterior = Posterior(given)
    posterior.observe(seen, generator.standard_normal(10))
    # every draw has its own random features only within one call
    draws = np.concatenate([posterior.sample(wanted, generator, 50) for _ in range(400)])
    mean, _ = posterior.predict(wanted)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(draws.T), posterior.covariance(wanted), atol=0.12)


def test_mixture__believes_the_part_that_explains_what_was_seen() -> None:
    generator = np.random.default_rng(3)
    seen, wanted = features(generator, 40), features(generator, 10)
    beta = np.array([1.0, -2.0, 0.5])
    right = Prior(beta, 0.1 * np.eye(DIMENSION), Kernel(noise=0.05))
    wrong = Prior(-beta, 0.1 * np.eye(DIMENSION), Kernel(noise=0.05))
    mixture = Mixture([wrong, right])
    np.testing.assert_allclose(mixture.weights, [0.5, 0.5])
    mixture.observe([seen, seen], seen.learned @ beta)
    assert mixture.weights[1] > 0.999
    mean, variance = mixture.predict([wanted, wanted])
    np.testing.assert_allclose(mean, wanted.learned @ beta, atol=0.3)
    assert (variance > 0).all()
    assert mixture.sample([wanted, wanted], generator, 6).shape == (6, 10)


def test_fit_kernel__finds_the_noise() -> None:
    generator = np.random.default_rng(4)
    given = Prior(np.zeros(DIMENSION), np.eye(DIMENSION))
    worlds = []
    for _ in range(6):
        seen = features(generator, 60)
        targets = seen.learned @ generator.standard_normal(DIMENSION) + 0.3 * generator.standard_normal(60)
        worlds.append((seen, targets))
    kernel = fit_kernel(given, worlds)
    unexplained = np.hypot(kernel.noise, min(kernel.learned, kernel.structure))
    assert unexplained == pytest.approx(0.3, rel=0.3)
    assert kernel.trust == pytest.approx(1.0, rel=0.5)


EFFECTS = [
    {"machine": 1.0, "hop": 0.4, ("operator", False, "a"): 0.6},
    {"machine": 1.0, "hop": 0.1, ("operator", False, "a"): 0.5, ("operator", False, "b"): 0.4},
    {"machine": 1.0, "hop": 0.2, ("operator", True, "b"): 0.8},
]


def dense(effects: list[dict], priors: Priors) -> np.ndarray:
    """[rows, effects] shares times prior deviations."""
    keys = sorted({key for row in effects for key in row}, key=str)
    deviations = [
        getattr(priors, key) if isinstance(key, str) else priors.operator * (priors.branching if key[1] else 1.0)
        for key in keys
    ]
    return np.array([[row.get(key, 0.0) for key in keys] for row in effects]) * deviations


def test_effects__equal_the_formulas() -> None:
    priors = Priors()
    posterior = EffectPosterior(priors)
    errors = np.array([0.3, 0.25])
    for row, error in zip(EFFECTS[:2], errors, strict=True):
        posterior.observe(row, float(error))
    design = dense(EFFECTS, priors)
    covariance = design @ design.T
    inverse = np.linalg.inv(covariance[:2, :2] + priors.noise**2 * np.eye(2))
    mean, variance = posterior.predict(EFFECTS)
    np.testing.assert_allclose(mean, covariance[:, :2] @ inverse @ errors, atol=1e-10)
    expected = covariance - covariance[:, :2] @ inverse @ covariance[:2]
    np.testing.assert_allclose(variance, np.diag(expected), atol=1e-10)
    draws = posterior.sample(EFFECTS, np.random.default_rng(0), 20_000)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.01)
    np.testing.assert_allclose(np.cov(draws.T), expected, atol=0.003)


def test_effects__ten_measurements_recover_a_machine_twice_as_slow_with_dearer_hops() -> None:
    generator = np.random.default_rng(5)
    posterior = EffectPosterior(Priors())
    hops = generator.uniform(0.05, 0.5, 10)
    for number, hop in enumerate(hops):
        error = np.log(2.0) + 0.3 * hop + 0.01 * generator.standard_normal()
        posterior.observe(
            {"machine": 1.0, "hop": float(hop), ("operator", False, number): 1 - float(hop)}, float(error)
        )
    mean, variance = posterior.predict([{"machine": 1.0, "hop": 0.1}, {"machine": 1.0, "hop": 0.4}])
    assert np.exp(mean[0]) == pytest.approx(2.0, rel=0.05)
    assert mean[1] > mean[0]
    assert (np.sqrt(variance) < 0.1).all()


def test_effects__fitted_priors_tell_noise_from_operators() -> None:
    generator = np.random.default_rng(6)
    worlds = []
    for _ in range(4):
        operators = 0.2 * generator.standard_normal(8)
        picked = generator.integers(0, 8, 80)
        rows = [{"machine": 1.0, "hop": 0.0, ("operator", False, int(i)): 1.0} for i in picked]
        errors = operators[picked] + 0.03 * generator.standard_normal(80)
        worlds.append((rows, list(map(float, errors))))
    priors = fit_priors(worlds)
    assert priors.noise == pytest.approx(0.03, rel=0.3)
    assert np.hypot(priors.operator, priors.machine) == pytest.approx(0.2, rel=0.5)
