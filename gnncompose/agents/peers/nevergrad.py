"""An optimiser of Nevergrad behind ask and tell.

Rapin and Teytaud, Nevergrad: a gradient-free optimization platform (2018); its wizard `NGOpt` picks a method by the
kind and number of choices and the budget (Meunier et al., Black-Box Optimization Revisited, IEEE Transactions on
Evolutionary Computation 26, 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gnncompose.agents.agent import Proposals
from gnncompose.agents.peers import require
from gnncompose.agents.peers.choices import Choices, Pick, ask_and_tell
from gnncompose.agents.peers.randomness import OwnGlobals
from gnncompose.composition.space import Space
from gnncompose.errors import GnncomposeError
from gnncompose.ranges import counts

if TYPE_CHECKING:
    from nevergrad.optimization.base import Optimizer
    from nevergrad.parametrization.core import Parameter


class Nevergrad:
    """Lets Nevergrad choose; every choice is made, and those that nothing depends on are ignored."""

    def __init__(self, optimizer: str = "NGOpt", transforms: int = 3) -> None:
        """Choose the optimiser.

        Args:
            optimizer: Its name in Nevergrad's registry.
            transforms: Transforms of a branch, at most.

        Raises:
            GnncomposeError: Nevergrad is not installed, or has no such optimiser, or a number is out of its range.
        """
        counts("agent", 0, transforms=transforms)
        require("nevergrad", "nevergrad")
        import nevergrad as ng

        if optimizer not in ng.optimizers.registry:
            raise GnncomposeError(f"agent.optimizer={optimizer}: Nevergrad has no such optimiser; try NGOpt")
        self.optimizer = optimizer
        self.transforms = transforms

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield what Nevergrad asks for; see `Agent.propose`."""
        import nevergrad as ng

        choices = Choices(space, self.transforms)
        # Choices among as many options are repetitions of one: Nevergrad walks over every option at every step.
        alike: dict[int, list[str]] = {}
        for name, options in choices.options.items():
            alike.setdefault(len(options), []).append(name)
        groups = {str(n): ng.p.Choice(list(range(n)), repetitions=len(names)) for n, names in alike.items()}
        parametrization = ng.p.Dict(**groups)
        seed = int(generator.integers(2**31))
        parametrization.random_state = np.random.RandomState(seed)
        optimizer = ng.optimizers.registry[self.optimizer](parametrization, budget=budget)
        return ask_and_tell(choices, _Optimizer(optimizer, alike, OwnGlobals(seed)), generator)

    def checkpoint(self) -> dict[str, Any] | None:
        """Nothing is kept beyond a run."""
        return None


class _Optimizer:
    """An optimiser of Nevergrad as an `Asker`; it minimises.

    Some of its methods draw from NumPy's global random state, and divide by zero where choices have become certain.
    """

    def __init__(self, optimizer: Optimizer, alike: dict[int, list[str]], own: OwnGlobals) -> None:
        self._optimizer = optimizer
        self._alike = alike
        self._own = own

    def suggest(self, picks: Mapping[str, int]) -> None:
        # What a suggestion leaves out makes no difference to it.
        values = {str(n): tuple(picks.get(name, 0) for name in names) for n, names in self._alike.items()}
        with self._own, np.errstate(all="ignore"):
            self._optimizer.suggest(values)

    def ask(self) -> tuple[Parameter, Pick]:
        with self._own, np.errstate(all="ignore"):
            candidate = self._optimizer.ask()
        groups = candidate.value
        chosen = {name: v for n, names in self._alike.items() for name, v in zip(names, groups[str(n)], strict=True)}
        return candidate, chosen.__getitem__

    def tell(self, asked: Parameter, reward: float, *, known: bool = False) -> None:
        with self._own, np.errstate(all="ignore"):
            self._optimizer.tell(asked, -reward)
