"""A process that is extended bit by bit against one that is computed at once."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from gnncompose.policies.conditioned import Conditioned


class Growing:
    """Points in the plane under a radial kernel; more of them appear."""

    noise = 0.1

    def __init__(self, points):
        self.points = points

    def __len__(self):
        return len(self.points)

    def between(self, some, others):
        distance = self.points[some][:, None] - self.points[others][None]
        return np.exp(-0.5 * (distance**2).sum(axis=2))

    def at(self, points):
        return np.ones(len(self.points[points]))


def at_once(covariance, told, values, asked):
    among = covariance.between(told, told) + covariance.noise * np.eye(len(told))
    cross = covariance.between(told, asked)
    weights = np.linalg.solve(among, cross)
    likelihood = multivariate_normal(np.zeros(len(told)), among).logpdf(values) + 0.5 * len(told) * np.log(2 * np.pi)
    return weights.T @ values, 1.0 - (cross * weights).sum(axis=0), likelihood


def test_conditioned__is_the_same_bit_by_bit_as_at_once():
    generator = np.random.default_rng(0)
    points, values = generator.normal(size=(40, 2)), generator.normal(size=40)
    growing = Growing(points[:3])
    process = Conditioned(growing)
    told = np.array([2])
    for step in range(12):
        asked = generator.permutation(len(growing))[:5]
        found = process(told, values[told], asked)
        for part, expected in zip(found, at_once(growing, told, values[told], asked), strict=True):
            np.testing.assert_allclose(part, expected, rtol=1e-9, atol=1e-12)
        growing.points = points[: len(growing) + step % 4]
        untold = np.setdiff1d(np.arange(len(growing)), told)
        told = np.append(told, untold[: step % 3])
    assert len(told) == 13
    assert len(growing) == 21


@pytest.mark.parametrize("told", [[5, 1], [0, 2], [7]])
def test_conditioned__begins_anew_where_other_values_come_first(told):
    generator = np.random.default_rng(0)
    growing, values = Growing(generator.normal(size=(9, 2))), generator.normal(size=9)
    process, asked = Conditioned(growing), np.arange(9)
    process(np.array([0, 1, 2]), values[:3], asked)
    told = np.array(told)
    found = process(told, values[told], asked)
    np.testing.assert_allclose(found.mean, at_once(growing, told, values[told], asked)[0], rtol=1e-9)


def test_conditioned__takes_other_values_at_the_same_points():
    growing = Growing(np.random.default_rng(0).normal(size=(6, 2)))
    process, told, asked = Conditioned(growing), np.arange(4), np.array([4, 5])
    process(told, np.zeros(4), asked)
    found = process(told, np.arange(4.0), asked)
    np.testing.assert_allclose(found.mean, at_once(growing, told, np.arange(4.0), asked)[0], rtol=1e-9)
