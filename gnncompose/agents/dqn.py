"""Deep Q-learning over the legal edits of a composition.

Mnih et al., Human-level control through deep reinforcement learning (Nature 2015), with double Q-learning (van
Hasselt et al., AAAI 2016) and n-step targets (Sutton 1988); dueling heads and prioritised replay where asked for. The
reward of an edit is the improvement r(c′) − r(c), so a return is what an episode gains, and `Stop` is worth exactly 0.
Four things make it frugal: episodes are short and mostly begin at the best composition so far, evaluations go to
compositions not evaluated yet, exploring means what was seldom tried, and every edit between two evaluated
compositions is replayed, walked or not.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gnncompose.agents.agent import Proposals
from gnncompose.agents.exploration import Exploration
from gnncompose.agents.novelty import Novelty
from gnncompose.agents.replay import Replay
from gnncompose.agents.restarts import Restarts
from gnncompose.agents.returns import n_step_returns
from gnncompose.agents.visited import Step, Visit, Visited
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.evaluation import Trial
from gnncompose.packing import Context
from gnncompose.policies.checkpoints import load_policy, policy_to_checkpoint
from gnncompose.policies.policy import EditPolicy, EncoderRecipe, seeded
from gnncompose.ranges import above_zero, at_least, counts, shares

GRADIENT_NORM = 10.0


class Transition(NamedTuple):
    """Aim the value of an edit at `reward + discount · value(after)`."""

    before: Visit
    edit: int
    reward: float
    discount: float
    after: Visit
    budget_left: float


Episode = Generator[Composition, Trial, None]


class DQN:
    """Learns the value of edits while it spends its budget."""

    def __init__(
        self,
        encoder: EncoderRecipe,
        exploration: Exploration,
        learning_rate: float = 1e-3,
        gamma: float = 0.4,
        n_step: int = 3,
        horizon: int = 4,
        restart_probability: float = 0.8,
        unvisited_only: bool = True,
        seek_novelty: bool = True,
        replay_known: bool = True,
        replay_capacity: int = 20_000,
        batch_size: int = 32,
        updates_per_evaluation: int = 8,
        target_interval: int = 50,
        dueling: bool = False,
        priority: float = 0.0,
        checkpoint: str | None = None,
    ) -> None:
        """Set how to learn.

        Args:
            encoder: Describes the graph encoder.
            exploration: How to stray from the best edit.
            learning_rate: Of Adam.
            gamma: Discount of a step.
            n_step: Longest stretch of rewards that a target sums up.
            horizon: Edits after which an episode is truncated.
            restart_probability: How often an episode begins at the best composition so far, not at the start.
            unvisited_only: Whether to choose among edits to compositions not evaluated yet, while there are any.
            seek_novelty: Whether exploring means what was seldom tried, or uniform chance.
            replay_known: Whether to replay every edit between evaluated compositions, or walked ones only.
            replay_capacity: Most transitions held.
            batch_size: Transitions of a gradient step.
            updates_per_evaluation: Gradient steps after each new evaluation.
            target_interval: Gradient steps after which the target network takes over the weights.
            dueling: Whether the value of an edit is that of the composition plus its advantage.
            priority: Power of its last error by which a transition is replayed; 0 for uniform draws.
            checkpoint: File with a policy to begin with; None to begin from random weights.

        Raises:
            GnncomposeError: A number is out of its range.
        """
        counts("agent", 1, n_step=n_step, horizon=horizon, replay_capacity=replay_capacity)
        counts("agent", 1, batch_size=batch_size, target_interval=target_interval)
        counts("agent", 0, updates_per_evaluation=updates_per_evaluation)
        at_least("agent", 0, priority=priority)
        above_zero("agent", learning_rate=learning_rate)
        shares("agent", gamma=gamma, restart_probability=restart_probability)
        self.encoder = encoder
        self.exploration = exploration
        self.learning_rate = learning_rate
        self.gamma = gamma
        self.n_step = n_step
        self.horizon = horizon
        self.restart_probability = restart_probability
        self.unvisited_only = unvisited_only
        self.seek_novelty = seek_novelty
        self.replay_known = replay_known
        self.replay_capacity = replay_capacity
        self.batch_size = batch_size
        self.updates_per_evaluation = updates_per_evaluation
        self.target_interval = target_interval
        self.dueling = dueling
        self.priority = priority
        self._initial = None if checkpoint is None else _valued(checkpoint, encoder)
        self._policy: EditPolicy | None = None

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield the compositions of one episode after the other; see `Agent.propose`."""
        run = _Run(self, space, budget, generator, self._initial)
        self._policy = run.online
        start = run.take_in((yield space.start))
        while start.successors:
            yield from run.episode(run.restarts.begin(start))

    def checkpoint(self) -> dict[str, Any] | None:
        """The policy of the latest run, or the one to begin with; None where there is neither."""
        policy = self._policy or self._initial
        return None if policy is None else policy_to_checkpoint(policy)


def _valued(checkpoint: str, encoder: EncoderRecipe) -> EditPolicy:
    """The policy of a checkpoint, whose scores must be values."""
    found = load_policy(checkpoint, encoder)
    if not isinstance(found, EditPolicy):
        raise GnncomposeError(f"{checkpoint}: holds a policy of two stages, which gives no values; use agent=ppo")
    return found


class _Run:
    """The networks and memory of one run."""

    def __init__(
        self, agent: DQN, space: Space, budget: int, generator: np.random.Generator, initial: EditPolicy | None
    ) -> None:
        self.agent = agent
        self.budget = budget
        self.generator = generator
        self.visited = Visited(space)
        self.restarts = Restarts(self.visited, agent.restart_probability, generator)
        self.novelty = Novelty()
        self.replay: Replay[tuple[str, int, int], Transition] = Replay(agent.replay_capacity, agent.priority)
        seed = int(generator.integers(2**31))
        self.online = copy.deepcopy(initial) if initial else seeded(self._new_policy, seed)
        self.target = copy.deepcopy(self.online)
        self.optimizer = torch.optim.Adam(self.online.parameters(), lr=agent.learning_rate, fused=True)
        self.updates = 0

    def _new_policy(self) -> EditPolicy:
        return EditPolicy(self.agent.encoder, self.agent.dueling)

    @property
    def left(self) -> float:
        """Share of the budget that is left."""
        return 1.0 - len(self.visited.by_id) / self.budget

    def take_in(self, trial: Trial) -> Visit:
        """Remember a trial and, where it is new, learn."""
        new = trial.composition not in self.visited
        visit, known = self.visited.add(trial)
        if new:
            self.novelty.add(trial.composition)
        if self.agent.replay_known:
            for step in known:
                self._remember([step], terminated=False)
        if new and len(self.replay) >= 2:
            for _ in range(self.agent.updates_per_evaluation):
                self._update()
        return visit

    def episode(self, visit: Visit) -> Episode:
        """Walk one episode; it terminates by `Stop` and is truncated by the horizon."""
        steps: list[Step] = []
        known = len(self.visited.by_id)
        for _ in range(self.agent.horizon):
            edit = self._choose(visit, may_stop=len(self.visited.by_id) > known)
            if edit == visit.stop:
                break
            after = self.take_in((yield visit.successors[edit]))
            self.restarts.step()
            steps.append(Step(visit, edit, after))
            visit = after
        # Stop is worth 0 in every state, so an episode that it ended needs no transition for it: the value of
        # the last state is never below 0. What led there must not be cut off as if it had no future.
        self._remember(steps, terminated=False)

    def _choose(self, visit: Visit, *, may_stop: bool) -> int:
        """Number of the edit to walk; an episode that evaluated nothing new does not stop, or runs end in re-visits."""
        allowed = self.visited.unvisited(visit) if self.agent.unvisited_only else []
        allowed = allowed or list(range(len(visit.successors)))
        if may_stop or not allowed:
            allowed = [*allowed, visit.stop]
        with torch.no_grad():
            values = self._values(self.online, [visit], [self.left], [allowed]).numpy()
        newness = self._newness(visit, allowed)
        return allowed[self.agent.exploration.choose(values, 1.0 - self.left, self.generator, newness)]

    def _newness(self, visit: Visit, allowed: Sequence[int]) -> Float[np.ndarray, " edit"]:
        """How new what each allowed edit leads to would be; `Stop` leads nowhere new."""
        newness = np.zeros(len(allowed))
        if self.agent.seek_novelty:
            ends = [visit.successors[edit] for edit in allowed if edit != visit.stop]
            newness[: len(ends)] = [self.novelty(composition) for composition in ends]
        return newness

    def _values(
        self, policy: EditPolicy, visits: Sequence[Visit], left: Sequence[float], edits: Sequence[Sequence[int]]
    ) -> Float[Tensor, " edit"]:
        """Values of some edits of each composition, with so much of the budget left; that of `Stop` is known."""
        numbers = [visit.number for visit in visits]
        contexts = [Context(*known) for known in zip(left, (visit.reward for visit in visits), strict=True)]
        packed = self.visited.graphs.pack(numbers, contexts, None if policy.dueling else edits)
        values = policy(packed, self.visited.catalog.operators).masked_fill(packed.is_stop, 0.0)
        if not policy.dueling:
            return values
        firsts = np.cumsum([0, *(visit.stop + 1 for visit in visits)])
        asked = [first + edit for first, some in zip(firsts, edits, strict=False) for edit in some]
        return values[asked]

    def _remember(self, steps: Sequence[Step], *, terminated: bool) -> None:
        rewards = [step.reward for step in steps]
        for stretch in n_step_returns(rewards, self.agent.gamma, self.agent.n_step, terminated=terminated):
            first, last = steps[stretch.start], steps[stretch.end - 1]
            key = first.before.composition.id, first.edit, stretch.end - stretch.start
            transition = Transition(first.before, first.edit, stretch.reward, stretch.discount, last.after, self.left)
            self.replay.add(key, transition)

    def _update(self) -> None:
        """One gradient step on a batch from the replay."""
        drawn = self.replay.sample(self.agent.batch_size, self.generator, correction=1.0 - self.left)
        batch = drawn.items
        aims = self._targets(batch)
        before, left = [t.before for t in batch], [t.budget_left for t in batch]
        values = self._values(self.online, before, left, [[t.edit] for t in batch])
        self.replay.tell(drawn.rows, (values.detach() - aims).numpy())
        loss = (torch.from_numpy(drawn.weights) * F.smooth_l1_loss(values, aims, reduction="none")).mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.online.parameters(), GRADIENT_NORM)
        self.optimizer.step()
        self.updates += 1
        if self.updates % self.agent.target_interval == 0:
            self.target.load_state_dict(self.online.state_dict())

    @torch.no_grad()
    def _targets(self, batch: Sequence[Transition]) -> Float[Tensor, " batch"]:
        """Double Q-learning: the online network chooses the next edit, the target network values it.

        Only edits whose outcome was measured, and `Stop`, are chosen from: among the many others, the maximum
        would be that of the network's errors (Fujimoto et al., Off-policy deep reinforcement learning without
        exploration, ICML 2019).
        """
        after, left = [t.after for t in batch], [t.budget_left for t in batch]
        known = [t.after.known for t in batch]
        parts = self._values(self.online, after, left, known).split([len(edits) for edits in known])
        best = [[edits[int(part.argmax())]] for edits, part in zip(known, parts, strict=True)]
        values = self._values(self.target, after, left, best)
        rewards = torch.tensor([t.reward for t in batch])
        return rewards + torch.tensor([t.discount for t in batch]) * values
