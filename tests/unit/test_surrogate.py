"""The surrogate's process against plain formulas, and its files."""

import numpy as np
import pytest
import torch
from synthetic import (
    CASCADE,
    MEAN,
    TINY_GAINS,
    FakeEvaluator,
    large_space,
    model,
    reward_of,
    space_of,
    transform,
)

from gnncompose.agents.gnn_ts import GNNThompson
from gnncompose.agents.gp_ts import drawn_function
from gnncompose.agents.reward_surrogate import Beside, RewardSurrogate, View, latest
from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.edits import Limits
from gnncompose.encoding import TRAIT_DIM, TRAIT_NODE_DIM, CatalogFeatures, encode, join, operator_traits
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.evaluation import Budget, Trial
from gnncompose.features import GROUPS
from gnncompose.policies.checkpoints import load_policy
from gnncompose.policies.gine import Gine
from gnncompose.policies.policy import seeded
from gnncompose.policies.surrogate import (
    JITTER,
    TERMS,
    UNTRAINED,
    DeepKernel,
    DeepKernelProcess,
    Points,
    Posterior,
    covariance,
    kernel_to_checkpoint,
    load_kernel,
    mixed,
    negative_log_likelihood,
)

RECIPE = Gine(8, 1)
GROUP = torch.tensor([0, 0, 1, 2, 3])


def kernel(seed=0):
    return seeded(lambda: DeepKernel(RECIPE), seed)


def drawn_points(count, seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Points.of(normal(count, 4), normal(count), normal(count, len(GROUP)))


def slow_covariance(variances, a, b):
    """Sums over features and pairs of features, one by one."""
    found = np.zeros((len(a.mean), len(b.mean)))
    scale = np.array([variances[3 + group] for group in GROUP])
    for i, j in np.ndindex(*found.shape):
        x, y = a.embedding[i].numpy(), b.embedding[j].numpy()
        products = scale * a.features[i].numpy() * b.features[j].numpy()
        pairs = sum(products[k] * products[m] for k in range(len(products)) for m in range(k))
        deep = variances[1] * (x @ y) / len(x) + variances[2] * np.exp(-0.5 * ((x - y) ** 2).sum() / len(x))
        found[i, j] = variances[0] + deep + products.sum() + variances[7] * pairs
    return found


def test_covariance__is_the_sum_of_its_terms():
    a, b = drawn_points(3, 0), drawn_points(4, 1)
    variances = np.linspace(0.1, 0.9, len(TERMS))
    found = covariance(torch.from_numpy(np.log(variances)), a, b, GROUP)
    np.testing.assert_allclose(found.numpy(), slow_covariance(variances, a, b), rtol=1e-12)


def test_likelihood_and_posterior__are_those_of_the_normal_distribution():
    from scipy.stats import multivariate_normal

    points, asked = drawn_points(6, 0), drawn_points(3, 1)
    values = drawn_points(6, 2).mean
    made = kernel()
    both = Points(*(torch.cat(parts) for parts in zip(points, asked, strict=True)))
    process = DeepKernelProcess(made, lambda: both, GROUP, 1.0)
    variances = np.array(UNTRAINED)
    noise = (variances[-1] + JITTER) * np.eye(6)
    among = slow_covariance(variances, points, points) + noise
    expected = -multivariate_normal(points.mean.numpy(), among).logpdf(values.numpy()) - 3 * np.log(2 * np.pi)
    found = negative_log_likelihood(made.log_variances.detach().double(), points, values, GROUP)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    cross = slow_covariance(variances, points, asked)
    mean, spread, evidence = process.posterior(np.arange(6), values.numpy(), np.arange(6, 9))
    assert evidence == pytest.approx(-float(found))
    weights = np.linalg.solve(among, cross)
    np.testing.assert_allclose(
        mean, asked.mean.numpy() + weights.T @ (values - points.mean).numpy(), rtol=1e-4, atol=1e-6
    )
    expected = slow_covariance(variances, asked, asked) - cross.T @ weights
    np.testing.assert_allclose(spread, expected.diagonal(), atol=1e-5)


def test_fit__raises_likelihood_times_prior():
    points, values = drawn_points(30, 0), drawn_points(30, 2).mean
    process = DeepKernelProcess(kernel(), lambda: points, GROUP, 1.0)
    before = negative_log_likelihood(process.log_variances, points, values, GROUP)
    process.fit(np.arange(30), values.numpy())
    after = negative_log_likelihood(process.log_variances, points, values, GROUP)
    away = (process.log_variances - kernel().log_variances.detach().double()).square().sum() / 2
    assert float(after + away) < float(before) - 1.0


def test_mixed__is_the_mixture_of_what_members_say():
    generator = np.random.default_rng(0)
    means, variances = np.array([[0.0, 1.0], [2.0, 1.0]]), np.array([[1.0, 0.5], [0.1, 0.5]])
    evidences = np.log([0.25, 0.75]) - 40.0
    members = [Posterior(m, v, e) for m, v, e in zip(means, variances, evidences, strict=True)]
    mean, variance = mixed(members)
    which = (generator.random(200_000) < 0.75).astype(int)
    drawn = means[which] + np.sqrt(variances[which]) * generator.normal(size=(len(which), 2))
    np.testing.assert_allclose(mean, drawn.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(variance, drawn.var(axis=0), atol=0.01)


def test_drawn__has_the_posteriors_mean_and_covariance():
    generator = np.random.default_rng(0)
    spread = np.array([[1.0, 0.6], [0.6, 0.5]])
    draws = np.array([drawn_function(np.array([1.0, -1.0]), spread, generator) for _ in range(4000)])
    np.testing.assert_allclose(draws.mean(axis=0), [1.0, -1.0], atol=0.06)
    np.testing.assert_allclose(np.cov(draws.T), spread, atol=0.06)
    flat = drawn_function(np.zeros(3), np.ones((3, 3)), generator)  # of rank 1
    assert np.ptp(flat) < 0.05


def test_kernel__embeds_each_composition_as_if_it_were_alone():
    space, generator = large_space(), np.random.default_rng(0)
    traits = CatalogFeatures.traits_of(space.catalog)
    graphs = [encode(space.random(generator), [], traits) for _ in range(8)]
    made = kernel()
    with torch.no_grad():
        together, means = made(join(graphs))
        alone = torch.cat([made(join([graph]))[0] for graph in graphs])
    torch.testing.assert_close(together, alone)
    assert means.tolist() == [0.0] * 8, "an untrained surrogate expects nothing"
    assert graphs[0].x.shape[1] == TRAIT_NODE_DIM


def test_operator_traits__compare_with_the_catalog_and_tell_no_name():
    def catalog(*operators):
        return Catalog("c", operators, None)

    one = operator_traits(catalog(model("a", score=0.8), model("b", score=0.4), MEAN))
    other = operator_traits(catalog(model("x", score=0.4), model("y", score=0.2), MEAN))
    assert one.shape == (3, TRAIT_DIM)
    share = 10
    assert one[:2, share].tolist() == other[:2, share].tolist() == [1.0, 0.5]
    named = operator_traits(catalog(model("z", score=0.8), model("b", score=0.4), MEAN))
    torch.testing.assert_close(one, named)
    kin = operator_traits(catalog(transform("a", family="denoise"), transform("b", family="denoise"), transform("c")))
    torch.testing.assert_close(kin[0], kin[1])
    assert not torch.equal(kin[0], kin[2])


def test_beside__predicts_what_latency_takes_off():
    space = space_of(
        [transform("a"), model("m1", latency_ms=0.05), model("m2", latency_ms=0.2), MEAN, CASCADE], Limits()
    )
    view = View(space, [kernel()])
    generator = np.random.default_rng(0)
    compositions = list({c.id: c for c in (space.random(generator) for _ in range(60))}.values())

    class FakeEvaluation:
        score = 0.5

    class FakeTrial:
        def __init__(self, composition):
            self.composition, self.evaluation = composition, FakeEvaluation()
            latency_ms = sum(node.operator.profile.latency_ms or 0.0 for node in composition.nodes)
            self.reward = 0.5 - 0.3 * latency_ms

    trials = [FakeTrial(composition) for composition in compositions]
    beside = Beside(view)
    beside.fit(trials[:12])
    mean, variance = beside.posterior(trials[:12], view(compositions))
    np.testing.assert_allclose(mean, [trial.reward - 0.5 for trial in trials], atol=0.01)
    assert variance[12:].mean() > variance[:12].mean()


def test_beside__knows_nothing_where_all_failed():
    view = View(large_space(), [kernel()])
    failed = [Trial(1, large_space().start, None, -1.0, -1.0, failure="crashed")]
    mean, variance = Beside(view).posterior(failed, view([large_space().start]))
    assert mean.tolist() == variance.tolist() == [0.0]


def test_checkpoint__is_read_back(tmp_path):
    torch.save(kernel_to_checkpoint(kernel(3), {"seed": 3}), tmp_path / "surrogate.pt")
    found = load_kernel(str(tmp_path / "surrogate.pt"), Gine(64, 3))
    assert found.recipe == RECIPE
    for name, tensor in kernel(3).state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "no surrogate of format 1"),
        ({"kind": "policy"}, "no surrogate of format 1"),
        ({"encoder": "gnncompose.policies.other.Other"}, "holds a gnncompose.policies.other.Other, not a"),
        ({"traits": 7}, "made with 7 traits"),
    ],
)
def test_checkpoint__of_another_make_is_refused(change, message, tmp_path):
    torch.save(kernel_to_checkpoint(kernel()) | change, tmp_path / "surrogate.pt")
    with pytest.raises(GnncomposeError, match=message):
        GNNThompson(RECIPE, checkpoint=str(tmp_path / "surrogate.pt"))


def test_checkpoint__missing_or_damaged_is_told(tmp_path):
    with pytest.raises(GnncomposeError, match="no such checkpoint"):
        load_kernel(str(tmp_path / "none.pt"), RECIPE)
    (tmp_path / "damaged.pt").write_bytes(b"PK")
    with pytest.raises(GnncomposeError, match="is no checkpoint, or a damaged one"):
        load_kernel(str(tmp_path / "damaged.pt"), RECIPE)
    torch.save([1.0], tmp_path / "list.pt")
    with pytest.raises(GnncomposeError, match="holds a list, no checkpoint"):
        load_kernel(str(tmp_path / "list.pt"), RECIPE)


def test_load_policy__tells_a_surrogate_from_a_policy(tmp_path):
    torch.save(kernel_to_checkpoint(kernel()), tmp_path / "surrogate.pt")
    with pytest.raises(GnncomposeError, match=r"is no policy .* or a policy\.pt of experiments/train_policy\.py"):
        load_policy(str(tmp_path / "surrogate.pt"), RECIPE)


def test_recalled_trials__make_one_expect_what_they_tell():
    space, generator = large_space(), np.random.default_rng(0)
    compositions = list({c.id: c for c in (space.random(generator) for _ in range(60))}.values())
    budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, len(compositions))
    trials = [budget.evaluate(composition) for composition in compositions]
    rewards = np.array([trial.reward for trial in trials[40:]])
    errors = {}
    for old in ((), tuple(trials[:40])):
        surrogate = RewardSurrogate(space, [kernel()], 1.0, old)
        mean, _ = surrogate.posterior(trials[38:40], compositions[40:])
        errors[len(old)] = np.abs(mean - rewards).mean()
        again, _ = surrogate.posterior(trials[38:40], compositions[40:])
        np.testing.assert_allclose(again, mean)
    assert errors[40] < 0.5 * errors[0]


def test_surrogate__tells_the_same_after_it_forgot(monkeypatch):
    space, generator = large_space(), np.random.default_rng(0)
    compositions = list({c.id: c for c in (space.random(generator) for _ in range(40))}.values())
    budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, len(compositions))
    trials = [budget.evaluate(composition) for composition in compositions[:30]]
    surrogate = RewardSurrogate(space, [kernel()], 1.0, trials[:10])
    before = surrogate.posterior(trials[10:20], compositions[20:])
    monkeypatch.setattr("gnncompose.agents.reward_surrogate.REMEMBERED", 5)
    for _ in range(2):
        after = surrogate.posterior(trials[10:20], compositions[20:])
        np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-9)


def test_latest__leaves_out_a_quarter_at_once():
    numbers = list(range(30))
    assert latest(numbers[:8], 8) == numbers[:8]
    assert latest(numbers[:9], 8) == latest(numbers[:10], 8)[:-1] == numbers[2:9]
    assert latest(numbers, 0) == []


def test_groups__are_those_of_the_features():
    space = large_space()
    assert set(View(space, [kernel()]).groups) <= set(GROUPS)
