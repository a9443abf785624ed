"""What rivals are built from, against values computed by hand or by brute force."""

import contextlib
import random
import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from synthetic import (
    CASCADE,
    MEAN,
    TINY_GAINS,
    FakeEvaluator,
    chain,
    large_space,
    model,
    reward_of,
    sha,
    space_of,
    transform,
)

import gnncompose.agents.peers
from gnncompose.agents.agent import search
from gnncompose.agents.candidates import Candidates
from gnncompose.agents.frugal import Frugal, from_scores
from gnncompose.agents.gp_ts import AnovaProcess, GPThompson
from gnncompose.agents.ipa import LEAST_ERROR, Plan, Program
from gnncompose.agents.local_search import LocalSearch
from gnncompose.agents.peers.inverted import AskingEvaluator, inverted
from gnncompose.composition.edits import Limits
from gnncompose.composition.tree import Composition, describe, make_node
from gnncompose.errors import EvaluationError, GnncomposeError
from gnncompose.evaluation.evaluation import AnsweredRows, Budget
from gnncompose.features import GROUPS, CompositionFeatures, ways
from gnncompose.launch import explain, resource_directory

SPACE = large_space(models=4, transforms=3)


# --- features and candidates -------------------------------------------------------------------------------------


def test_ways__share_the_branches_by_weight():
    weighted = SPACE.catalog.operator("weighted")
    branches = [chain(SPACE, "t0", "m0"), chain(SPACE, "m1")]
    root = make_node(weighted, branches, {"weights": (1.0, 4.0)})
    shares = {way.operators: way.share for way in ways(Composition(root))}
    assert shares == {("t0", "m0"): pytest.approx(0.2), ("m1",): pytest.approx(0.8)}


def test_features__tell_order_and_lead():
    features = CompositionFeatures(SPACE.catalog)
    one, other = Composition(chain(SPACE, "t0", "t1", "m0")), Composition(chain(SPACE, "t1", "t0", "m0"))
    vectors = features([one, other])
    differing = {features.groups[column] for column in np.flatnonzero(vectors[0] != vectors[1])}
    assert differing == {"order"}
    cascade, stages = SPACE.catalog.operator("cascade"), [chain(SPACE, "m0"), chain(SPACE, "m1")]
    vectors = features([Composition(make_node(cascade, stages)), Composition(make_node(cascade, stages[::-1]))])
    differing = {features.groups[column] for column in np.flatnonzero(vectors[0] != vectors[1])}
    assert differing == {"lead"}
    assert vectors.min() >= 0
    assert vectors.max() <= 1


def test_candidates__are_untried_until_the_space_is():
    space = space_of([transform("median"), model("mlp"), model("cnn"), MEAN])
    budget, generator = Budget(FakeEvaluator(TINY_GAINS), reward_of, 1000), np.random.default_rng(0)
    candidates = Candidates(space, count=4, generator=generator)
    budget.evaluate(space.start)
    while found := candidates(budget.trials, incumbents=1):
        assert len(found) <= 4
        assert not {c.id for c in found} & {trial.composition.id for trial in budget.trials}
        budget.evaluate(found[0])
    reached, frontier = {space.start.id}, [space.start]
    while frontier:
        for _, successor in space.successors(frontier.pop()):
            if successor.id not in reached:
                reached.add(successor.id)
                frontier.append(successor)
    assert {trial.composition.id for trial in budget.trials} == reached


@pytest.mark.parametrize("make", [LocalSearch, GPThompson])
def test_opening__is_of_the_single_models_with_the_best_profile(make):
    space = large_space()
    scores = {single.id: single.root.operator.profile.score for single in space.single_models()}
    budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, 5)
    search(make(opening=4), space, budget, np.random.default_rng(0))
    told = [scores[trial.composition.id] for trial in budget.trials[1:]]
    assert told == sorted(scores.values(), reverse=True)[:4]


def test_local_search__climbs_from_the_best_of_its_opening():
    space = large_space()
    budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, 12)
    search(LocalSearch(opening=100), space, budget, np.random.default_rng(0))
    best = max(budget.trials[:10], key=lambda trial: trial.reward).composition
    assert budget.trials[10].composition in [successor for _, successor in space.successors(best)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_walk__takes_one_legal_edit_after_the_other(seed):
    generator = np.random.default_rng(seed)
    here = SPACE.walk(SPACE.start, 3, generator)
    there = SPACE.walk(here, 1, generator)
    assert there in [successor for _, successor in SPACE.successors(here)]


def test_walk__draws_legal_edits_uniformly():
    space = space_of([transform("median"), model("mlp"), model("cnn")], Limits(nodes=2, depth=2, branches=2))
    reachable, generator = [c.id for _, c in space.successors(space.start)], np.random.default_rng(0)
    drawn = [space.walk(space.start, 1, generator).id for _ in range(2000)]
    assert set(drawn) == set(reachable)
    for identity in reachable:
        assert drawn.count(identity) / 2000 == pytest.approx(reachable.count(identity) / len(reachable), abs=0.05)


# --- the Gaussian process ----------------------------------------------------------------------------------------


def process_and_data():
    generator = np.random.default_rng(3)
    groups = tuple(GROUPS[number % len(GROUPS)] for number in range(7))
    process = AnovaProcess(groups)
    process.log_variances = generator.normal(size=len(process.log_variances))
    return process, generator.random((9, 7)), generator.normal(size=9), generator.random((4, 7))


def slow_kernel(process, a, b):
    """The kernel by its definition: a constant, all features, all pairs."""
    variances = np.exp(process.log_variances)
    scale = variances[process._group]
    main, pairs = variances[len(GROUPS) : len(GROUPS) + 2]
    products = [[u * v * scale for v in b] for u in a]
    return np.array(
        [
            [1 + main * sum(k) + pairs * sum(k[d] * k[e] for d, e in combinations(range(len(k)), 2)) for k in row]
            for row in products
        ]
    )


def test_anova_process__has_the_posterior_of_its_kernel():
    process, x, y, asked = process_and_data()
    mean, covariance = process.posterior(x, y, asked)
    noise = np.exp(process.log_variances[-1]) + 1e-6
    inverse = np.linalg.inv(slow_kernel(process, x, x) + noise * np.eye(len(x)))
    cross = slow_kernel(process, x, asked)
    assert mean == pytest.approx(cross.T @ inverse @ y, rel=1e-6)
    assert covariance == pytest.approx(slow_kernel(process, asked, asked) - cross.T @ inverse @ cross, rel=1e-5)
    assert process.covariance(x, asked) == pytest.approx(cross)
    assert process.variance(asked) == pytest.approx(process.covariance(asked, asked).diagonal())


def test_anova_process__samples_have_the_posteriors_mean_and_spread():
    process, x, y, asked = process_and_data()
    mean, covariance = process.posterior(x, y, asked)
    generator = np.random.default_rng(0)
    drawn = np.array([process.sample(x, y, asked, generator) for _ in range(4000)])
    deviation = np.sqrt(np.diag(covariance))
    assert drawn.mean(axis=0) == pytest.approx(mean, abs=0.1 * deviation.max())
    assert drawn.std(axis=0) == pytest.approx(deviation, rel=0.1)


def test_anova_process__learns_that_pairs_matter():
    generator = np.random.default_rng(0)
    x = (generator.random((120, 6)) < 0.5).astype(float)
    y = 3 * x[:, 0] * x[:, 1] - 2 * x[:, 2]
    y = (y - y.mean()) / y.std()
    process = AnovaProcess(("operator",) * 6)
    process.fit(x[:80], y[:80])
    mean, _ = process.posterior(x[:80], y[:80], x[80:])
    assert np.corrcoef(mean, y[80:])[0, 1] > 0.99


# --- the planner -------------------------------------------------------------------------------------------------


def program(**changes):
    settings = {
        "error": np.array([0.2, 0.1, 0.05, 0.02]),
        "price": np.array([0.01, 0.02, 0.05, 0.3]),
        "score": 1.0,
        "gain": 0.3,
        "branches": 3,
        "ensemble": True,
        "cascade": True,
    }
    return Program(**(settings | changes))


def worth(program, plan):
    """What a plan promises, as the docstrings say it."""
    error = program.error[plan.lead] * np.prod(program.error[list(plan.others)] ** program.gain)
    price = program.price[plan.lead] + program.price[list(plan.others)].sum()
    if plan.cascade:
        price -= program.price[plan.lead] * (1 - min(2 * program.error[plan.others[0]], 1))
    return 1 - error - price


def every_plan(program):
    models = range(len(program.error))
    for lead in models:
        yield Plan(lead, (), False)
        rest = [number for number in models if number != lead]
        yield from (Plan(lead, (base,), True) for base in rest if program.cascade)
        worse = [number for number in rest if program.error[number] >= program.error[lead]]
        for count in range(1, program.branches if program.ensemble else 0):
            yield from (Plan(lead, others, False) for others in combinations(worse, count))


@pytest.mark.parametrize(
    "changes", [{}, {"ensemble": False}, {"cascade": False}, {"branches": 2}, {"branches": 1}, {"gain": 0.0}]
)
def test_program__lists_every_plan_the_best_first(changes):
    made = program(**changes)
    expected = list(every_plan(made)) if made.branches > 1 else [Plan(m, (), False) for m in range(4)]
    plans = list(made.plans())
    assert len(plans) == len(set(plans)) == len(expected)
    assert set(plans) == set(expected)
    worths = np.array([worth(made, plan) for plan in plans])
    # The exponential is held by tangents, from below: neighbours in the list may be swapped by what these miss.
    assert (np.maximum.accumulate(worths[::-1])[::-1] - worths).max() < 2e-3
    assert worths[0] == pytest.approx(max(worth(made, plan) for plan in expected))


def test_program__knows_no_perfect_model():
    assert np.log(LEAST_ERROR) > -np.inf


# --- FrugalML ----------------------------------------------------------------------------------------------------


class FakeRowsEvaluator(FakeEvaluator):
    """FAKE: models answer drawn probabilities; a cascade's score follows from them row by row."""

    rows = 400
    skill = {"tree": 0.75, "mlp": 0.9, "cnn": 0.97}  # noqa: RUF012

    def answers(self, node):
        if node.operator.kind == "cascade":
            first, last = (self.answers(child) for child in node.inputs)
            stays = first.max(axis=1) >= np.float32(node.parameter("threshold"))
            return np.where(stays[:, None], first, last)
        draw = np.random.default_rng(int(sha(node.operator.name)[:8], 16))
        right = draw.random(self.rows) < self.skill[node.operator.name]
        sure = np.where(right, draw.uniform(0.6, 1.0, self.rows), draw.uniform(0.5, 0.7, self.rows))
        return np.stack([np.where(right, sure, 1 - sure), np.where(right, 1 - sure, sure)], axis=1).astype(np.float32)

    def answered_rows(self, composition):
        return AnsweredRows(self.answers(composition.root), lambda given: float((given.argmax(axis=1) == 0).mean()))

    def _strength(self, expression):
        return float((self.answers(expression).argmax(axis=1) == 0).mean())


def cascade_space():
    operators = [model("tree", 0.75, 0.02), model("mlp", 0.9, 0.05), model("cnn", 0.97, 0.5), CASCADE]
    return space_of(operators, Limits(nodes=3, depth=2, branches=2))


def test_frugal__asks_for_the_best_cascade_right_after_the_models():
    class Measuring(FakeRowsEvaluator):
        """FAKE: latency as rows flow, so that a cascade is worth its promise exactly."""

        def evaluate(self, composition, split="validation"):
            told = super().evaluate(composition, split)
            root = composition.root
            if root.operator.kind != "cascade":
                return told
            first, last = (child.operator.profile.latency_ms for child in root.inputs)
            handed_on = (self.answers(root.inputs[0]).max(axis=1) < np.float32(root.parameter("threshold"))).mean()
            latency = first + handed_on * last
            return replace(told, latency_ms_mean=latency, cost_usd_per_million=latency)

    budget = Budget(Measuring(TINY_GAINS), reward_of, 8)
    search(Frugal(), cascade_space(), budget, np.random.default_rng(0))
    rewards = {trial.composition.id: trial.reward for trial in budget.trials}
    cascades = [trial for trial in budget.trials if trial.composition.root.operator.kind == "cascade"]
    assert [trial.index for trial in cascades] == list(range(4, 9))
    whole = Budget(Measuring(TINY_GAINS), reward_of, 1000)
    search(Frugal(), cascade_space(), whole, np.random.default_rng(0))
    best = max(whole.trials, key=lambda trial: trial.reward)
    assert cascades[0].composition == best.composition
    assert best.reward > max(rewards[c.id] for c in cascade_space().single_models()), "a cascade must pay here"
    assert [trial.reward for trial in cascades] == sorted((trial.reward for trial in cascades), reverse=True)


def test_frugal__composes_by_scores_where_nobody_tells_rows():
    budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, 8)
    search(Frugal(), cascade_space(), budget, np.random.default_rng(0))
    assert len(budget.trials) == 8
    assert sum(trial.composition.root.operator.kind == "cascade" for trial in budget.trials) == 5


def test_from_scores__hands_on_nothing_or_all_at_the_ends():
    assert from_scores(0.9, 0.95, 0.5) == (pytest.approx(0.9), 0.0)  # confidence begins at 0.8
    assert from_scores(0.9, 0.95, 1.0) == (pytest.approx(0.95), pytest.approx(1.0))
    score, handed_on = from_scores(0.9, 0.95, 0.9)
    assert handed_on == pytest.approx(0.5)
    assert score == pytest.approx(0.5 * 0.95 + 0.5 * 0.95)


def test_budget__tells_rows_of_what_was_measured_only():
    space = cascade_space()
    budget = Budget(FakeRowsEvaluator(TINY_GAINS), reward_of, 8)
    assert budget.answered_rows(space.start) is None
    trial = budget.evaluate(space.start)
    rows = budget.answered_rows(space.start)
    assert rows.score(rows.answers) == pytest.approx(trial.evaluation.score)
    plain = Budget(FakeEvaluator(TINY_GAINS), reward_of, 8)
    plain.evaluate(space.start)
    assert plain.answered_rows(space.start) is None


# --- a loop inside out -------------------------------------------------------------------------------------------


def trials_of(space):
    budget = Budget(FakeEvaluator(TINY_GAINS, failing="m1"), reward_of, 100)
    return budget.evaluate


def test_inverted__hands_over_trials_and_failures():
    told = []

    def loop(evaluator: AskingEvaluator) -> None:
        for composition in SPACE.single_models():
            try:
                told.append(evaluator.reward(evaluator.evaluate(composition)))
            except EvaluationError as problem:
                told.append(str(problem))

    evaluate, proposals = trials_of(SPACE), inverted(loop, 0)
    composition, asked = next(proposals), []
    with contextlib.suppress(StopIteration):
        while True:
            asked.append(composition)
            composition = proposals.send(evaluate(composition))
    assert asked == SPACE.single_models()
    expected = [evaluate(composition) for composition in asked]
    assert [isinstance(entry, str) for entry in told] == [trial.failure is not None for trial in expected]
    assert [t for t in told if not isinstance(t, str)] == [t.reward for t in expected if t.failure is None]


def test_inverted__ends_the_loop_when_closed():
    steps = []

    def loop(evaluator: AskingEvaluator) -> None:
        while True:
            steps.append(describe(SPACE.start.root))
            evaluator.evaluate(SPACE.start)

    proposals = inverted(loop, 0)
    next(proposals)
    proposals.close()
    assert len(steps) == 1


def test_inverted__raises_what_the_loop_raised():
    def loop(evaluator: AskingEvaluator) -> None:
        evaluator.evaluate(SPACE.start)
        raise ZeroDivisionError("in the loop")

    proposals, evaluate = inverted(loop, 0), trials_of(SPACE)
    with pytest.raises(ZeroDivisionError, match="in the loop"):
        proposals.send(evaluate(next(proposals)))


def test_inverted__keeps_the_loops_global_randomness_apart():
    drawn = []

    def loop(evaluator: AskingEvaluator) -> None:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        for _ in range(3):
            drawn.append((random.random(), np.random.random(), float(torch.rand(()))))  # noqa: NPY002
            evaluator.evaluate(SPACE.start)

    evaluate = trials_of(SPACE)

    def run(disturb):
        drawn.clear()
        proposals = inverted(loop, 0)
        composition = next(proposals)
        for _ in range(3):
            disturb()
            before = (random.getstate(), str(np.random.get_state()), torch.random.get_rng_state().tolist())  # noqa: NPY002
            with contextlib.suppress(StopIteration):
                composition = proposals.send(evaluate(composition))
            after = (random.getstate(), str(np.random.get_state()), torch.random.get_rng_state().tolist())  # noqa: NPY002
            assert before == after
        return list(drawn)

    undisturbed = run(lambda: None)
    assert run(lambda: (random.random(), np.random.random(), torch.rand(()))) == undisturbed  # noqa: NPY002
    assert len(set(undisturbed)) == 3


# --- the extra ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leaf", "library"), [("tpe", "optuna"), ("nevergrad", "nevergrad"), ("maskable_ppo", "sb3_contrib")]
)
def test_peer__without_its_library_says_how_to_install_it(leaf, library, monkeypatch):
    monkeypatch.setattr(gnncompose.agents.peers, "find_spec", lambda name: None)
    conf = resource_directory("conf")
    with pytest.raises(InstantiationException) as caught:
        instantiate(OmegaConf.load(conf / "agent" / f"{leaf}.yaml"))
    line = f"agent={leaf}: needs {library}; run pip install 'gnncompose[peers]'"
    assert explain(caught.value, conf / "search.yaml") == line


def test_nevergrad__refuses_an_optimiser_that_does_not_exist():
    pytest.importorskip("nevergrad", reason="needs the extra peers")
    from gnncompose.agents.peers.nevergrad import Nevergrad

    with pytest.raises(GnncomposeError, match="NGOptt: Nevergrad has no such optimiser"):
        Nevergrad("NGOptt")


@pytest.mark.parametrize(
    "module",
    [
        "gp_ts",
        "bananas",
        "ipa",
        "frugal",
        "regularised_evolution",
        "peers.tpe",
        "peers.nevergrad",
        "peers.maskable_ppo",
    ],
)
def test_rival__imports_neither_torch_nor_its_library_before_it_is_used(module):
    libraries = "{'torch', 'optuna', 'nevergrad', 'sb3_contrib'}"
    code = f"import sys, gnncompose.agents.{module}; sys.exit(str({libraries} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.stderr.strip()
