"""FrugalML's strategy as an agent: measure single models, fit which one should hand its unsure rows to which other.

Chen, Zaharia and Zou, FrugalML: How to Use ML Prediction APIs More Accurately and Cheaply (NeurIPS 2020) learn a base
service, a threshold on its confidence, and an add-on service that gets the rows below it. Theirs may choose another
add-on and threshold for each predicted class, which no cascade here can.

What a cascade would answer and how many rows it would hand on is computed from the row-level answers of the measured
models, where the evaluator tells these; a recorded table, or a cost model, does not. Then scores have to do: the base's
confidence is taken to be calibrated and evenly spread, and the add-on to be as good on hard rows as on others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gnncompose.agents.agent import Proposals
from gnncompose.agents.candidates import ranked_singles
from gnncompose.catalog.operator import Operator
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, Node, make_node
from gnncompose.errors import CompositionError, EvaluationError
from gnncompose.evaluation.evaluation import AnsweredRows, Evaluation, Trial
from gnncompose.execution.combiners import cascaded, confidence_of, threshold_of
from gnncompose.ranges import above_zero, shares

Figures = Float[np.ndarray, " figure"]


class Single(NamedTuple):
    """A measured model.

    Attributes:
        root: The model on its chain.
        figures: Score, latency in ms, cost in USD per million.
        reward: Its reward.
        rows: What it answered on every row; None where nobody tells.
    """

    root: Node
    figures: Figures
    reward: float
    rows: AnsweredRows | None


class Frugal:
    """Spends a part of the budget on single models, and the rest on the cascades that promise most."""

    def __init__(self, singles_share: float = 0.5) -> None:
        """Set how the budget is divided.

        Args:
            singles_share: Share of the budget, at most, for single models; those of the best profiles go first.

        Raises:
            GnncomposeError: A number is out of its range.
        """
        shares("agent", singles_share=singles_share)
        above_zero("agent", singles_share=singles_share)
        self.singles_share = singles_share
        self._answered_rows: Callable[[Composition], AnsweredRows | None] = lambda composition: None

    def read_rows(self, answered_rows: Callable[[Composition], AnsweredRows | None]) -> None:
        """See `ReadsRows.read_rows`."""
        self._answered_rows = answered_rows

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield single models, then cascades, then the models that were left out; see `Agent.propose`."""
        singles = ranked_singles(space)
        count = max(1, int(self.singles_share * budget))
        measured: list[Single] = []
        for composition in singles[:count]:
            trial = yield composition
            if trial.evaluation is not None:
                measured.append(self._measured(trial, trial.evaluation))
        for composition in [*ranked(measured, space), *singles[count:]]:
            yield composition

    def _measured(self, trial: Trial, evaluation: Evaluation) -> Single:
        try:
            rows = self._answered_rows(trial.composition)
        except EvaluationError:
            rows = None
        return Single(trial.composition.root, figures_of(evaluation), trial.reward, rows)

    def checkpoint(self) -> dict[str, Any] | None:
        """Nothing is kept beyond a run."""
        return None


def figures_of(evaluation: Evaluation) -> Figures:
    """What rewards depend on."""
    return np.array([evaluation.score, evaluation.latency_ms_mean, evaluation.cost_usd_per_million])


def ranked(singles: list[Single], space: Space) -> list[Composition]:
    """Every cascade of two of the models within the space's limits, the most promising first."""
    if len(singles) < 2:
        return []
    reward = fitted_reward(singles)
    promises: dict[Composition, float] = {}
    for base, addon in permutations(singles, 2):
        for cascade in space.catalog.of_kind("cascade"):
            for composition in built(base, addon, cascade, space):
                promises[composition] = reward(expected(base, addon, composition.root))
    return sorted(promises, key=lambda composition: -promises[composition])


def built(base: Single, addon: Single, cascade: Operator, space: Space) -> Iterator[Composition]:
    """The cascades of two models at every threshold of the grid."""
    for threshold in cascade.parameters["threshold"].values:
        try:
            root = make_node(cascade, [base.root, addon.root], {"threshold": threshold})
        except CompositionError:  # what the models answer has no confidence, or they share no type
            return
        composition = Composition(root, space.catalog.sha256)
        if space.allows(composition):
            yield composition


def expected(base: Single, addon: Single, cascade: Node) -> Figures:
    """Score, latency and cost of a cascade of two measured models."""
    threshold = threshold_of(cascade)
    if base.rows is None or addon.rows is None:
        score, handed_on = from_scores(float(base.figures[0]), float(addon.figures[0]), float(threshold))
    else:
        score = base.rows.score(cascaded(cascade, [base.rows.answers, addon.rows.answers]))
        handed_on = float((confidence_of(cascade.type)(base.rows.answers) < threshold).mean())
    spent = base.figures[1:] + handed_on * addon.figures[1:]
    return np.array([score, *spent])


def from_scores(base: float, addon: float, threshold: float) -> tuple[float, float]:
    """Score of a cascade and share of rows that it hands on, from two accuracies alone.

    Confidence that is calibrated and evenly spread up to 1 begins at 2 · accuracy − 1.
    """
    lowest = 2 * base - 1
    least = float(np.clip(threshold, lowest, 1.0))
    handed_on = (least - lowest) / max(1.0 - lowest, 1e-9)
    return (1 - handed_on) * (1 + least) / 2 + handed_on * addon, handed_on


def fitted_reward(singles: list[Single]) -> Callable[[Figures], float]:
    """The linear function of the figures that the rewards of the models follow, by least squares."""
    figures = np.array([single.figures for single in singles])
    scale = np.maximum(figures.std(axis=0), 1e-12)
    centre = figures.mean(axis=0)
    rewards = np.array([single.reward for single in singles])
    weights = np.linalg.lstsq((figures - centre) / scale, rewards - rewards.mean(), rcond=None)[0]
    return lambda given: float(rewards.mean() + weights @ ((given - centre) / scale))
