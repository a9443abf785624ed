"""REINFORCE over the legal edits of a composition (Williams, Machine Learning 8, 1992).

The policy is nudged towards edits whose return was above the mean of the returns of its batch of episodes at the same
step. Rewards are improvements, so a return is what is gained from there on.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gnncompose.agents.agent import Proposals
from gnncompose.agents.returns import discounted_returns
from gnncompose.agents.rollouts import Rollouts, Turn
from gnncompose.composition.space import Space
from gnncompose.policies.checkpoints import Policy, load_policy, policy_to_checkpoint
from gnncompose.policies.policy import EditPolicy, EncoderRecipe, seeded
from gnncompose.ranges import above_zero, at_least, counts, shares

GRADIENT_NORM = 1.0
LEAST_DEVIATION = 1e-6


class Reinforce:
    """Learns a policy from the returns of whole episodes."""

    def __init__(
        self,
        encoder: EncoderRecipe,
        learning_rate: float = 1e-3,
        gamma: float = 0.9,
        horizon: int = 4,
        episodes: int = 4,
        entropy: float = 0.01,
        restart_probability: float = 0.8,
        unvisited_only: bool = True,
        history: int = 0,
        continuous: bool = False,
        checkpoint: str | None = None,
    ) -> None:
        """Set how to learn.

        Args:
            encoder: Describes the graph encoder.
            learning_rate: Of Adam.
            gamma: Discount of a step.
            horizon: Edits after which an episode is truncated.
            episodes: Of a gradient step.
            entropy: Weight of the policy's entropy, which keeps it from settling early.
            restart_probability: How often an episode begins at the best composition so far, not at the start.
            unvisited_only: Whether to draw among edits to compositions not evaluated yet, while there are any.
            history: Evaluations so far, the latest ones, that the policy is told of, at most; 0 for none.
            continuous: Whether the policy sets parameters to any value of their range, drawn from a Beta distribution,
                not to one of the grid.
            checkpoint: File with a policy to begin with, which keeps its own `history` and `continuous`, and to ask for
                others is refused; None to begin from random weights.

        Raises:
            GnncomposeError: A number is out of its range, or the checkpoint is not usable, or of another `history`.
        """
        counts("agent", 1, horizon=horizon, episodes=episodes)
        counts("agent", 0, history=history)
        at_least("agent", 0, entropy=entropy)
        above_zero("agent", learning_rate=learning_rate)
        shares("agent", gamma=gamma, restart_probability=restart_probability)
        self.encoder = encoder
        self.learning_rate = learning_rate
        self.gamma = gamma
        self.horizon = horizon
        self.episodes = episodes
        self.entropy = entropy
        self.restart_probability = restart_probability
        self.unvisited_only = unvisited_only
        self.history = history
        self.continuous = continuous
        self._initial = None if checkpoint is None else load_policy(checkpoint, encoder, history, continuous)
        self._policy: Policy | None = None

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield the compositions of one episode after the other; see `Agent.propose`."""
        seed = int(generator.integers(2**31))
        initial = self._initial
        fresh = seeded(lambda: EditPolicy(self.encoder, False, self.history, self.continuous), seed)
        policy: Policy = copy.deepcopy(initial) if initial else fresh
        self._policy = policy
        rollouts = Rollouts(
            space,
            budget,
            self.horizon,
            self.restart_probability,
            self.unvisited_only,
            generator,
            policy,
        )
        optimizer = torch.optim.Adam(policy.parameters(), lr=self.learning_rate, fused=True)
        start = rollouts.take_in((yield space.start))
        batch: list[list[Turn]] = []
        while start.successors:
            batch.append((yield from rollouts.episode(policy, start)))
            if len(batch) == self.episodes:
                self._learn(policy, optimizer, rollouts, batch)
                batch = []

    def _learn(
        self, policy: Policy, optimizer: torch.optim.Optimizer, rollouts: Rollouts, batch: Sequence[Sequence[Turn]]
    ) -> None:
        """One gradient step on a batch of episodes."""
        turns = [turn for episode in batch for turn in episode]
        advantages = self._advantages(batch)
        logarithms, entropy = rollouts.scored(policy, rollouts.before(turns), turns)
        loss = -(logarithms * advantages).mean() - self.entropy * entropy.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), GRADIENT_NORM)
        optimizer.step()

    def _advantages(self, batch: Sequence[Sequence[Turn]]) -> torch.Tensor:
        """By how much each return exceeds the mean of those of the same step, in units of their deviation."""
        returns = np.full((len(batch), self.horizon), np.nan)
        for number, episode in enumerate(batch):
            returns[number, : len(episode)] = discounted_returns([turn.reward for turn in episode], self.gamma)
        steps = returns[:, ~np.isnan(returns).all(axis=0)]
        above = steps - np.nanmean(steps, axis=0)
        chosen = above[~np.isnan(above)]
        return torch.from_numpy(chosen / max(float(chosen.std()), LEAST_DEVIATION)).float()

    def checkpoint(self) -> dict[str, Any] | None:
        """The policy of the latest run, or the one to begin with; None where there is neither."""
        policy = self._policy or self._initial
        return None if policy is None else policy_to_checkpoint(policy)
