"""Rehearsals: a recorded table as thousands of episodes at once, in one state of its data, under one reward.

States and rewards differ from rehearsal to rehearsal: recorded conditions and mixtures of two, and weights of latency
and cost. Rewards are in units of what there is to gain from the start, so that tasks count alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnncompose.closed_edits import ClosedEdits
from gnncompose.closed_graphs import ClosedGraphs
from gnncompose.composition.edits import KINDS, Stop
from gnncompose.composition.transitions import Transitions
from gnncompose.encoding import CatalogFeatures, Graphs
from gnncompose.envs.batched import BatchedEnv
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.packing import figures_of
from gnncompose.policies.two_stage import Offers, Places
from gnncompose.pretraining.lessons import walked
from gnncompose.ranges import counts, shares
from gnncompose.reward import slowest_model
from gnncompose.tasks.task import World

LEAST_GAIN = 0.01
WEIGHTS = (0.003, 0.1)  # of latency and cost: the bounds, drawn evenly in the logarithm
FAR_EDITS = 8


@dataclass(frozen=True)
class Rehearsing:
    """What rehearsals are like.

    Attributes:
        environments: Episodes at once.
        horizon: Edits of an episode, at most.
        mixed: Share of the rehearsals in a mixture of two conditions.
        elsewhere: Share of the episodes that begin some edits from the start.
    """

    environments: int = 1024
    horizon: int = 6
    mixed: float = 0.4
    elsewhere: float = 0.5

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where a number is out of its range."""
        counts("plan", 1, environments=self.environments, horizon=self.horizon)
        shares("plan", mixed=self.mixed, elsewhere=self.elsewhere)


class State(NamedTuple):
    """A mixture of two conditions, by their numbers, and the share of the first."""

    first: int
    second: int
    share: float

    def of(self, figures: Float[np.ndarray, "condition row"]) -> Float[np.ndarray, " row"]:
        """Figures of the conditions, mixed."""
        return self.share * figures[self.first] + (1.0 - self.share) * figures[self.second]


class RehearsedTable:
    """A table, laid out for rehearsals.

    Attributes:
        name: Of the table.
        catalog_sha256: Of its catalog.
        traits: Of its operators.
        scores: float[conditions, rows].
        latencies: float[conditions, rows]: as shares of the slowest model's.
        start: Row of the start.
    """

    def __init__(self, name: str) -> None:
        """Read it, and list its edits.

        Raises:
            TableError: There is no such table.
        """
        task, prices = recorded_task(name), load_prices()
        evaluators = [TableEvaluator(task, World(condition), prices) for condition in task.conditions]
        table = evaluators[0].table
        slowest_ms, slowest_usd = slowest_model(task.catalog, prices, evaluators[0].world)
        self.name, self.catalog_sha256 = name, task.catalog.sha256
        self.scores = np.stack([evaluator.figures().score for evaluator in evaluators])
        self.latencies = np.stack([evaluator.figures().latency_ms_mean for evaluator in evaluators]) / slowest_ms
        self._cost = np.stack([evaluator.cost_usd_per_million() for evaluator in evaluators]) / slowest_usd
        self.start = table.row(task.space.start)
        self._transitions = Transitions.of(table.space, task.catalog)
        self.traits = CatalogFeatures.traits_of(task.catalog)
        self._graphs = ClosedGraphs(table.space, self.traits)
        self._edits = ClosedEdits.of(self._transitions, self._graphs)
        self._stop = KINDS.index(Stop), len(self.traits.operators) - 1

    def begin(self, plan: Rehearsing, generator: np.random.Generator, condition: int | None = None) -> Rehearsal:
        """One rehearsal.

        Args:
            plan: What it is like.
            generator: Source of all randomness.
            condition: Number of its condition, with the usual weights; None to draw them.
        """
        states = generator.integers(len(self.scores), size=2) if condition is None else [condition] * 2
        share = generator.random() if generator.random() < plan.mixed else 1.0
        low, high = np.log(WEIGHTS)
        latency, cost = np.exp(generator.uniform(low, high, size=2)) if condition is None else (0.01, 0.01)
        first, second = (self.scores[s] - latency * self.latencies[s] - cost * self._cost[s] for s in states)
        rewards = share * first + (1.0 - share) * second
        unit = max(float(rewards.max() - rewards[self.start]), LEAST_GAIN)
        env = BatchedEnv(self._transitions, rewards / unit, self.start, plan.environments, plan.horizon)
        away = generator.random(plan.environments) < plan.elsewhere
        env.starts[away] = walked(self._transitions, env.starts[away].astype(np.int64), FAR_EDITS, generator)
        env.reset()
        return Rehearsal(self, env, unit, State(int(states[0]), int(states[1]), share))

    def encode(self, rows: Int[np.ndarray, " row"]) -> tuple[Graphs, Int[Tensor, " row"]]:
        """Rows as one graph, equal ones once; and of each row its number in there."""
        distinct, which = np.unique(rows, return_inverse=True)
        return self._graphs(distinct), torch.from_numpy(which)

    def places(
        self,
        rows: Int[np.ndarray, " row"],
        graphs: Graphs,
        which: Int[Tensor, " row"],
        may_stop: Bool[np.ndarray, " row"],
    ) -> tuple[Int[np.ndarray, " place"], Places]:
        """Places of rows, `Stop` last: their numbers, −1 for `Stop`, and what a policy sees of them.

        Args:
            rows: Of the space.
            graphs: The rows, encoded.
            which: Of each row its number in there.
            may_stop: Which of them have `Stop`; those without legal edits have it, too.
        """
        own = self._edits
        edited = own.place_begin[rows + 1] - own.place_begin[rows]
        counts = edited + (may_stop | (edited == 0))
        ends = np.cumsum(counts)
        first = ends - counts
        graph = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(int(ends[-1])) - first[graph]
        stops = within == edited[graph]
        number = np.where(stops, 0, own.place_begin[rows][graph] + within)
        at, sizes = which.numpy(), np.bincount(graphs.graph.numpy())
        output = graphs.output.numpy()[at]
        begin = output - sizes[at] + 1
        places = Places(
            kind=torch.from_numpy(np.where(stops, self._stop[0], own.kind[number]).astype(np.int64)),
            source=torch.from_numpy(np.where(stops, output[graph], begin[graph] + own.source[number])),
            consumer=torch.from_numpy(np.where(stops, output[graph], begin[graph] + own.consumer[number])),
            values=torch.from_numpy(np.where(stops[:, None], np.float32(0.0), own.place_values[number])),
            graph=torch.from_numpy(graph),
            number=torch.from_numpy(within),
            first=torch.from_numpy(first),
        )
        return np.where(stops, -1, number), places

    def offers(self, place: Int[np.ndarray, " row"]) -> tuple[Int[np.ndarray, "row offer"], Offers]:
        """What can be done at a place of each row, −1 for `Stop`: the numbers of the edits, and what a policy sees."""
        own, stops = self._edits, place < 0
        at = np.maximum(place, 0)
        first = own.edit_begin[at]
        counts = np.where(stops, 1, own.edit_begin[at + 1] - first)
        column = np.arange(int(counts.max()))
        there = column < counts[:, None]
        edit = np.where(there & ~stops[:, None], first[:, None] + column, 0)
        is_edit = there & ~stops[:, None]
        offers = Offers(
            operator=torch.from_numpy(np.where(is_edit, own.operator[edit], self._stop[1]).astype(np.int64)),
            settings=torch.from_numpy(np.where(is_edit[..., None], own.settings[own.setting[edit]], np.float32(0.0))),
            there=torch.from_numpy(there),
        )
        return own.number[edit].astype(np.int32), offers


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """Episodes of a table.

    Attributes:
        table: Of which.
        env: Steps them; its rewards are in units.
        unit: What a reward of 1 stands for.
        state: Of its data.
    """

    table: RehearsedTable
    env: BatchedEnv
    unit: float
    state: State

    def context(self, rows: Int[np.ndarray, " row"], left: Float[np.ndarray, " row"]) -> Float[Tensor, "row 2"]:
        """What a policy is told beside the graphs of rows, with such shares of a budget left."""
        own = self.env.rewards[rows] * self.unit
        return torch.from_numpy(np.stack([left, own], axis=1)).float()

    def figures(self, rows: Int[np.ndarray, " row"]) -> Float[Tensor, "row 4"]:
        """What a policy is told of evaluations of rows."""
        table, at = self.table, np.append(rows, self.table.start)
        told = (
            self.env.rewards[at] * self.unit,
            self.state.of(table.scores[:, at]),
            self.state.of(table.latencies[:, at]),
        )
        reward, score, latency = (figures[:-1] for figures in told)
        return figures_of(reward - told[0][-1], score - told[1][-1], latency / told[2][-1])
