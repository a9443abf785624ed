"""The continuous head for parameters: what is chosen, what is drawn, how it meets the grid, what is learned from."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from recorded import recorded
from synthetic import (
    CASCADE,
    MEAN,
    WEIGHTED,
    FakeEvaluator,
    chain,
    model,
    reward_of,
    space_of,
    threshold_space,
    transform,
    turns_of,
)
from torch.distributions import Beta

from gnncompose.agents.agent import search
from gnncompose.agents.ppo import PPO
from gnncompose.agents.rollouts import Rollouts
from gnncompose.agents.settings import Settings, rounded
from gnncompose.agents.visited import Visit
from gnncompose.catalog.operator import Parameter
from gnncompose.composition.edits import Limits, SetParameter
from gnncompose.composition.enumeration import enumerate_space
from gnncompose.composition.files import composition_to_json
from gnncompose.composition.space import Space
from gnncompose.composition.transitions import ClosedSearchSpace
from gnncompose.composition.tree import Composition, make_node
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.evaluation import Budget
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.policies.checkpoints import policy_from_checkpoint, policy_to_checkpoint
from gnncompose.policies.gine import Gine
from gnncompose.policies.policy import EditPolicy, seeded
from gnncompose.policies.setting_head import SettingHead, share_entropy, share_log_density
from gnncompose.policies.two_stage import TwoStagePolicy
from gnncompose.reward import WeightedSum
from gnncompose.tasks.task import World


def visit_of(space: Space, composition: Composition | None = None) -> Visit:
    composition = composition or space.start
    return Visit(composition, 0.0, tuple(c for _, c in space.successors(composition)), 0, [])


def closed(space: Space) -> ClosedSearchSpace:
    """The same space as a table's: nothing but the compositions of the grid."""
    written = enumerate_space(space)
    rows = {written.composition(row).id: row for row in range(len(written))}
    types = space.input_type, space.output_type
    found = ClosedSearchSpace(space.catalog, space.limits, *types, closed=written, row_of=lambda c: rows[c.id])
    return replace(found, initial=space.start)


def weighted_space() -> tuple[Space, Composition]:
    space = space_of([model("a"), model("b"), transform("median"), WEIGHTED, CASCADE], Limits())
    return space, Composition(make_node(WEIGHTED, [chain(space, "a"), chain(space, "b")]), space.catalog.sha256)


def threshold_of(composition: Composition) -> float:
    return composition.root.parameter("threshold")


def test_settings__stand_for_all_edits_of_one_parameter():
    space, composition = weighted_space()
    visit, settings = visit_of(space, composition), Settings(space)
    edits, everything = space.legal_edits(composition), list(range(len(space.legal_edits(composition))))
    merged = settings.merged(visit, everything)
    sets = [n for n in merged if n in settings.of(visit)]
    assert {edits[n].name for n in sets} == {"weights.0", "weights.1"}
    assert len(sets) == 2 < sum(isinstance(edit, SetParameter) for edit in edits)
    assert [n for n in merged if n not in sets] == [n for n in everything if not isinstance(edits[n], SetParameter)]
    assert settings.merged(visit, [visit.stop]) == [*sets, visit.stop], "off the grid there is always another value"


@pytest.mark.parametrize(
    ("value", "low", "high", "wanted"),
    [
        (0.63219, 0.5, 0.999, 0.632),
        (3.45678, 0, 4, 3.457),
        (0.0123456, 0.01, 0.02, 0.0123),
        (0.9996, 0.5, 0.999, 0.999),
    ],
)
def test_rounded__gives_three_digits_or_more_of_a_narrow_range(value, low, high, wanted):
    assert rounded(value, Parameter(default=low, low=low, high=high)) == wanted


def test_settings__off_the_grid_make_a_checked_composition_with_a_canonical_decimal():
    space = threshold_space()
    visit, settings = visit_of(space), Settings(space)
    (number, *_) = settings.merged(visit, [])
    made = settings.composition(visit, number, 0.2604, [])
    assert threshold_of(made) == 0.63
    assert made.id == replace_threshold(space, 0.630).id
    assert '"threshold": 0.63}' in json.dumps(composition_to_json(made))
    again = settings.composition(visit, number, (0.8 - 0.5) / 0.499, [])
    assert again is visit.composition, "the value that stands there changes nothing"


def replace_threshold(space: Space, threshold: float) -> Composition:
    root = space.start.root
    return Composition(make_node(root.operator, root.inputs, {"threshold": threshold}), space.catalog.sha256)


def test_settings__of_recorded_evaluations_are_rounded_to_what_may_be_chosen_on_the_grid():
    operator = CASCADE.model_copy(
        update={"parameters": {"threshold": Parameter(default=0.8, low=0.5, high=0.999, values=(0.5, 0.7, 0.8, 0.9))}}
    )
    space = space_of([model("a"), model("b"), MEAN, operator], Limits(nodes=3, depth=2, branches=2, nesting=1))
    cascade = make_node(operator, [chain(space, "a"), chain(space, "b")])
    recorded_space = closed(replace(space, initial=Composition(cascade, space.catalog.sha256)))
    visit, settings = visit_of(recorded_space), Settings(recorded_space)
    edits = recorded_space.legal_edits(visit.composition)
    sets = {edit.value: n for n, edit in enumerate(edits) if isinstance(edit, SetParameter)}
    assert sorted(sets) == [0.5, 0.7, 0.9]
    everything = list(range(len(edits)))
    (number,) = [n for n in settings.merged(visit, everything) if n in settings.of(visit)]

    def set_to(share: float, allowed: list[int]) -> float:
        return threshold_of(settings.composition(visit, number, share, allowed))

    assert [set_to(share, everything) for share in (0.0, 0.3, 0.5, 1.0)] == [0.5, 0.7, 0.7, 0.9]
    assert set_to(0.0, [sets[0.7], sets[0.9]]) == 0.7
    assert settings.merged(visit, [visit.stop]) == [visit.stop], "nothing of the grid is left"


@recorded("series_gun_point")
@pytest.mark.parametrize("seed", [0, 1])
def test_ppo__never_asks_a_table_for_what_it_does_not_hold(seed):
    task, prices = recorded_task("series_gun_point"), load_prices()
    space, generator = task.space, np.random.default_rng(seed)
    walks = (space.walk(space.start, 12, generator) for _ in range(1000))
    begun = next(c for c in walks if any(node.operator.kind == "cascade" for node in c.nodes))
    evaluator = TableEvaluator(task, World("mixed"), prices)
    budget = Budget(evaluator, WeightedSum().bind(task.catalog, prices, evaluator.world), 60)
    agent = PPO(Gine(8, 1), restart_probability=0.0, continuous=True)
    search(agent, replace(space, initial=begun), budget, generator)
    assert len(budget.trials) == 60
    thresholds = [dict(node.parameters).get("threshold") for t in budget.trials for node in t.composition.nodes]
    assert len({value for value in thresholds if value is not None}) > 1, "none was set, so nothing was shown"


def walked(policy: EditPolicy | TwoStagePolicy, count: int = 6):
    space = threshold_space()
    rollouts = Rollouts(space, 200, 4, 0.5, True, np.random.default_rng(0), policy)
    budget = Budget(FakeEvaluator({}), reward_of, 200)
    start = rollouts.take_in(budget.evaluate(space.start))
    turns = []
    for _ in range(count):
        turns += turns_of(rollouts.episode(policy, start), budget)
    return rollouts, turns


@pytest.mark.parametrize("kind", [EditPolicy, TwoStagePolicy])
def test_scored__density_and_gradients_are_those_of_the_unrounded_draw(kind):
    policy = seeded(lambda: kind(Gine(16, 2), continuous=True), 0)
    rollouts, turns = walked(policy)
    assert any(turn.share is None for turn in turns)
    shares = [turn for turn in turns if turn.share is not None]
    assert any(threshold_of(turn.after.composition) not in (0.5, 0.8) for turn in shares)
    packed = rollouts.before(turns)
    found, entropy = rollouts.scored(policy, packed, turns)
    torch.testing.assert_close(found, torch.tensor([turn.log_probability for turn in turns]), atol=1e-4, rtol=1e-4)
    other = turns.index(shares[0])
    moved = [*turns[:other], shares[0]._replace(share=0.5 * shares[0].share), *turns[other + 1 :]]
    assert rollouts.scored(policy, packed, moved)[0][other] != found[other]
    assert entropy.isfinite().all()
    for loss in (found[[turns.index(turn) for turn in shares]].sum(), entropy.sum()):
        policy.zero_grad()
        loss.backward(retain_graph=True)
        head = next(module for module in policy.modules() if isinstance(module, SettingHead))
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in head.parameters())
        assert all(p.grad is None or p.grad.isfinite().all() for p in policy.parameters())


def test_setting_head__gives_densities_with_one_peak():
    concentrations = seeded(lambda: SettingHead(8), 0)(100 * torch.randn(50, 8, generator=torch.manual_seed(0)))
    assert (concentrations >= 1.0).all()
    assert concentrations.max() > 5.0
    shares = torch.tensor([0.0, 0.3, 1.0])
    density = share_log_density(torch.tensor([[2.0, 3.0]] * 3), shares)
    assert density.isfinite().all()
    torch.testing.assert_close(density[1], Beta(2.0, 3.0).log_prob(torch.tensor(0.3)))
    torch.testing.assert_close(share_entropy(torch.ones(1, 2)), torch.zeros(1), atol=1e-6, rtol=0)


def test_policy__judges_a_parameter_alike_by_whatever_edit_sets_it():
    policy = seeded(lambda: EditPolicy(Gine(16, 2), continuous=True), 0)
    (turn, *_) = walked(policy, 1)[1]
    space, composition = weighted_space()
    rollouts = Rollouts(space, 9, 4, 0.5, True, np.random.default_rng(0), policy)
    standing = rollouts.take_in(Budget(FakeEvaluator({}), reward_of, 9).evaluate(composition))
    sets = Settings(space).of(standing)
    turns = [turn._replace(before=standing, allowed=[number]) for number in sets]
    packed = rollouts.before(turns)
    with torch.no_grad():
        scores, concentrations = policy.judge(packed, rollouts.visited.catalog.operators)
    by_name: dict[str, list] = {}
    for row, number in enumerate(sets):
        by_name.setdefault(sets[number].edit.name, []).append((scores[row], *concentrations[row]))
    assert len(by_name) == 2
    for rows in by_name.values():
        assert len(rows) > 1
        for row in rows[1:]:
            torch.testing.assert_close(torch.stack(row), torch.stack(rows[0]), atol=1e-5, rtol=1e-5)


def test_checkpoint__keeps_the_head():
    policy = seeded(lambda: TwoStagePolicy(Gine(16, 2), continuous=True), 0)
    known = policy_from_checkpoint(policy_to_checkpoint(policy), Gine(), name="it")
    assert known.continuous
    assert torch.equal(known.share.layers[1].weight, policy.share.layers[1].weight)
