"""BANANAS: an ensemble of small networks over path encodings, independent Thompson sampling, mutated candidates.

White, Neiswanger and Savani, BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search
(AAAI 2021). A path is the sequence of operators from the task's input to the output; paths are far more here than
cells of theirs have, so features that paths share stand beside them.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from gnncompose.agents.agent import Announces, Proposals
from gnncompose.agents.candidates import Candidates, drawn_anywhere, standardised
from gnncompose.closed_features import features_of
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, Node
from gnncompose.evaluation.evaluation import Trial
from gnncompose.features import CompositionFeatures, ways
from gnncompose.ranges import above_zero, counts

Matrix = Float[np.ndarray, "row column"]


class Bananas(Announces):
    """Fits an ensemble to what was evaluated, and evaluates the candidates whose drawn rewards are largest."""

    def __init__(
        self,
        initial: int = 10,
        round_size: int = 10,
        members: int = 5,
        layers: tuple[int, ...] = (32, 32),
        learning_rate: float = 0.01,
        epochs: int = 200,
        pool: int = 200,
        incumbents: int = 5,
        rows: int = 1000,
    ) -> None:
        """Set the sizes.

        Args:
            initial: Compositions that are drawn at random first, the start included.
            round_size: Compositions that are evaluated between two fits.
            members: Networks of the ensemble.
            layers: Width of each hidden layer.
            learning_rate: Of Adam.
            epochs: Passes over the data in one fit, at most.
            pool: Candidates of a decision, at most.
            incumbents: Best compositions that are mutated.
            rows: Trials, the latest, that the ensemble is fitted to, at most.

        Raises:
            GnncomposeError: A number is out of its range.
        """
        counts("agent", 1, initial=initial, round_size=round_size, members=members)
        counts("agent", 1, epochs=epochs, pool=pool, incumbents=incumbents, rows=rows)
        above_zero("agent", learning_rate=learning_rate)
        self.initial = initial
        self.round_size = round_size
        self.members = members
        self.layers = tuple(layers)
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.pool = pool
        self.incumbents = incumbents
        self.rows = rows

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield random compositions, then rounds of what the ensemble favours; see `Agent.propose`."""
        features = features_of(space)
        candidates = Candidates(space, self.pool, generator)
        trials: dict[str, Trial] = {space.start.id: (yield space.start)}
        first = [drawn_anywhere(space, generator) for _ in range(self.initial - 1)]
        self.announce(first)
        for composition in first:
            trials[composition.id] = yield composition
        while pool := candidates(list(trials.values()), self.incumbents):
            drawn = self._drawn(list(trials.values())[-self.rows :], pool, features, generator)
            chosen = [pool[number] for number in np.argsort(-drawn)[: self.round_size]]
            self.announce(chosen)
            for composition in chosen:
                trials[composition.id] = yield composition

    def _drawn(
        self,
        trials: list[Trial],
        pool: list[Composition],
        features: CompositionFeatures,
        generator: np.random.Generator,
    ) -> Float[np.ndarray, " candidate"]:
        """One reward for each candidate, drawn independently from what the ensemble says (their ITS)."""
        tried = [trial.composition for trial in trials]
        paths = {path: number for number, path in enumerate(sorted({p for c in tried for p in path_names(c)}))}
        x, asked = encoded(tried, paths, features), encoded(pool, paths, features)
        y, told = standardised(trials), []
        for _ in range(self.members):
            member = MLPRegressor(
                hidden_layer_sizes=self.layers,
                learning_rate_init=self.learning_rate,
                max_iter=self.epochs,
                random_state=int(generator.integers(2**31)),
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is ours to set
                told.append(member.fit(x, y).predict(asked))
        return generator.normal(np.mean(told, axis=0), np.std(told, axis=0))

    def checkpoint(self) -> dict[str, Any] | None:
        """Nothing is kept beyond a run."""
        return None


def path_names(composition: Composition) -> set[str]:
    """The paths of a composition, each with the combiner that it ends in."""
    root: Node = composition.root
    end = root.operator.name if root.operator.is_combiner else ""
    return {">".join((*way.operators, end)) for way in ways(composition)}


def encoded(compositions: list[Composition], paths: dict[str, int], features: CompositionFeatures) -> Matrix:
    """Which of the paths each composition has, beside its features; paths that nobody tried yet are left out."""
    found = np.zeros((len(compositions), len(paths)))
    for row, composition in enumerate(compositions):
        for path in path_names(composition) & paths.keys():
            found[row, paths[path]] = 1.0
    return np.hstack([found, features(compositions)])
