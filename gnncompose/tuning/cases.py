"""What settings of an agent are tried on, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from gnncompose.agents.agent import Agent, search
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.evaluation import Aimed, Budget, Evaluation, Evaluator
from gnncompose.evaluation.optimum import known_optimum
from gnncompose.ranges import counts
from gnncompose.stats import interquartile_mean, normalised_regret
from gnncompose.tuning.space import Dial, Settings, Value

OBJECTIVES = ("share", "reward")
STATISTICS = {"mean": np.mean, "iqm": interquartile_mean}


@dataclass(frozen=True, eq=False)
class Case:
    """What settings are tried on.

    Attributes:
        name: Task and condition.
        evaluator: Gives the evaluations.
        reward: Says how good they are.
    """

    name: str
    evaluator: Evaluator
    reward: Callable[[Evaluation], float]
    optimum: float | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "optimum", known_optimum(self.evaluator, self.reward))

    def search(self, agent: Agent, budget: int, seed: int, objective: str) -> float:
        """Let an agent search, and tell what it came to; the larger the better.

        Args:
            agent: Who searches; a fresh one.
            budget: Distinct compositions that it may ask for.
            seed: Source of all randomness.
            objective: `reward` for the best reward, `share` for that part of the way from the start's reward to the
                best of the space's.
        """
        charged = Budget(self.evaluator, self.reward, budget)
        if isinstance(self.evaluator, Aimed):
            self.evaluator.aim(self.reward)
        best = search(agent, self.evaluator.task.space, charged, np.random.default_rng(seed)).reward
        if objective == "reward":
            return best
        assert self.optimum is not None
        return 1.0 - float(normalised_regret(np.array(best), charged.trials[0].reward, self.optimum))


@dataclass(frozen=True)
class Plan:
    """How settings are tried.

    Attributes:
        trials: Settings to try, those that an earlier call tried included.
        budget: Of each search.
        seeds: Searches of each case; the first seed is 0.
        fresh_seeds: Searches of each case by which the best is compared with the agent's own settings at the end.
        objective: `share`, `reward`, or None for the first where the best of every case is known.
        statistic: `mean` or `iqm` over all searches.
    """

    trials: int = 40
    budget: int = 50
    seeds: int = 3
    fresh_seeds: int = 10
    objective: str | None = None
    statistic: str = "mean"

    def __post_init__(self) -> None:
        counts("plan", 1, trials=self.trials, budget=self.budget, seeds=self.seeds)
        counts("plan", 0, fresh_seeds=self.fresh_seeds)
        if self.objective not in (None, *OBJECTIVES):
            raise GnncomposeError(f"plan.objective={self.objective}: is none of {', '.join(OBJECTIVES)}, null")
        if self.statistic not in STATISTICS:
            raise GnncomposeError(f"plan.statistic={self.statistic}: is none of {', '.join(STATISTICS)}")

    def objective_for(self, cases: Sequence[Case]) -> str:
        """What is maximised.

        Raises:
            GnncomposeError: It needs the best of a space that is not known.
        """
        unknown = [case.name for case in cases if case.optimum is None]
        if self.objective == "share" and unknown:
            raise GnncomposeError(
                f"plan.objective=share: the best of {unknown[0]} is not known; give reward, or evaluator=table"
            )
        return self.objective or ("reward" if unknown else "share")


@dataclass(frozen=True, eq=False)
class Subject:
    """The agent that is tuned.

    Attributes:
        name: Its leaf.
        build: Gives a fresh one with some settings changed.
        own: Its own settings by name.
        space: What is tuned of them.
    """

    name: str
    build: Callable[[Settings], Agent]
    own: Settings
    space: Sequence[Dial]

    def overrides(self, settings: Settings) -> list[str]:
        """Settings as they are given to a search."""
        return [f"agent={self.name}", *(f"agent.{name}={_text(value)}" for name, value in settings.items())]


def _text(value: Value) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
