"""MaskablePPO of sb3-contrib on the Gymnasium environment, its loop turned inside out.

Schulman et al., Proximal Policy Optimization Algorithms (2017); Huang and Ontañón, A Closer Look at Invalid Action
Masking in Policy Gradient Algorithms (FLAIRS 2022); Raffin et al., Stable-Baselines3 (JMLR 22, 2021).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gnncompose.agents.agent import Proposals
from gnncompose.agents.peers import require
from gnncompose.composition.space import Space
from gnncompose.evaluation.evaluation import STEPS_PER_EVALUATION
from gnncompose.ranges import above_zero, at_least, counts, shares

if TYPE_CHECKING:
    from sb3_contrib import MaskablePPO

    from gnncompose.agents.peers.inverted import AskingEvaluator


class Sb3MaskablePPO:
    """Trains on short episodes for as long as the budget lasts; what it visits is what it proposes."""

    def __init__(
        self,
        horizon: int = 8,
        reward_form: Literal["improvement", "level"] = "improvement",
        learning_rate: float = 3e-4,
        n_steps: int = 64,
        batch_size: int = 32,
        n_epochs: int = 10,
        gamma: float = 0.9,
        entropy: float = 0.01,
    ) -> None:
        """Set how to learn.

        Args:
            horizon: Edits after which an episode is truncated.
            reward_form: `improvement` for r(c′) − r(c), `level` for r(c′).
            learning_rate: Of Adam.
            n_steps: Steps between two updates.
            batch_size: Steps of a gradient step.
            n_epochs: Passes over the steps of an update.
            gamma: Discount of a step.
            entropy: Weight of the entropy in the loss.

        Raises:
            GnncomposeError: A number is out of its range, or sb3-contrib is not installed.
        """
        counts("agent", 1, horizon=horizon, n_steps=n_steps, batch_size=batch_size, n_epochs=n_epochs)
        at_least("agent", 0, entropy=entropy)
        above_zero("agent", learning_rate=learning_rate)
        shares("agent", gamma=gamma)
        require("sb3_contrib", "maskable_ppo")
        import_module("torch")  # before a search sets aside the random states of what is imported
        self.horizon = horizon
        self.reward_form: Literal["improvement", "level"] = reward_form
        self.learning_rate = learning_rate
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.gamma = gamma
        self.entropy = entropy
        self._model: MaskablePPO | None = None

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield the compositions of one episode after the other; see `Agent.propose`."""
        from gnncompose.agents.peers.inverted import inverted

        seed = int(generator.integers(2**31))

        def loop(evaluator: AskingEvaluator) -> None:
            self._model = self._make(space, evaluator, seed)
            self._model.learn(total_timesteps=STEPS_PER_EVALUATION * budget)

        return inverted(loop, seed)

    def _make(self, space: Space, evaluator: AskingEvaluator, seed: int) -> MaskablePPO:
        """A model on the environment; the mask goes its own way, so the observation does without it."""
        from gymnasium.spaces import Dict
        from gymnasium.wrappers import FilterObservation
        from sb3_contrib import MaskablePPO
        from stable_baselines3.common.logger import Logger

        from gnncompose.envs.compose import ComposeEnv

        env = ComposeEnv(
            space,
            evaluator,
            evaluator.reward,
            budget=self.horizon + 1,
            horizon=self.horizon,
            reward_form=self.reward_form,
        )
        assert isinstance(env.observation_space, Dict)
        seen = [name for name in env.observation_space if name != "mask"]
        model = MaskablePPO(
            "MultiInputPolicy",
            FilterObservation(env, seen),
            learning_rate=self.learning_rate,
            n_steps=self.n_steps,
            batch_size=self.batch_size,
            n_epochs=self.n_epochs,
            gamma=self.gamma,
            ent_coef=self.entropy,
            seed=seed,
            device="cpu",
        )
        model.set_logger(Logger(folder=None, output_formats=[]))  # its own makes a folder for each run
        return model

    def checkpoint(self) -> dict[str, Any] | None:
        """Weights of the latest run's policy; None before the first."""
        if self._model is None:
            return None
        weights = {name: tensor.detach().clone() for name, tensor in self._model.policy.state_dict().items()}
        return {"format": 1, "weights": weights}
