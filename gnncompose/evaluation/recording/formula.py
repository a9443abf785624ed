"""The formula of latency and CPU time: what nodes take where they stand, and how often they run.

    ms = Σ_nodes runs · step · (1 + context) + request · (1 − Σ_first runs) + joint + further · (more inputs read)

`step` is what a node adds to the chain that it ends: the measured time of the chain less that of what it reads, in the
condition at hand, so that a chain alone takes exactly what was measured. `runs` is the share of the timed rows that
reach the node, by the executor's own rule: a node that several branches share runs once, where all of them can read it.
Fitted are, for a whole table: `request`, what a request costs beside its nodes, counted once and not with each chain;
`joint` and `further` of each combiner; and `context` of each operator, by how much longer it takes where other
operators have had the caches. Least squares of the relative error, with a prior that holds `context` near 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gnncompose.composition.enumeration import ClosedSpace
from gnncompose.composition.tree import Node

CONTEXT_PRIOR = 0.02  # variance of a measurement's relative error over that of a context factor: (0.02 / 0.15)²


@dataclass(frozen=True)
class Weights:
    """What is fitted of the formula.

    Attributes:
        request: Milliseconds.
        joint: Milliseconds by the name of the combiner.
        further: Milliseconds for each input read beyond the second, likewise.
        context: Share by which an operator takes longer under a combiner, by its name.
    """

    request: float
    joint: dict[str, float]
    further: dict[str, float]
    context: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Structure:
    """Which nodes each composition of a space runs, and where.

    Attributes:
        space: Which compositions.
        entries: uint16[rows, entries]: numbers of expressions: the path of what a router decides by, then of each
            branch, the chain itself first; 0 where there is none.
    """

    def __init__(self, space: ClosedSpace, rows: np.ndarray | None = None) -> None:
        """Lay out the rows of a space, or some of them."""
        self.space = space
        picked = np.arange(len(space)) if rows is None else rows
        self.branches, self.way = space.branches[picked], space.way[picked]
        columns = np.column_stack([space.route[picked], self.branches])
        paths = space.expressions.paths.astype(np.uint16)
        self.entries = paths[columns].reshape(len(picked), -1)
        self._owner = np.repeat(np.arange(columns.shape[1]), paths.shape[1])
        self._kinds = np.array(["" if way is None else way.operator.kind for way in space.ways])[self.way]
        self._repeats()

    def _repeats(self) -> None:
        """Which entries stand for the first time in their row, and which of these stand again later."""
        entries = self.entries
        self._first = entries > 0
        self._again = np.zeros(entries.shape, dtype=bool)
        for later in range(1, entries.shape[1]):
            for earlier in range(later):
                same = entries[:, later] == entries[:, earlier]
                self._first[:, later] &= ~same
                self._again[:, earlier] |= same
        self._again &= entries > 0

    def shares(self, reached: np.ndarray, timed: int | np.ndarray) -> np.ndarray:
        """float64[rows, branches]: share of the timed rows that reach each branch.

        Args:
            reached: uint8[rows, branches - 1], as `answers.Answered` has it.
            timed: How many rows are timed, of all or int64[rows, 1].
        """
        later = reached / timed
        router = self._kinds == "router"
        first = np.where(router, 1.0 - later.sum(axis=1), 1.0)
        return np.column_stack([first, later])

    def runs(self, shares: np.ndarray) -> np.ndarray:
        """float64[rows, entries]: share of the timed rows for which each entry's node runs; 0 for repetitions.

        A node that two branches read runs on all rows that reach the first of them; where a router chooses between
        them, on all rows.
        """
        own = np.column_stack([np.ones(len(shares)), shares])[:, self._owner]
        together = self._again & (self._kinds == "router")[:, None]
        return np.where(self._first, np.where(together, 1.0, own), 0.0)

    def levels(self, shares: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """The ways that a row can take: float64[rows] how often it is taken, and the shares of the branches then."""
        count = shares.shape[1]
        router = (self._kinds == "router")[:, None]
        padded = np.column_stack([shares, np.zeros(len(shares))])
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for level in range(count):
            taken = np.where(router[:, 0], shares[:, level], padded[:, level] - padded[:, level + 1])
            ports = np.arange(count)
            found.append((taken, np.where(router, ports == level, ports <= level).astype(np.float64)))
        return found

    def milliseconds(self, times_ms: np.ndarray, shares: np.ndarray, weights: Weights) -> np.ndarray:
        """float64[rows]: the formula.

        Args:
            times_ms: float64[expressions]: measured time of each one; 0 for the task's input.
            shares: float64[rows, branches].
            weights: What was fitted.
        """
        below, runs = self.space.expressions, self.runs(shares)
        names = [node.operator.name if isinstance(node, Node) else "" for node in below.all]
        context = np.array([weights.context.get(name, 0.0) for name in names])
        step = self.steps(times_ms)
        factor = np.where((self._kinds != "")[:, None], 1.0 + context[self.entries], 1.0)
        nodes = (runs * step[self.entries] * factor).sum(axis=1)
        joint = np.array([0.0 if way is None else weights.joint[way.operator.name] for way in self.space.ways])
        further = np.array([0.0 if way is None else weights.further[way.operator.name] for way in self.space.ways])
        beside = weights.request * (1.0 - self.begun(runs))
        return nodes + beside + joint[self.way] + further[self.way] * self.read_further(shares)

    def node_times(
        self, root: Node, times_ms: np.ndarray, shares: np.ndarray, weights: Weights
    ) -> dict[str, tuple[float, float]]:
        """What the formula gives to each node of the first row, whose output is `root`.

        Returns:
            By node id, its milliseconds, and the share of the timed rows for which it runs; what a request costs
            beside its nodes belongs to none.
        """
        way, runs = self.space.ways[int(self.way[0])], self.runs(shares)[0]
        step, below = self.steps(times_ms), self.space.expressions
        found: dict[str, tuple[float, float]] = {}
        for entry, run in zip(self.entries[0].tolist(), runs.tolist(), strict=True):
            node = below.all[entry]
            if isinstance(node, Node) and run > 0:
                factor = 1.0 + (weights.context.get(node.operator.name, 0.0) if way is not None else 0.0)
                # what a router decides by stands there as a transform
                key = root.id if node.operator.kind == "router" else node.id
                found[key] = max(float(step[entry]) * factor, 0.0), run
        if way is not None:
            name = way.operator.name
            joint = weights.joint[name] + weights.further[name] * float(self.read_further(shares)[0])
            found[root.id] = found.get(root.id, (0.0, 1.0))[0] + max(joint, 0.0), 1.0
        return found

    def steps(self, times_ms: np.ndarray) -> np.ndarray:
        """float64[expressions]: what each node adds to the chain that it ends."""
        return times_ms - times_ms[self.space.expressions.parents]

    def begun(self, runs: np.ndarray) -> np.ndarray:
        """float64[rows]: mean number of nodes that read the task's input."""
        reads_input = self.space.expressions.parents == 0
        return (runs * reads_input[self.entries]).sum(axis=1)

    def read_further(self, shares: np.ndarray) -> np.ndarray:
        """float64[rows]: mean number of inputs that the combiner looks at beyond two, or a cascade beyond one check."""
        used = self.branches > 0
        cascade = self._kinds == "cascade"
        checks = (shares[:, 1:-1] * used[:, 2:]).sum(axis=1)
        return np.where(cascade, checks, np.where(self._kinds == "ensemble", used[:, 2:].sum(axis=1), 0.0))


def fit(structure: Structure, times_ms: np.ndarray, shares: np.ndarray, measured_ms: np.ndarray) -> Weights:
    """Fit the formula to measured compositions.

    Args:
        structure: Of these compositions.
        times_ms: float64[rows, expressions]: measured times in the condition of each composition.
        shares: float64[rows, branches].
        measured_ms: float64[rows].
    """
    below, space = structure.space.expressions, structure.space
    runs, joined = structure.runs(shares), structure.way > 0
    steps = times_ms - times_ms[:, below.parents]
    spent = runs * np.take_along_axis(steps, structure.entries.astype(np.int64), axis=1)
    names = np.array([node.operator.name if isinstance(node, Node) else "" for node in below.all])
    operators = sorted(set(names[1:].tolist()))
    combiners = sorted({way.operator.name for way in space.ways if way is not None})
    own = np.array(["" if way is None else way.operator.name for way in space.ways])[structure.way]
    columns = [1.0 - structure.begun(runs)]
    columns += [(own == name).astype(np.float64) for name in combiners]
    columns += [(own == name) * structure.read_further(shares) for name in combiners]
    columns += [(spent * (names[structure.entries] == name)).sum(axis=1) * joined for name in operators]
    terms = np.stack(columns, axis=1) / measured_ms[:, None]
    target = 1.0 - spent.sum(axis=1) / measured_ms
    prior = np.zeros((len(operators), len(columns)))
    prior[:, -len(operators) :] = np.sqrt(CONTEXT_PRIOR) * np.eye(len(operators))
    found, *_ = np.linalg.lstsq(
        np.concatenate([terms, prior]), np.concatenate([target, np.zeros(len(operators))]), rcond=None
    )
    request, rest = float(found[0]), found[1:].tolist()
    count = len(combiners)
    return Weights(
        request=request,
        joint=dict(zip(combiners, rest[:count], strict=True)),
        further=dict(zip(combiners, rest[count : 2 * count], strict=True)),
        context=dict(zip(operators, rest[2 * count :], strict=True)),
    )


def weights_from_json(data: Mapping[str, Any]) -> Weights:
    """Weights as `Weights.to_json` wrote them."""
    return Weights(**data)


def weighted_median(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """float64[rows]: median of values [rows, levels] that occur with these shares [rows, levels]."""
    order = np.argsort(values, axis=1, kind="stable")
    ranked, passed = np.take_along_axis(values, order, axis=1), np.take_along_axis(shares, order, axis=1).cumsum(axis=1)
    return np.take_along_axis(ranked, (passed < 0.5 - 1e-9).sum(axis=1)[:, None].clip(max=values.shape[1] - 1), 1)[:, 0]
