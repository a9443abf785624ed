"""Returns that value learners aim at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


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
