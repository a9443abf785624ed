"""Monte Carlo tree search over edits: the surrogate in place of play-outs, and a policy that learns from the search.

Silver et al., A general reinforcement learning algorithm that masters chess, shogi, and Go through self-play (Science
2018): edits are selected by PUCT, the policy gives their prior and is trained towards how often the search went through
each. What a composition is worth is its reward where it was measured, else what the surrogate expects of it, and a
deviation more for what it is not sure of. A walk is worth the best composition on it, since that one can be kept.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from gnncompose.agents.agent import Proposals
from gnncompose.agents.reward_surrogate import RewardSurrogate, latest
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.encoding import CatalogFeatures, encode
from gnncompose.evaluation.evaluation import Trial
from gnncompose.packing import Context, Packer
from gnncompose.policies.checkpoints import Policy, load_policy, policy_to_checkpoint
from gnncompose.policies.policy import EditPolicy, EncoderRecipe, log_probabilities, seeded
from gnncompose.policies.surrogate import DeepKernel, load_kernel
from gnncompose.ranges import above_zero, at_least, counts, shares

FIRST_FIT = 4
CONCENTRATION = 0.3  # of the noise at the root, as in the paper for games of about as many moves
LESSONS = 256
Edits = Float[np.ndarray, " edit"]


class MCTS:
    """Searches the surrogate by trees, and evaluates where the search went most."""

    def __init__(
        self,
        encoder: EncoderRecipe,
        surrogate_encoder: EncoderRecipe,
        checkpoint: str | None = None,
        policy_checkpoint: str | None = None,
        simulations: int = 32,
        depth: int = 4,
        exploration: float = 1.0,
        optimism: float = 1.0,
        noise: float = 0.25,
        restart_probability: float = 0.8,
        learning_rate: float = 1e-3,
        updates: int = 2,
        batch_size: int = 16,
        refit: float = 1.25,
        deviation: float = 1.0,
        rows: int = 600,
    ) -> None:
        """Set how to search, and what by.

        Args:
            encoder: Describes the policy's graph encoder.
            surrogate_encoder: Describes the surrogate's.
            checkpoint: File with a pre-trained surrogate; None for one that learned nothing.
            policy_checkpoint: File with a policy to begin with; None to begin from random weights.
            simulations: Walks of a decision.
            depth: Edits of a walk, at most.
            exploration: Weight of the prior against what walks were worth.
            optimism: Deviations that are added to what the surrogate expects.
            noise: Share of the prior at the root that is drawn at random.
            restart_probability: How often the root is the best composition so far, not the start.
            learning_rate: Of Adam.
            updates: Gradient steps of the policy after each decision.
            batch_size: Decisions of a gradient step.
            refit: Growth of the evaluations after which the surrogate's variances are fitted again.
            deviation: How far they may go from the checkpoint's, as the deviation of a prior over their logarithms.
            rows: Trials, the latest, that the surrogate is conditioned on, at most.

        Raises:
            GnncomposeError: A number is out of its range, or a checkpoint is not usable.
        """
        counts("agent", 1, simulations=simulations, depth=depth, batch_size=batch_size, rows=rows)
        counts("agent", 0, updates=updates)
        at_least("agent", 0, exploration=exploration, optimism=optimism)
        at_least("agent", 1, refit=refit)
        above_zero("agent", learning_rate=learning_rate, deviation=deviation)
        shares("agent", noise=noise, restart_probability=restart_probability)
        self.encoder = encoder
        self.surrogate_encoder = surrogate_encoder
        self.simulations = simulations
        self.depth = depth
        self.exploration = exploration
        self.optimism = optimism
        self.noise = noise
        self.restart_probability = restart_probability
        self.learning_rate = learning_rate
        self.updates = updates
        self.batch_size = batch_size
        self.refit = refit
        self.deviation = deviation
        self.rows = rows
        self._trained = [] if checkpoint is None else [load_kernel(checkpoint, surrogate_encoder)]
        self._initial = None if policy_checkpoint is None else load_policy(policy_checkpoint, encoder)
        self._policy: Policy | None = None

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield the start, then where the search went most; see `Agent.propose`."""
        run = _Run(self, space, budget, generator, self._trained, self._initial)
        self._policy = run.policy
        run.take_in((yield space.start))
        while (chosen := run.decide()) is not None:
            run.take_in((yield chosen))

    def checkpoint(self) -> dict[str, Any] | None:
        """The policy of the latest run, or the one to begin with; None where there is neither."""
        policy = self._policy or self._initial
        return None if policy is None else policy_to_checkpoint(policy)


class _Place(NamedTuple):
    """A composition with where its edits lead, and the number of its graph."""

    composition: Composition
    successors: tuple[Composition, ...]
    number: int


@dataclass(eq=False)
class _Branching:
    """A node of a decision's tree; arrays have one number for each edit.

    Attributes:
        place: Which composition.
        worth: What each edit leads to is worth.
        prior: How likely the policy makes each.
        visits: Walks that went through each.
        totals: What these were worth together.
    """

    place: _Place
    worth: Edits
    prior: Edits
    visits: Edits
    totals: Edits


class _Lesson(NamedTuple):
    """A decision that the policy learns from: through which edits of its root the walks went."""

    number: int
    context: Context
    shares: Edits


class _Run:
    """What one run knows."""

    def __init__(
        self,
        agent: MCTS,
        space: Space,
        budget: int,
        generator: np.random.Generator,
        trained: Sequence[DeepKernel],
        initial: Policy | None,
    ) -> None:
        self.agent = agent
        self.space = space
        self.budget = budget
        self.generator = generator
        self.trials: dict[str, Trial] = {}
        self.graphs = Packer()
        self.places: dict[str, _Place] = {}
        self.lessons: deque[_Lesson] = deque(maxlen=LESSONS)
        self.fitted_at = FIRST_FIT
        seed = int(generator.integers(2**31))
        own: Policy = copy.deepcopy(initial) if initial else seeded(lambda: EditPolicy(agent.encoder), seed)
        self.policy = own
        self.catalog = (CatalogFeatures.traits_of if own.uses_traits else CatalogFeatures.of)(space.catalog)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=agent.learning_rate, fused=True)
        kernels = [*trained, seeded(lambda: DeepKernel(agent.surrogate_encoder), seed)]
        self.surrogate = RewardSurrogate(space, kernels, agent.deviation)

    @property
    def known(self) -> list[Trial]:
        """What the surrogate is conditioned on."""
        return latest(list(self.trials.values()), self.agent.rows)

    def take_in(self, trial: Trial) -> None:
        """Remember a trial."""
        self.trials[trial.composition.id] = trial
        if len(self.trials) >= self.agent.refit * self.fitted_at:
            self.surrogate.fit(self.known)
            self.fitted_at = len(self.trials)

    def decide(self) -> Composition | None:
        """What to evaluate next; None where all of the space was."""
        best = max(self.trials.values(), key=lambda trial: trial.reward).composition
        restart = self.generator.random() < self.agent.restart_probability
        tree: dict[str, _Branching] = {}
        root = self._branch(best if restart else self.space.start, tree)
        if len(root.prior):
            noise = self.generator.dirichlet(np.full(len(root.prior), CONCENTRATION))
            root.prior = (1.0 - self.agent.noise) * root.prior + self.agent.noise * noise
            for _ in range(self.agent.simulations):
                self._walk(root, tree)
            self._learn(root)
        return self._most_walked(root, tree) or self._anything_new(tree)

    def _branch(self, composition: Composition, tree: dict[str, _Branching]) -> _Branching:
        """The node of a composition, made where the tree has none."""
        if composition.id not in tree:
            place = self._place(composition)
            count = len(place.successors)
            prior = self._prior(place) if count else np.zeros(0)
            tree[composition.id] = _Branching(place, self._worth(place), prior, np.zeros(count), np.zeros(count))
        return tree[composition.id]

    def _place(self, composition: Composition) -> _Place:
        if composition.id not in self.places:
            reachable = self.space.successors(composition)
            number = self.graphs.add(encode(composition, [edit for edit, _ in reachable], self.catalog))
            self.places[composition.id] = _Place(composition, tuple(c for _, c in reachable), number)
        return self.places[composition.id]

    def _worth(self, place: _Place) -> Edits:
        mean, variance = self.surrogate.posterior(self.known, place.successors)
        worth = mean + self.agent.optimism * np.sqrt(np.maximum(variance, 0.0))
        for edit, successor in enumerate(place.successors):
            if successor.id in self.trials:
                worth[edit] = self.trials[successor.id].reward
        return worth

    def _context(self, place: _Place) -> Context:
        """Of what was not measured, the policy is told the reward that is expected."""
        left, trial = 1.0 - len(self.trials) / self.budget, self.trials.get(place.composition.id)
        if trial is not None:
            return Context(left, trial.reward)
        return Context(left, float(self.surrogate.posterior(self.known, [place.composition])[0][0]))

    def _prior(self, place: _Place) -> Edits:
        packed = self.graphs.pack([place.number], [self._context(place)])
        with torch.no_grad():
            return log_probabilities(self.policy(packed, self.catalog.operators), packed).exp().double().numpy()

    def _walk(self, root: _Branching, tree: dict[str, _Branching]) -> None:
        """Walk until an edit is made for the first time, and tell those that led there what came of it."""
        low = min(float(node.worth.min()) for node in tree.values() if len(node.worth))
        high = max(float(node.worth.max()) for node in tree.values() if len(node.worth))
        path: list[tuple[_Branching, int]] = []
        node = root
        while len(path) < self.agent.depth and len(node.worth):
            means = np.where(node.visits > 0, node.totals / np.maximum(node.visits, 1.0), node.worth)
            curiosity = node.prior * np.sqrt(1.0 + node.visits.sum()) / (1.0 + node.visits)
            scores = (means - low) / max(high - low, 1e-9) + self.agent.exploration * curiosity
            edit = int(np.argmax(scores))
            path.append((node, edit))
            if node.visits[edit] == 0:
                break
            node = self._branch(node.place.successors[edit], tree)
        best = -np.inf
        for node, edit in reversed(path):
            best = max(best, float(node.worth[edit]))
            node.visits[edit] += 1
            node.totals[edit] += best

    def _most_walked(self, root: _Branching, tree: dict[str, _Branching]) -> Composition | None:
        """The first composition on the most walked way that was not measured."""
        node, seen = root, {root.place.composition.id}
        while node.visits.any():
            composition = node.place.successors[int(np.argmax(node.visits))]
            if composition.id not in self.trials:
                return composition
            if composition.id in seen or composition.id not in tree:
                return None
            seen.add(composition.id)
            node = tree[composition.id]
        return None

    def _anything_new(self, tree: dict[str, _Branching]) -> Composition | None:
        """What is worth most of what the tree looked at and was not measured; else whatever is next to what was."""
        looked_at = [
            (float(worth), composition)
            for node in tree.values()
            for worth, composition in zip(node.worth, node.place.successors, strict=True)
            if composition.id not in self.trials
        ]
        if looked_at:
            return max(looked_at, key=lambda pair: pair[0])[1]
        for trial in self.trials.values():
            for _, successor in self.space.successors(trial.composition):
                if successor.id not in self.trials:
                    return successor
        return None

    def _learn(self, root: _Branching) -> None:
        """A few steps towards where the walks of this decision and of those before went."""
        shares = root.visits / root.visits.sum()
        self.lessons.append(_Lesson(root.place.number, self._context(root.place), shares))
        for _ in range(self.agent.updates):
            picked = self.generator.integers(len(self.lessons), size=min(self.agent.batch_size, len(self.lessons)))
            batch = [self.lessons[number] for number in picked.tolist()]
            packed = self.graphs.pack([lesson.number for lesson in batch], [lesson.context for lesson in batch])
            logarithms = log_probabilities(self.policy(packed, self.catalog.operators), packed)
            wanted = torch.from_numpy(np.concatenate([lesson.shares for lesson in batch])).float()
            loss = -(wanted * logarithms).sum() / len(batch)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
