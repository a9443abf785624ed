"""Returns that value learners aim at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class NStep(NamedTuple):
    """A stretch of an episode: aim at `reward + discount · value(state number end)`.

    Attributes:
        start: Number of the first state.
        reward: Discounted sum of the stretch's rewards.
        discount: What the value of the last state counts; 0 where the episode terminated there.
        end: Number of the last state.
    """

    start: int
    reward: float
    discount: float
    end: int


def n_step_returns(rewards: Sequence[float], gamma: float, n: int, *, terminated: bool) -> list[NStep]:
    """The n-step return from every state of an episode (Sutton and Barto, Reinforcement Learning, chapter 7).

    An episode that was truncated, by a limit of steps or by the budget, has a future: its last stretches still
    count the value of the last state. Only a terminated episode has none.

    Args:
        rewards: Reward of each step; step `i` leads from state `i` to `i + 1`.
        gamma: Discount of a step.
        n: Longest stretch; near the end stretches are shorter.
        terminated: Whether the last step ended the episode for good.
    """
    found: list[NStep] = []
    for start in range(len(rewards)):
        end = min(start + n, len(rewards))
        reward = sum(gamma**k * rewards[start + k] for k in range(end - start))
        final = terminated and end == len(rewards)
        found.append(NStep(start, reward, 0.0 if final else gamma ** (end - start), end))
    return found


def discounted_returns(rewards: Sequence[float], gamma: float) -> np.ndarray:
    """float[step]: discounted sum of the rewards from each step to the end."""
    found, total = np.zeros(len(rewards)), 0.0
    for step in range(len(rewards) - 1, -1, -1):
        total = rewards[step] + gamma * total
        found[step] = total
    return found


def generalised_advantages(
    rewards: Sequence[float], values: Sequence[float], last_value: float, gamma: float, decay: float
) -> np.ndarray:
    """Generalised advantage estimates of an episode (Schulman et al., ICLR 2016).

    Args:
        rewards: Reward of each step.
        values: Value of the state that each step was made in.
        last_value: Value of the state that the last step led to; 0 where the episode terminated there.
        gamma: Discount of a step.
        decay: Their λ: 0 trusts the values, 1 the rewards.

    Returns:
        float[step].
    """
    after = [*values[1:], last_value]
    errors = [r + gamma * v_after - v for r, v_after, v in zip(rewards, after, values, strict=True)]
    return discounted_returns(errors, gamma * decay)
