"""Advantage actor-critic over the legal edits of a composition.

The synchronous form of Mnih et al., Asynchronous Methods for Deep Reinforcement Learning (ICML 2016), with generalised
advantage estimates (Schulman et al., ICLR 2016). Rewards are improvements; `Stop` ends an episode for good, so its
future is worth 0.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gnncompose.agents.agent import Proposals
from gnncompose.agents.returns import generalised_advantages
from gnncompose.agents.rollouts import Rollouts, Turn
from gnncompose.composition.space import Space
from gnncompose.encoding import NODE_DIM
from gnncompose.policies.checkpoints import Policy, load_policy, policy_to_checkpoint
from gnncompose.policies.policy import Critic, EditPolicy, EncoderRecipe, seeded
from gnncompose.ranges import above_zero, at_least, counts, shares

GRADIENT_NORM = 0.5
LEAST_DEVIATION = 1e-6


class A2C:
    """Learns a policy from how much better edits were than a critic expected."""

    epochs = 1

    def __init__(
        self,
        encoder: EncoderRecipe,
        learning_rate: float = 1e-3,
        gamma: float = 0.9,
        decay: float = 0.95,
        horizon: int = 4,
        batch_size: int = 16,
        entropy: float = 0.01,
        value_weight: float = 0.5,
        restart_probability: float = 0.8,
        unvisited_only: bool = True,
        history: int = 0,
        continuous: bool = False,
        checkpoint: str | None = None,
    ) -> None:
        """Set how to learn.

        Args:
            encoder: Describes the graph encoders of policy and critic.
            learning_rate: Of Adam.
            gamma: Discount of a step.
            decay: λ of the advantage estimates.
            horizon: Edits after which an episode is truncated.
            batch_size: Turns after which to learn, at least; episodes are kept whole.
            entropy: Weight of the policy's entropy, which keeps it from settling early.
            value_weight: Weight of the critic's loss.
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
        counts("agent", 1, horizon=horizon, batch_size=batch_size)
        counts("agent", 0, history=history)
        at_least("agent", 0, entropy=entropy, value_weight=value_weight)
        above_zero("agent", learning_rate=learning_rate)
        shares("agent", gamma=gamma, decay=decay, restart_probability=restart_probability)
        self.encoder = encoder
        self.learning_rate = learning_rate
        self.gamma = gamma
        self.decay = decay
        self.horizon = horizon
        self.batch_size = batch_size
        self.entropy = entropy
        self.value_weight = value_weight
        self.restart_probability = restart_probability
        self.unvisited_only = unvisited_only
        self.history = history
        self.continuous = continuous
        self._initial = None if checkpoint is None else load_policy(checkpoint, encoder, history, continuous)
        self._policy: Policy | None = None

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield the compositions of one episode after the other; see `Agent.propose`."""
        seed = int(generator.integers(2**31))
        initial, node_dim = self._initial, NODE_DIM if self._initial is None else self._initial.features["node"]
        history = self.history if initial is None else initial.history
        fresh, critic = seeded(
            lambda: (
                EditPolicy(self.encoder, False, history, self.continuous),
                Critic(self.encoder, node_dim, history),
            ),
            seed,
        )
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
        optimizer = torch.optim.Adam([*policy.parameters(), *critic.parameters()], lr=self.learning_rate, fused=True)
        start = rollouts.take_in((yield space.start))
        batch: list[list[Turn]] = []
        while start.successors:
            batch.append((yield from rollouts.episode(policy, start)))
            if sum(len(episode) for episode in batch) >= self.batch_size:
                self._learn(policy, critic, optimizer, rollouts, batch)
                batch = []

    def _learn(
        self,
        policy: Policy,
        critic: Critic,
        optimizer: torch.optim.Optimizer,
        rollouts: Rollouts,
        batch: Sequence[Sequence[Turn]],
    ) -> None:
        """Gradient steps on a batch of episodes."""
        turns = [turn for episode in batch for turn in episode]
        before = rollouts.before(turns)
        with torch.no_grad():
            values, last = critic(before), critic(rollouts.after([episode[-1] for episode in batch]))
        ends = list(accumulate(len(episode) for episode in batch))
        found = [
            generalised_advantages(
                [turn.reward for turn in episode],
                values[end - len(episode) : end].tolist(),
                0.0 if episode[-1].terminated else float(last[number]),
                self.gamma,
                self.decay,
            )
            for number, (episode, end) in enumerate(zip(batch, ends, strict=True))
        ]
        raw = torch.from_numpy(np.concatenate(found)).float()
        aims, advantages = raw + values, (raw - raw.mean()) / raw.std(correction=0).clamp(min=LEAST_DEVIATION)
        old = torch.tensor([turn.log_probability for turn in turns])
        parameters = [*policy.parameters(), *critic.parameters()]
        for _ in range(self.epochs):
            new, entropy = rollouts.scored(policy, before, turns)
            loss = self._policy_loss(new, old, advantages) - self.entropy * entropy.mean()
            loss = loss + self.value_weight * F.mse_loss(critic(before), aims)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
            optimizer.step()

    def _policy_loss(
        self, new: Float[Tensor, " turn"], old: Float[Tensor, " turn"], advantages: Float[Tensor, " turn"]
    ) -> Tensor:
        """What to lower, from log probabilities now and when the turns were drawn."""
        return -(new * advantages).mean()

    def checkpoint(self) -> dict[str, Any] | None:
        """The policy of the latest run, or the one to begin with; None where there is neither."""
        policy = self._policy or self._initial
        return None if policy is None else policy_to_checkpoint(policy)
