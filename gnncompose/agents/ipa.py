"""A planner that reads profiles only: an integer program ranks plans, and the budget goes down the list.

Ghafouri et al., IPA: Inference Pipeline Adaptation to Achieve High Accuracy and Cost-Efficiency (Journal of Systems
Research 4, 2024) and Crankshaw et al., InferLine (SoCC 2020) choose model variants by an integer program over profiles
of accuracy, latency and cost. Theirs also chooses batch sizes and replicas, which no composition has, and for pipelines
of given shape; here the shape (one model, an ensemble, a cascade of two) is chosen, too. The solver is HiGHS.

A profile tells nothing of transforms or of the state of the data, so a plan has transforms only where types need them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import count
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float
from scipy.optimize import Bounds, LinearConstraint, milp

from gnncompose.agents.agent import Proposals
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, Node, make_node
from gnncompose.errors import CompositionError

LEAST_ERROR = 1e-3
HANDED_ON_PER_ERROR = 2.0  # a cascade's first stage is unsure of about twice as many rows as it gets wrong
TANGENTS = 24
Vector = Float[np.ndarray, " variable"]


class Profiled(NamedTuple):
    """A model on the shortest chain that leads to it, by profile.

    Attributes:
        root: The chain.
        error: 1 − score on clean validation data.
        price: What its latency and CPU time take off the reward.
    """

    root: Node
    error: float
    price: float


class Plan(NamedTuple):
    """What a solution of the program says.

    Attributes:
        lead: Number of the model that decides; the last stage of a cascade.
        others: Numbers of the models beside it.
        cascade: Whether they make a cascade or an ensemble.
    """

    lead: int
    others: tuple[int, ...]
    cascade: bool


class IPA:
    """Maximises `score · expected score − latency · relative latency − cost · relative CPU time` over plans."""

    def __init__(self, score: float = 1.0, latency: float = 0.05, cost: float = 0.05, gain: float = 0.1) -> None:
        """Set the objective.

        Args:
            score: Weight of the expected score.
            latency: Weight of the latency, relative to the slowest model's.
            cost: Weight of the CPU time, relative to that of the model that takes most.
            gain: How much a further model helps: errors multiply, those of the others to this power, so that 0 says
                all err on the same rows, and 1 that they err independently.
        """
        self.score = score
        self.latency = latency
        self.cost = cost
        self.gain = gain

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield the best plan by profile, then the next best, and so on; see `Agent.propose`."""
        models = self._profiled(space)
        if not models:
            return
        program = Program(
            error=np.array([model.error for model in models]),
            price=np.array([model.price for model in models]),
            score=self.score,
            gain=self.gain,
            branches=space.limits.branches,
            ensemble=space.catalog.first_ensemble is not None,
            cascade=bool(space.catalog.of_kind("cascade")),
        )
        for plan in ranked(program):
            try:
                composition = composed(plan, models, space)
            except CompositionError:
                continue
            if space.allows(composition):
                yield composition

    def _profiled(self, space: Space) -> list[Profiled]:
        """The models whose chains are profiled; others cannot be planned with."""
        found: list[tuple[Node, float, float, float]] = []
        for composition in space.single_models():
            score = composition.root.operator.profile.score
            latencies = [node.operator.profile.latency_ms for node in composition.nodes]
            cpu = [node.operator.profile.cpu_ms for node in composition.nodes]
            if score is not None and None not in latencies and None not in cpu:
                latency_ms, cpu_ms = sum(n for n in latencies if n), sum(n for n in cpu if n)
                found.append((composition.root, max(1.0 - score, LEAST_ERROR), latency_ms, cpu_ms))
        slowest_ms = max((latency for _, _, latency, _ in found), default=0.0)
        most_ms = max((cpu for *_, cpu in found), default=0.0)
        return [
            Profiled(root, error, self.latency * latency / slowest_ms + self.cost * cpu / most_ms)
            for root, error, latency, cpu in found
        ]

    def checkpoint(self) -> dict[str, Any] | None:
        """Nothing is learned."""
        return None


_RANKED: dict[Hashable, tuple[list[Plan], Iterator[Plan]]] = {}


def ranked(program: Program) -> Iterator[Plan]:
    """The plans of a program; solved once for all searches of a process that share it, such as other seeds."""
    if program.key not in _RANKED:
        _RANKED.clear()
        _RANKED[program.key] = [], program.plans()
    known, more = _RANKED[program.key]
    for number in count():
        if number == len(known):
            plan = next(more, None)
            if plan is None:
                return
            known.append(plan)
        yield known[number]


def composed(plan: Plan, models: list[Profiled], space: Space) -> Composition:
    """The composition of a plan: the catalog's first cascade or ensemble with its default parameters."""
    branches = [models[number].root for number in plan.others]
    lead = models[plan.lead].root
    if not branches:
        return Composition(lead, space.catalog.sha256)
    combiner = space.catalog.of_kind("cascade")[0] if plan.cascade else space.catalog.first_ensemble
    assert combiner is not None
    return Composition(make_node(combiner, [*branches, lead]), space.catalog.sha256)


@dataclass(frozen=True, eq=False)
class Program:
    """The integer program over m models.

    Variables, in this order: lead[m], other[m] and cascade are 0 or 1; spared[m, m], of base and lead, is 1 where that
    pair makes a cascade; error is that of the whole, at least exp(Σ lead · log e + gain · Σ other · log e), which is
    convex and so held by tangents.

    Attributes:
        error: Of each model.
        price: Of each model.
        score: Weight of the score.
        gain: Power of the errors of the others.
        branches: Models of a plan, at most.
        ensemble: Whether there is an ensemble.
        cascade: Whether there is a cascade.
    """

    error: Vector
    price: Vector
    score: float
    gain: float
    branches: int
    ensemble: bool
    cascade: bool

    @property
    def key(self) -> Hashable:
        """Equal for programs with equal plans."""
        return self.error.tobytes(), self.price.tobytes(), *astuple(self)[2:]

    def plans(self) -> Iterator[Plan]:
        """The plans, the best first, each once."""
        count = self.count
        binary = np.zeros(self.size)
        binary[: 2 * count + 1] = 1
        upper = np.ones(self.size)
        upper[2 * count] = float(self.cascade)
        constraints = self._constraints
        while True:
            found = milp(
                self._objective, integrality=binary, bounds=Bounds(0.0, cast(Any, upper)), constraints=constraints
            )
            if found.x is None:
                return
            chosen = np.round(found.x[: 2 * count + 1]).astype(int)
            lead = int(np.flatnonzero(chosen[:count])[0])
            others = tuple(int(number) for number in np.flatnonzero(chosen[count : 2 * count]))
            yield Plan(lead, others, bool(chosen[-1]))
            # This plan never again: at least one of its 0s and 1s has to differ.
            cut = np.zeros(self.size)
            cut[: 2 * count + 1] = np.where(chosen == 1, -1.0, 1.0)
            constraints = [*constraints, LinearConstraint(cut[None], lb=1.0 - chosen.sum(), ub=np.inf)]

    @property
    def count(self) -> int:
        """Number of models."""
        return len(self.error)

    @property
    def size(self) -> int:
        """Number of variables."""
        return 2 * self.count + 1 + self.count**2 + 1

    @cached_property
    def _objective(self) -> Vector:
        """What is to be small: the error, and the prices, less that of rows which a cascade does not hand on."""
        kept = 1.0 - np.minimum(HANDED_ON_PER_ERROR * self.error, 1.0)
        spared = -np.outer(kept, self.price).ravel()
        return np.concatenate([self.price, self.price, [0.0], spared, [self.score]])

    @cached_property
    def _constraints(self) -> list[LinearConstraint]:
        count, more = self.count, max(self.branches - 1, 0)
        lead, other = np.zeros((2, count, self.size))
        rows = np.arange(count)
        lead[rows, rows] = other[rows, count + rows] = 1.0
        cascade = np.zeros(self.size)
        cascade[2 * count] = 1.0
        others = other.sum(axis=0)
        pairs = np.zeros((count * count, self.size))
        pairs[np.arange(count * count), 2 * count + 1 + np.arange(count * count)] = 1.0
        base, last = np.repeat(other, count, axis=0), np.tile(lead, (count, 1))
        better = (self.error[:, None] > self.error[None, :]).astype(float) @ other  # others that beat each lead
        spared = pairs.sum(axis=0)
        most = [
            (lead + other, 1.0),
            (pairs - base, 0.0),
            (pairs - last, 0.0),
            ((spared - cascade)[None], 0.0),
            ((cascade - others)[None], 0.0),  # a cascade has a base,
            ((others + max(more - 1, 0) * cascade)[None], float(max(more, 0))),  # and one only
            (better + more * lead - more * cascade, float(more)),  # in an ensemble the best one leads
            (self._tangents[0], self._tangents[1]),
        ]
        if not self.ensemble:
            most.append(((others - cascade)[None], 0.0))
        exactly = LinearConstraint(lead.sum(axis=0)[None], lb=1.0, ub=1.0)
        # SciPy annotates bounds as numbers, but takes one for each row, too.
        return [exactly, *(LinearConstraint(matrix, lb=-np.inf, ub=cast(Any, bound)) for matrix, bound in most)]

    @cached_property
    def _tangents(self) -> tuple[Float[np.ndarray, "tangent variable"], Float[np.ndarray, " tangent"]]:
        """Lines under exp, as `slope · (log error) − error ≤ slope · (point − 1)` with slope = exp(point)."""
        logs = np.log(self.error)
        exponent = np.zeros(self.size)
        exponent[: self.count] = logs
        exponent[self.count : 2 * self.count] = self.gain * logs
        lowest = float(logs.min() * (1.0 + self.gain * max(self.branches - 1, 0)))
        points = np.linspace(lowest, 0.0, TANGENTS)
        slopes = np.exp(points)
        matrix = slopes[:, None] * exponent[None]
        matrix[:, -1] = -1.0
        return matrix, slopes * (points - 1.0)
