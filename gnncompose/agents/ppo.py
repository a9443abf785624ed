"""Proximal policy optimisation over the legal edits of a composition (Schulman et al., arXiv:1707.06347, 2017)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gnncompose.agents.a2c import A2C
from gnncompose.policies.policy import EncoderRecipe
from gnncompose.ranges import above_zero, counts


class PPO(A2C):
    """Learns like `A2C`, but several times from the same turns, and no further than a clipped ratio allows."""

    def __init__(
        self,
        encoder: EncoderRecipe,
        learning_rate: float = 1e-3,
        gamma: float = 0.9,
        decay: float = 0.95,
        horizon: int = 4,
        batch_size: int = 16,
        epochs: int = 4,
        clip: float = 0.2,
        entropy: float = 0.01,
        value_weight: float = 0.5,
        restart_probability: float = 0.8,
        unvisited_only: bool = True,
        history: int = 0,
        continuous: bool = False,
        checkpoint: str | None = None,
    ) -> None:
        """Set how to learn; what is not named here is as in `A2C`.

        Args:
            encoder: Describes the graph encoders of policy and critic.
            learning_rate: Of Adam.
            gamma: Discount of a step.
            decay: λ of the advantage estimates.
            horizon: Edits after which an episode is truncated.
            batch_size: Turns after which to learn, at least.
            epochs: Gradient steps on the same turns.
            clip: How far the ratio of new to old probability counts.
            entropy: Weight of the policy's entropy.
            value_weight: Weight of the critic's loss.
            restart_probability: How often an episode begins at the best composition so far, not at the start.
            unvisited_only: Whether to draw among edits to compositions not evaluated yet, while there are any.
            history: Evaluations so far, the latest ones, that the policy is told of, at most; 0 for none.
            continuous: Whether the policy sets parameters to any value of their range, drawn from a Beta distribution,
                not to one of the grid.
            checkpoint: File with a policy to begin with, which keeps its own `history` and `continuous`; None to begin
                from random weights.

        Raises:
            GnncomposeError: A number is out of its range.
        """
        counts("agent", 1, epochs=epochs)
        above_zero("agent", clip=clip)
        super().__init__(
            encoder,
            learning_rate,
            gamma,
            decay,
            horizon,
            batch_size,
            entropy,
            value_weight,
            restart_probability,
            unvisited_only,
            history,
            continuous,
            checkpoint,
        )
        self.epochs = epochs
        self.clip = clip

    def _policy_loss(
        self, new: Float[Tensor, " turn"], old: Float[Tensor, " turn"], advantages: Float[Tensor, " turn"]
    ) -> Tensor:
        ratio = (new - old).exp()
        clipped = ratio.clamp(1.0 - self.clip, 1.0 + self.clip)
        return -torch.minimum(ratio * advantages, clipped * advantages).mean()
