"""Rewards: from an evaluation to one number that agents raise.

Latency and cost are divided by scales. Where a scale is None it is that of the slowest single model in the
catalog, by its measured profile and on a request of as many rows as the world's load sends, so that a weight of 0.1
says: running the slowest model costs 0.1 of score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from gnncompose.catalog.catalog import Catalog
from gnncompose.errors import CatalogError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.evaluation import Evaluation
from gnncompose.execution.load import parse_load
from gnncompose.ranges import above_zero, at_least
from gnncompose.tasks.task import World


@runtime_checkable
class Reward(Protocol):
    """Says how good evaluations of a catalog's compositions are."""

    def bind(self, catalog: Catalog, prices: Prices, world: World) -> Callable[[Evaluation], float]:
        """The function from evaluations in a world to rewards, for this catalog at these prices."""
        ...


@dataclass(frozen=True)
class WeightedSum:
    """`score · score − latency · latency_ms_mean / latency_scale_ms − cost · usd / cost_scale`.

    Attributes:
        score: Weight of the score (w1).
        latency: Weight of the latency (w2).
        cost: Weight of the cost (w3).
        latency_scale_ms: Latency that counts as 1; None for the slowest model's.
        cost_scale_usd_per_million: Cost that counts as 1; None for the slowest model's.
    """

    score: float = 1.0
    latency: float = 0.05
    cost: float = 0.05
    latency_scale_ms: float | None = None
    cost_scale_usd_per_million: float | None = None

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where a weight is below 0 or a scale is not above."""
        at_least("reward", 0.0, score=self.score, latency=self.latency, cost=self.cost)
        above_zero("reward", latency_scale_ms=self.latency_scale_ms)
        above_zero("reward", cost_scale_usd_per_million=self.cost_scale_usd_per_million)

    def bind(self, catalog: Catalog, prices: Prices, world: World) -> Callable[[Evaluation], float]:
        """The reward function for this catalog; raises `CatalogError` where a needed profile is missing."""
        latency_ms, usd = self.latency_scale_ms, self.cost_scale_usd_per_million
        if latency_ms is None or usd is None:
            slowest_ms, slowest_usd = slowest_model(catalog, prices, world)
            latency_ms, usd = latency_ms or slowest_ms, usd or slowest_usd

        def reward(evaluation: Evaluation) -> float:
            return (
                self.score * evaluation.score
                - self.latency * evaluation.latency_ms_mean / latency_ms
                - self.cost * evaluation.cost_usd_per_million / usd
            )

        return reward


@dataclass(frozen=True)
class ServiceLevel:
    """The score, less a penalty for each share by which latency or cost exceed their limits.

    Attributes:
        latency_limit_ms: Latency that is still free of penalty.
        cost_limit_usd_per_million: Cost that is still free of penalty.
        penalty: Taken off for exceeding a limit by its own size.
    """

    latency_limit_ms: float
    cost_limit_usd_per_million: float
    penalty: float = 1.0

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where a limit is not above 0 or the penalty below."""
        above_zero("reward", latency_limit_ms=self.latency_limit_ms)
        above_zero("reward", cost_limit_usd_per_million=self.cost_limit_usd_per_million)
        at_least("reward", 0.0, penalty=self.penalty)

    def bind(self, catalog: Catalog, prices: Prices, world: World) -> Callable[[Evaluation], float]:
        """The reward function; limits are absolute, so catalog and prices do not matter."""

        def reward(evaluation: Evaluation) -> float:
            latency = evaluation.latency_ms_mean / self.latency_limit_ms - 1
            cost = evaluation.cost_usd_per_million / self.cost_limit_usd_per_million - 1
            return evaluation.score - self.penalty * (max(latency, 0.0) + max(cost, 0.0))

        return reward


def slowest_model(catalog: Catalog, prices: Prices, world: World) -> tuple[float, float]:
    """Latency of a request in ms, and cost in USD per million rows, of the slowest model by profile.

    Raises:
        CatalogError: A model was not profiled yet.
    """
    latencies: list[float] = []
    costs: list[float] = []
    batch = parse_load(world.load).batch
    for model in catalog.models:
        profile = model.profile
        request_ms = profile.request_ms(batch)
        if request_ms is None or profile.cpu_ms is None or profile.peak_memory_bytes is None:
            raise CatalogError(
                f'catalog.yaml: operator "{model.name}": profile is empty; run gnncompose catalog profile, '
                f"or set reward.latency_scale_ms and reward.cost_scale_usd_per_million"
            )
        latencies.append(request_ms)
        memory_bytes, row_ms = profile.peak_memory_bytes, request_ms / batch
        costs.append(prices.usd_per_million(world.resource, profile.cpu_ms, memory_bytes, row_ms))
    if not latencies:
        raise CatalogError(f'catalog "{catalog.name}" has no model; add one')
    return max(latencies), max(costs)
