"""What each node of a composition takes and gives."""

from collections.abc import Callable

import numpy as np
import pytest
from recorded import recorded
from synthetic import CASCADE, MEAN, TINY_GAINS, FakeEvaluator, chain, model, reward_of, space_of, tiny_space, transform

from gnncompose.composition.edits import Limits
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, make_node
from gnncompose.evaluation.contributions import LEFT_OUT, Contribution, NodeTime, contributions
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.reward import WeightedSum
from gnncompose.tasks.task import World

SPACE = tiny_space()


def mean_of(space: Space, *chains: tuple[str, ...]) -> Composition:
    return Composition(make_node(MEAN, [chain(space, *names) for names in chains]))


@pytest.fixture
def both() -> Composition:
    """Two models behind one transform that they share."""
    return mean_of(SPACE, ("median", "tree"), ("median", "mlp"))


def told(
    composition: Composition, evaluator: FakeEvaluator, space: Space = SPACE, known=None, seconds: float = 10
) -> dict[str, Contribution]:
    found = contributions(composition, evaluator, space, reward_of, known or {}, seconds)
    assert [one.node.id for one in found] == [node.id for node in composition.nodes]
    return {one.node.operator.name: one for one in found}


def test_contributions__are_the_compositions_without_each_node(both: Composition) -> None:
    evaluator = FakeEvaluator(TINY_GAINS)
    found = told(both, evaluator)
    assert str(found["median"].without) == "mean(tree(input), mlp(input))"
    assert str(found["tree"].without) == "mlp(median(input))"
    assert str(found["mlp"].without) == "tree(median(input))"
    for one in found.values():
        assert one.evaluation.score == evaluator.evaluate(one.without).score
        assert one.reward == reward_of(one.evaluation)
        assert (one.reason, one.time) == (None, None)


def test_contributions__put_the_best_branch_in_place_of_a_combiner() -> None:
    space = space_of([transform("median"), *(model(name) for name in "abc"), MEAN], Limits(8, 4, 3))
    composition = mean_of(space, ("median", "a"), ("median", "b"), ("median", "c"))
    evaluator = FakeEvaluator({"a": 0.0, "b": 0.5, "c": 0.1})
    assert str(told(composition, evaluator, space)["mean"].without) == "b(median(input))"


def test_contributions__of_a_combiner_within_another_leave_the_outer_one() -> None:
    space = space_of([*(model(name) for name in "abc"), MEAN, CASCADE], Limits(8, 4, 3))
    inner = make_node(MEAN, [chain(space, "a"), chain(space, "b")])
    composition = Composition(make_node(CASCADE, [chain(space, "c"), inner]))
    found = told(composition, FakeEvaluator({"a": 0.5, "b": 0.0}), space)
    assert str(found["mean"].without) == "cascade[threshold=0.8](c(input), a(input))"


def test_contributions__ask_for_nothing_that_is_known_and_nothing_twice(both: Composition) -> None:
    evaluator = FakeEvaluator(TINY_GAINS)
    mlp = Composition(chain(SPACE, "median", "mlp"))
    told(both, evaluator, known={mlp.id: FakeEvaluator(TINY_GAINS).evaluate(mlp)})
    assert len(evaluator.asked) == len(set(evaluator.asked)) == 2
    assert mlp.id not in evaluator.asked


def test_contributions__say_why_there_are_none() -> None:
    lone = told(Composition(chain(SPACE, "median", "tree")), FakeEvaluator(TINY_GAINS, failing="tree"))
    assert lone["tree"].reason == "nothing would be left to answer"
    assert lone["tree"].without is None
    assert lone["median"].reason == '"tree" crashed'
    late = told(Composition(chain(SPACE, "median", "tree")), FakeEvaluator(TINY_GAINS), seconds=-1.0)
    assert late["median"].reason == LEFT_OUT
    assert late["median"].evaluation is None


def test_contributions__end_at_an_interrupt(both: Composition, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = FakeEvaluator(TINY_GAINS)

    def interrupted(composition: Composition, split: str = "validation") -> None:
        evaluator.asked.append(composition.id)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluator, "evaluate", interrupted)
    found = told(both, evaluator)
    assert {one.reason for one in found.values()} == {LEFT_OUT}
    assert len(evaluator.asked) == 1


def test_contributions__take_times_from_an_evaluator_that_has_them(both: Composition) -> None:
    class FakeTimingEvaluator(FakeEvaluator):
        def node_times(self, composition: Composition) -> dict[str, NodeTime]:
            return {composition.id: NodeTime(2.0, 0.25)}

    found = told(both, FakeTimingEvaluator(TINY_GAINS))
    assert found["mean"].time.mean_ms == 0.5
    assert found["tree"].time is None


@pytest.fixture(scope="module")
def table() -> TableEvaluator:
    return TableEvaluator(recorded_task("digits"), World("mixed"), load_prices())


def best_of(table: TableEvaluator, fits: Callable[[Composition], bool]) -> Composition:
    rewards = table.rewards(WeightedSum().bind(table.task.catalog, load_prices(), table.world))
    every = (table.table.space.composition(int(row)) for row in np.argsort(-rewards))
    return next(composition for composition in every if fits(composition))


@recorded("digits")
@pytest.mark.parametrize("kind", ["model", "ensemble", "cascade"])
def test_table__gives_all_of_its_latency_to_the_nodes(table: TableEvaluator, kind: str) -> None:
    composition = best_of(table, lambda c: c.root.operator.kind == kind and len(c.nodes) > 2)
    times = table.node_times(composition)
    assert times.keys() == {node.id for node in composition.nodes}
    whole = table.evaluate(composition).latency_ms_mean
    assert sum(taken.mean_ms for taken in times.values()) == pytest.approx(whole, rel=0.1)
    if kind == "cascade":
        assert 0 < times[composition.root.inputs[-1].id].share < 1
