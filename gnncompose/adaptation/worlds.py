"""Worlds that change though the data do not: a model appears or is withdrawn, prices rise, requests come in a burst."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from gnncompose.adaptation.circumstances import USUAL, Circumstances
from gnncompose.adaptation.stream import Turns
from gnncompose.composition.tree import Composition
from gnncompose.errors import TaskError
from gnncompose.tasks.task import Scenario


@dataclass(frozen=True)
class WorldChange:
    """The data stay in one condition, for as many stretches as there are, each as long as the scenario's first.

    Attributes:
        condition: Which; None for the scenario's first.
    """

    condition: str | None = None
    stretches: ClassVar[int] = 2

    def scenario(self, given: Scenario) -> Scenario:
        """See `Change.scenario`."""
        first = given.steps[0]
        return Scenario.of(given.name, first.rows, [self.condition or first.condition] * self.stretches)

    def shares(self, scenario: Scenario) -> tuple[Float[np.ndarray, "row state"], tuple[int, ...]]:
        """See `Change.shares`."""
        return np.ones((scenario.rows, 1)), ()


@dataclass(frozen=True)
class NewModel(WorldChange):
    """The catalog lacks an operator at first; then it is there.

    Attributes:
        operator: Its name; None for the last model of what is best with everything at hand.
    """

    operator: str | None = None

    def circumstances(self, scenario: Scenario, best: Composition, service_ms: float) -> Turns:
        """See `Change.circumstances`."""
        withheld = Circumstances(withheld=(self.operator or last_model(best),))
        return (0, withheld), (scenario.steps[0].rows, USUAL)


@dataclass(frozen=True)
class WithdrawnModel(WorldChange):
    """The catalog loses an operator.

    Attributes:
        operator: Its name; None for the last model of what is deployed at first.
    """

    operator: str | None = None

    def circumstances(self, scenario: Scenario, best: Composition, service_ms: float) -> Turns:
        """See `Change.circumstances`."""
        withheld = Circumstances(withheld=(self.operator or last_model(best),))
        return (0, USUAL), (scenario.steps[0].rows, withheld)


@dataclass(frozen=True)
class PriceRise(WorldChange):
    """The resource comes to cost more.

    Attributes:
        times: Over its usual price.
    """

    times: float = 2.0

    def __post_init__(self) -> None:
        if not self.times > 0:
            raise TaskError(f"change.times={self.times}: is no factor above 0; give one")

    def circumstances(self, scenario: Scenario, best: Composition, service_ms: float) -> Turns:
        """See `Change.circumstances`."""
        return (0, USUAL), (scenario.steps[0].rows, Circumstances(price=self.times))


@dataclass(frozen=True)
class LoadBurst(WorldChange):
    """For a stretch requests come so fast that what is deployed at first is hardly ever idle.

    Attributes:
        utilisation: Share of the time that it is busy then.
    """

    utilisation: float = 0.9
    stretches: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if not 0 < self.utilisation < 1:
            raise TaskError(f"change.utilisation={self.utilisation}: is no share between 0 and 1; give one")

    def circumstances(self, scenario: Scenario, best: Composition, service_ms: float) -> Turns:
        """See `Change.circumstances`."""
        rows = scenario.steps[0].rows
        burst = Circumstances(load=f"server:{round(1000 * self.utilisation / service_ms)}")
        return (0, USUAL), (rows, burst), (2 * rows, USUAL)


def last_model(composition: Composition) -> str:
    """Name of its last model: in a cascade the one that answers what is hardest."""
    return [node.operator.name for node in composition.nodes if node.operator.kind == "model"][-1]
