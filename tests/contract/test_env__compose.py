import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from synthetic import TINY_GAINS, FakeEvaluator, large_space, reward_of, tiny_space

import gnncompose.envs  # noqa: F401 - registers the environment
from gnncompose.composition.edits import Stop
from gnncompose.envs.compose import ComposeEnv


def make(space=None, **changes):
    arguments = {"budget": 20, "horizon": 30, "nondeterministic": False} | changes
    return gym.make(
        "gnncompose/Compose-v0",
        disable_env_checker=True,
        space=space or tiny_space(),
        evaluator=FakeEvaluator(TINY_GAINS),
        reward=reward_of,
        **arguments,
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("space", [tiny_space(), large_space()], ids=["tiny", "large"])
@pytest.mark.parametrize("reward_form", ["improvement", "level"])
def test_compose_env__passes_check_env(space, reward_form):
    env = make(space, reward_form=reward_form)
    check_env(env.unwrapped, skip_render_check=True)


@pytest.mark.parametrize("space", [tiny_space(), large_space()], ids=["tiny", "large"])
def test_compose_env__twin_rollouts_are_equal(space):
    one, two = make(space), make(space)
    one.action_space.seed(3)
    for episode in range(3):
        (first, _), (second, _) = (env.reset(seed=episode, options={"start": "random"}) for env in (one, two))
        over = False
        while not over:
            for key in first:
                np.testing.assert_array_equal(first[key], second[key])
            assert one.observation_space.contains(first)
            action = one.action_space.sample()
            first, *outcome, _ = one.step(action)
            second, *twin, _ = two.step(action)
            assert outcome == twin
            over = outcome[1] or outcome[2]


def test_compose_env__mask_holds_every_legal_edit_once():
    env = make(large_space()).unwrapped
    assert isinstance(env, ComposeEnv)
    generator = np.random.default_rng(0)
    for _ in range(20):
        composition = env.space.random(generator)
        numbered = env.codec.number(env.space.legal_edits(composition), composition)
        assert set(map(str, numbered.values())) == set(map(str, env.space.legal_edits(composition)))
        assert all(0 <= number < env.action_space.n for number in numbered)


def test_compose_env__stop_terminates_and_limits_truncate():
    env = make(budget=3, horizon=50)
    env.reset(seed=0)
    stop = next(n for n, edit in env.unwrapped.edits.items() if isinstance(edit, Stop))
    assert env.step(stop)[1:4] == (0.0, True, False)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(50):
        action = next(n for n in iter(env.action_space.sample, None) if n != stop)
        *_, terminated, truncated, _ = env.step(action)
        assert not terminated
        if truncated:
            break
    assert truncated
    assert len(env.unwrapped.budget.trials) == 3
    env = make(horizon=2)
    env.reset(seed=0)
    env.action_space.seed(0)
    walked = (next(n for n in iter(env.action_space.sample, None) if n != stop) for _ in range(2))
    outcomes = [env.step(action)[2:4] for action in walked]
    assert outcomes == [(False, False), (False, True)]


def test_compose_env__rewards_improvement_or_level():
    improvement, level = make(), make(reward_form="level")
    before = improvement.reset(seed=0)[0]["reward"][0]
    level.reset(seed=0)
    action = next(iter(improvement.unwrapped.edits))
    gained, reached = improvement.step(action)[1], level.step(action)[1]
    assert reached == pytest.approx(before + gained)


def test_compose_env__refuses_masked_action():
    env = make()
    env.reset(seed=0)
    masked = int(np.flatnonzero(env.unwrapped.action_space.legal == 0)[0])
    with pytest.raises(gym.error.InvalidAction, match="no legal edit"):
        env.step(masked)


def test_compose_env__declares_nondeterminism():
    assert make(nondeterministic=True).spec.nondeterministic
    assert not make().spec.nondeterministic
    assert gym.spec("gnncompose/Compose-v0").nondeterministic
