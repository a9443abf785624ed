"""From raw rows to the numbers of tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from rows import MARKS, Row, curve_of
from suite import BenchmarkError, Key, Suite

from gnncompose.stats import best_at, evaluations_to, interquartile_mean, mean_ranks, normalised_regret

Case = tuple[str, str]
SHARES = (0.95, 0.99, 1.0)
POINTS = 60


@dataclass(frozen=True, eq=False)
class Results:
    """The rows of the agents that have all of them.

    Attributes:
        suite: Name of the suite.
        agents: Names, in alphabetical order.
        cases: Tasks in conditions.
        budgets: Ascending.
        seeds: How many.
        rows: By agent, case, budget and seed.
        optima: Reward that regret is measured from, by case.
        are_known: Whether all of these are known to be the best of the space, and not only of the rows.
        left_out: How many rows are missing, by agent that lacks some.
    """

    suite: str
    agents: tuple[str, ...]
    cases: tuple[Case, ...]
    budgets: tuple[int, ...]
    seeds: int
    rows: dict[tuple[str, Case, int, int], Row]
    optima: dict[Case, float]
    are_known: bool
    left_out: dict[str, int]

    @cached_property
    def marks(self) -> tuple[int, ...]:
        """The marks within the largest budget, and that budget."""
        most = self.budgets[-1]
        return (*(mark for mark in MARKS if mark < most), most)

    def column(self, agent: str, name: str, budget: int | None = None) -> np.ndarray:
        """A column of an agent's rows at a budget, by default the largest: float[seed, case]."""
        budget = budget or self.budgets[-1]
        return np.array(
            [[self.rows[agent, case, budget, seed][name] for case in self.cases] for seed in range(self.seeds)],
            dtype=float,
        )

    def simple_regrets(self, agent: str, mark: int) -> np.ndarray:
        """Reward that was missing after `mark` evaluations: float[seed, case].

        The run is that of the smallest budget that reaches the mark, as agents may plan by their budget.
        """
        optima = np.array([self.optima[case] for case in self.cases])
        return optima - self._best(agent, np.array([mark]), self._budget(mark))[..., 0]

    def regrets(self, agent: str, mark: int) -> np.ndarray:
        """Normalised regret after `mark` evaluations, of the same run: float[seed, case]."""
        return self._normalised(agent, np.array([mark]), self._budget(mark))[..., 0]

    @cached_property
    def grid(self) -> np.ndarray:
        """Numbers of evaluations at which curves are drawn."""
        return np.unique(np.geomspace(1, self.budgets[-1], POINTS).round().astype(int))

    def curves(self, agent: str) -> np.ndarray:
        """Normalised regret at the grid, of the runs of the largest budget: float[seed, case, point]."""
        return self._normalised(agent, self.grid, self.budgets[-1])

    def evaluations_to(self, agent: str, share: float) -> np.ndarray:
        """Evaluations until a share of the way was gone, of the runs of the largest budget: float[seed, case]."""
        found = np.empty((self.seeds, len(self.cases)))
        for seed in range(self.seeds):
            for number, case in enumerate(self.cases):
                evaluations, best = curve_of(self.rows[agent, case, self.budgets[-1], seed])
                regrets = normalised_regret(best, float(best[0]), self.optima[case])
                found[seed, number] = evaluations_to(evaluations, regrets, share)
        return found

    def ranks(self, mark: int) -> np.ndarray:
        """Mean rank of each agent by its interquartile mean regret in each case: float[agent]."""
        return mean_ranks(self.losses(mark))

    def losses(self, mark: int) -> np.ndarray:
        """Interquartile mean over seeds of the regret: float[agent, case]."""
        return np.array([interquartile_mean(self.regrets(agent, mark).T) for agent in self.agents])

    def only(self, case: Case) -> Results:
        """The same for one case."""
        return Results(
            self.suite, self.agents, (case,), self.budgets, self.seeds, self.rows, self.optima, self.are_known, {}
        )

    def _budget(self, mark: int) -> int:
        return min(budget for budget in self.budgets if budget >= mark)

    def _best(self, agent: str, marks: np.ndarray, budget: int) -> np.ndarray:
        runs = [
            [best_at(*curve_of(self.rows[agent, case, budget, seed]), marks) for case in self.cases]
            for seed in range(self.seeds)
        ]
        return np.array(runs)

    def _normalised(self, agent: str, marks: np.ndarray, budget: int) -> np.ndarray:
        best = self._best(agent, marks, budget)
        for seed in range(self.seeds):
            for number, case in enumerate(self.cases):
                row = self.rows[agent, case, budget, seed]
                start = float(curve_of(row)[1][0])
                # before a run's first measurement there is only its start
                reached = np.maximum(best[seed, number], start)
                best[seed, number] = normalised_regret(reached, start, self.optima[case])
        return best


def collect(name: str, suite: Suite, rows: Mapping[Key, Row], tasks: Sequence[str] = ()) -> Results:
    """The rows of a suite, put in order; agents that lack some are left out.

    Args:
        name: Of the suite.
        suite: What its rows should be.
        rows: Those that there are.
        tasks: Only these; none for all that have rows.

    Raises:
        BenchmarkError: Rows disagree about the optimum, or no agent has all rows.
    """
    known = {
        (agent, (task, condition), budget, seed): row for (_, task, condition, agent, budget, seed), row in rows.items()
    }
    present = {case for _, case, _, _ in known}
    cases = tuple(
        (task, condition)
        for task, conditions in suite.tasks.items()
        if not tasks or task in tasks
        for condition in conditions
        if (task, condition) in present
    )
    needed = [(case, budget, seed) for case in cases for budget in suite.budgets for seed in range(suite.seeds)]
    missing = {
        agent: sum((agent, *rest) not in known for rest in needed) for agent in sorted({key[0] for key in known})
    }
    agents = tuple(agent for agent, count in missing.items() if count == 0)
    if not agents or not cases:
        raise BenchmarkError(f"suite={name}: no agent has all its rows yet; benchmarks/run.py makes them")
    kept = {(agent, *rest): known[agent, *rest] for agent in agents for rest in needed}
    optima, are_known = _optima(cases, kept)
    left_out = {agent: count for agent, count in missing.items() if count}
    return Results(name, agents, cases, tuple(sorted(suite.budgets)), suite.seeds, kept, optima, are_known, left_out)


def _optima(cases: Sequence[Case], rows: dict[tuple[str, Case, int, int], Row]) -> tuple[dict[Case, float], bool]:
    """The reward of the best composition of each space, else the best of all rows; whether the former holds for all."""
    found: dict[Case, float] = {}
    are_known = True
    for case in cases:
        here = [row for key, row in rows.items() if key[1] == case]
        told = {row["optimum"] for row in here}
        if len(told) > 1:
            raise BenchmarkError(f"{'/'.join(case)}: rows disagree about the optimum ({told}); run them anew")
        optimum = told.pop()
        if optimum is None:
            are_known = False
            optimum = max(float(curve_of(row)[1][-1]) for row in here)
        found[case] = float(optimum)
    return found, are_known
