"""Steps in bulk are the Gymnasium environment's, bit for bit."""

import numpy as np
import pytest
from synthetic import CASCADE, MEAN, model, space_of, transform

from gnncompose.composition.edits import Limits, Stop
from gnncompose.composition.enumeration import enumerate_space
from gnncompose.composition.transitions import Transitions
from gnncompose.envs.batched import BatchedEnv
from gnncompose.envs.compose import ComposeEnv
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.reward import WeightedSum
from gnncompose.tasks.task import World

HORIZON = 5


def world(name, condition):
    task, prices = recorded_task(name), load_prices()
    evaluator = TableEvaluator(task, World(condition), prices)
    return evaluator, WeightedSum().bind(task.catalog, prices, evaluator.world)


@pytest.mark.parametrize(
    ("name", "condition"), [("series_gun_point", "mixed"), ("census", "mixed"), ("letter", "noise")]
)
def test_batched_env__walks_as_the_gymnasium_environment_does(name, condition):
    evaluator, reward = world(name, condition)
    space, table = evaluator.task.space, evaluator.table
    start = table.row(space.start)
    batched = BatchedEnv(
        Transitions.of(table.space, table.task.catalog),
        evaluator.rewards(reward),
        start,
        environments=8,
        horizon=HORIZON,
    )
    singles = [
        ComposeEnv(space, evaluator, reward, budget=1000, horizon=HORIZON, nondeterministic=False) for _ in range(8)
    ]
    for single in singles:
        single.reset()
    generator = np.random.default_rng(0)
    for _ in range(25):
        steps = batched.random_step(generator)
        for number, single in enumerate(singles):
            assert steps.before[number] == table.row(single.composition)
            edits = [*(edit for edit, _ in space.successors(single.composition)), Stop()]
            chosen = edits[steps.edit[number]]
            action = next(action for action, edit in single.edits.items() if edit == chosen)
            _, gained, terminated, truncated, _ = single.step(action)
            assert steps.after[number] == table.row(single.composition)
            assert steps.reward[number] == gained
            assert (steps.terminated[number], steps.truncated[number]) == (terminated, truncated)
            if terminated or truncated:
                single.reset()


def tiny():
    space = space_of([transform("a"), model("m1"), model("m2"), MEAN, CASCADE], Limits(5, 3, 2, 1, 1))
    written = enumerate_space(space)
    rewards = np.random.default_rng(0).random(len(written))
    return Transitions.of(written, space.catalog), rewards


def test_batched_env__draws_each_legal_edit_alike():
    transitions, rewards = tiny()
    env = BatchedEnv(transitions, rewards, start=0, environments=20_000, horizon=9)
    edits = env.random_step(np.random.default_rng(1)).edit
    counts = np.bincount(edits, minlength=int(transitions.offsets[1]) + 1)
    expected = len(edits) / len(counts)
    assert len(counts) == transitions.offsets[1] - transitions.offsets[0] + 1
    assert np.abs(counts - expected).max() < 5 * expected**0.5


def test_batched_env__begins_anew_where_it_is_told_to():
    transitions, rewards = tiny()
    env = BatchedEnv(transitions, rewards, start=0, environments=2, horizon=1)
    env.starts[:] = [1, 2]
    steps = env.step(np.zeros(2, dtype=np.int32))
    assert steps.before.tolist() == [0, 0]
    assert steps.truncated.all()
    assert env.rows.tolist() == [1, 2]
    assert env.reset().tolist() == [1, 2]


def test_batched_env__refuses_what_is_no_edit_and_changes_nothing():
    transitions, rewards = tiny()
    env = BatchedEnv(transitions, rewards, start=0, environments=2, horizon=3)
    with pytest.raises(ValueError, match="environment 1 has edits 0 to"):
        env.step(np.array([0, 1000], dtype=np.int32))
    assert env.rows.tolist() == [0, 0]
    assert env.steps.tolist() == [0, 0]
    with pytest.raises(ValueError, match="one for each"):
        BatchedEnv(transitions, rewards[:-1], start=0, environments=2, horizon=3)


def test_batched_env__same_seed_same_steps():
    transitions, rewards = tiny()
    runs = []
    for _ in range(2):
        env, generator = BatchedEnv(transitions, rewards, 0, 64, 4), np.random.default_rng(3)
        runs.append([env.random_step(generator) for _ in range(10)])
    for one, other in zip(*runs, strict=True):
        for first, second in zip(one, other, strict=True):
            np.testing.assert_array_equal(first, second)
