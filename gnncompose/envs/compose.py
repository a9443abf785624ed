"""Composing as a Gymnasium environment: states are compositions, actions are edits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, SupportsFloat, SupportsInt

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from gnncompose.composition.edits import Edit, Stop
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.encoding import EDGE_DIM, NODE_DIM, CatalogFeatures, encode
from gnncompose.envs.actions import ActionCodec, LegalDiscrete
from gnncompose.evaluation.evaluation import Budget, BudgetSpent, Evaluation, Evaluator, Trial

BOUND = 1e6  # of features and rewards; Gymnasium warns of infinite ones
Observation = dict[str, Any]


class ComposeEnv(gym.Env[Observation, SupportsInt]):
    """One episode is one search: it begins at the start with the whole budget.

    `Stop` terminates an episode. A spent budget or step limit truncates it; a step that would have needed a
    further evaluation then leaves the composition as it was, with a reward of 0.

    The observation holds the composition as padded arrays (`nodes` float32[rows, NODE_DIM], `edges`
    int64[edges, 2] with -1 for padding, `edge_features` float32[edges, EDGE_DIM], `node_count`), the `mask`
    int8[actions] of legal actions, `reward` and `best_reward`, and `budget_left` as a share.
    """

    action_space: LegalDiscrete
    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012 - Gymnasium's own form

    def __init__(
        self,
        space: Space,
        evaluator: Evaluator,
        reward: Callable[[Evaluation], float],
        budget: int = 100,
        horizon: int = 100,
        reward_form: Literal["improvement", "level"] = "improvement",
        nondeterministic: bool = True,
        render_mode: str | None = None,
    ) -> None:
        """Join the objects that make up the environment.

        Args:
            space: Where to compose.
            evaluator: Gives evaluations.
            reward: From an evaluation to a number.
            budget: Distinct compositions of an episode, the start included.
            horizon: Steps of an episode.
            reward_form: `improvement` for r(c′) − r(c), `level` for r(c′).
            nondeterministic: Whether measurements vary from run to run, as those of real execution do.
            render_mode: `ansi` for text, or None.

        Raises:
            ValueError: `reward_form` is neither of the two.
        """
        if reward_form not in ("improvement", "level"):
            raise ValueError(f"reward_form is 'improvement' or 'level', not {reward_form!r}")
        self.space = space
        self.evaluator = evaluator
        self.reward = reward
        self.budget_limit = budget
        self.horizon = horizon
        self.reward_form = reward_form
        self.nondeterministic = nondeterministic
        self.render_mode = render_mode
        self.codec = ActionCodec.of(space.catalog, space.limits)
        self.features = CatalogFeatures.of(space.catalog)
        self.action_space = LegalDiscrete(self.codec.size)
        self.observation_space = self._observation_space()
        self.edits: dict[int, Edit] = {}
        self._stand_at(space.start)
        self.action_space.legal_first = self.mask

    def _observation_space(self) -> gym.spaces.Dict:
        limits = self.space.limits
        ports = max([limits.branches + 1, *(len(o.inputs) for o in self.space.catalog.operators)])
        self.rows, self.edge_rows = limits.nodes + 2, 2 * (limits.nodes * ports + 1)

        def numbers(*shape: int) -> gym.spaces.Box:
            return gym.spaces.Box(-BOUND, BOUND, shape, np.float32)

        return gym.spaces.Dict(
            {
                "nodes": numbers(self.rows, NODE_DIM),
                "node_count": gym.spaces.Box(0, self.rows, (1,), np.int64),
                "edges": gym.spaces.Box(-1, self.rows - 1, (self.edge_rows, 2), np.int64),
                "edge_features": numbers(self.edge_rows, EDGE_DIM),
                "mask": gym.spaces.MultiBinary(self.codec.size),
                "reward": numbers(1),
                "best_reward": numbers(1),
                "budget_left": gym.spaces.Box(0.0, 1.0, (1,), np.float32),
            }
        )

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]
        """As registered, with `nondeterministic` as this environment's evaluator is."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = spec if spec is None else replace(spec, nondeterministic=self.nondeterministic)

    _spec: EnvSpec | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode with the whole budget.

        Args:
            seed: Seeds what is drawn.
            options: `start`: a composition, or "random" for a random walk from the space's start.

        Returns:
            The observation, and an info with the composition and its evaluation.
        """
        super().reset(seed=seed)
        start = (options or {}).get("start", self.space.start)
        if start == "random":
            start = self.space.random(self.np_random)
        self.steps = 0
        self.budget = Budget(self.evaluator, self.reward, self.budget_limit)
        self.trial: Trial = self.budget.evaluate(start)
        self._stand_at(start)
        self.action_space.legal_first = self.action_space.legal
        return self._observe(), self._info()

    def step(self, action: SupportsInt) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Apply an edit.

        Args:
            action: Its number.

        Raises:
            gymnasium.error.InvalidAction: The action is masked.
        """
        edit = self.edits.get(int(action))
        if edit is None:
            raise gym.error.InvalidAction(
                f"action {int(action)} is no legal edit of {self.composition}; choose one whose mask is 1"
            )
        self.steps += 1
        before, truncated = self.trial.reward, self.steps >= self.horizon
        if isinstance(edit, Stop):
            return self._observe(), self._reward(before), True, False, self._info()
        successor = self.space.apply(self.composition, edit)
        try:
            self.trial = self.budget.evaluate(successor)
        except BudgetSpent:
            return self._observe(), 0.0, False, True, self._info()
        self._stand_at(successor)
        return self._observe(), self._reward(before), False, truncated, self._info()

    def action_masks(self) -> np.ndarray:
        """bool[actions]: which are legal; the name that sb3-contrib asks for."""
        return self.mask.astype(bool)

    def render(self) -> str | None:  # type: ignore[override]
        """The composition as one line."""
        return str(self.composition) if self.render_mode == "ansi" else None

    def _stand_at(self, composition: Composition) -> None:
        self.composition = composition
        edits: list[Edit] = [edit for edit, _ in self.space.successors(composition)]
        self.edits = self.codec.number([*edits, Stop()], composition)
        self.mask = np.zeros(self.codec.size, np.int8)
        self.mask[list(self.edits)] = 1
        self.action_space.legal = self.mask

    def _reward(self, before: float) -> float:
        return self.trial.reward - before if self.reward_form == "improvement" else self.trial.reward

    def _observe(self) -> Observation:
        data = encode(self.composition, [], self.features)
        nodes = np.zeros((self.rows, NODE_DIM), np.float32)
        edges = np.full((self.edge_rows, 2), -1, np.int64)
        edge_features = np.zeros((self.edge_rows, EDGE_DIM), np.float32)
        count, edge_count = len(data["x"]), data["edge_index"].shape[1]
        nodes[:count] = data["x"].numpy()
        edges[:edge_count] = data["edge_index"].numpy().T
        edge_features[:edge_count] = data["edge_attr"].numpy()
        return {
            "nodes": nodes,
            "node_count": np.array([count], np.int64),
            "edges": edges,
            "edge_features": edge_features,
            "mask": self.mask.copy(),
            "reward": np.array([self.trial.reward], np.float32),
            "best_reward": np.array([self.budget.best.reward], np.float32),
            "budget_left": np.array([self.budget.left / self.budget_limit], np.float32),
        }

    def _info(self) -> dict[str, Any]:
        return {"composition_id": self.composition.id, "failure": self.trial.failure}
