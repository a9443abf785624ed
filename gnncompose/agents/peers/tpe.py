"""Optuna's tree-structured Parzen estimator behind ask and tell.

Bergstra, Bardenet, Bengio and Kégl, Algorithms for Hyper-Parameter Optimization (NIPS 2011); Akiba et al., Optuna
(KDD 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gnncompose.agents.agent import Proposals
from gnncompose.agents.peers import require
from gnncompose.agents.peers.choices import Choices, Pick, ask_and_tell
from gnncompose.composition.space import Space
from gnncompose.ranges import counts

if TYPE_CHECKING:
    import optuna


class TPE:
    """Lets Optuna choose; a choice is only made where the earlier ones call for it."""

    def __init__(self, startup: int = 10, multivariate: bool = False, transforms: int = 3) -> None:
        """Set the sampler.

        Args:
            startup: Random draws before the first fit.
            multivariate: Whether choices are modelled together, in groups that occur together.
            transforms: Transforms of a branch, at most.

        Raises:
            GnncomposeError: A number is out of its range, or Optuna is not installed.
        """
        counts("agent", 1, startup=startup)
        counts("agent", 0, transforms=transforms)
        require("optuna", "tpe")
        self.startup = startup
        self.multivariate = multivariate
        self.transforms = transforms

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield what Optuna asks for; see `Agent.propose`."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=self.startup,
            multivariate=self.multivariate,
            group=self.multivariate,
            seed=int(generator.integers(2**31)),
        )
        choices = Choices(space, self.transforms)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        return ask_and_tell(choices, _Study(study, choices), generator)

    def checkpoint(self) -> dict[str, Any] | None:
        """Nothing is kept beyond a run."""
        return None


class _Study:
    """A study as an `Asker`."""

    def __init__(self, study: optuna.Study, choices: Choices) -> None:
        from optuna.trial import TrialState

        self._study = study
        self._choices = choices
        self._repeated = TrialState.FAIL

    def suggest(self, picks: Mapping[str, int]) -> None:
        self._study.enqueue_trial(dict(picks))

    def ask(self) -> tuple[optuna.Trial, Pick]:
        trial = self._study.ask()

        def pick(name: str) -> int:
            # Optuna draws a choice once; asked again, it gives the same option.
            return int(trial.suggest_categorical(name, list(range(len(self._choices.options[name])))))

        return trial, pick

    def tell(self, asked: optuna.Trial, reward: float, *, known: bool = False) -> None:
        if known:  # a trial that repeats one would only count it twice, and make every later ask slower
            self._study.tell(asked, state=self._repeated)
        else:
            self._study.tell(asked, reward)
