"""The flagship: a pre-trained graph-network surrogate, conditioned on the evaluations so far, chooses what to measure.

The surrogate is a Gaussian process over embeddings of a graph network (`policies/surrogate.py`); its posterior is what
it makes of the evaluations so far, the hidden state of the data among them. Beside it stands one that learned nothing,
and each counts by its evidence. What is left of the reward beside the score, latency and cost, is predicted from
profiles. The first decisions are among single models, each of which tells of all compositions that hold it; later ones
look at compositions a few edits from the best ones (afterstates), which grow in number, and beyond the most promising
of these while nothing is better than the start. The next composition is the one with the largest expected improvement
(Mockus, 1978; Jones, Schonlau and Welch, J. Global Optimization 13, 1998), or the best of rewards drawn independently
(Thompson, Biometrika 25, 1933).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence, Sized
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from gnncompose.agents.agent import Proposals
from gnncompose.agents.candidates import Candidates
from gnncompose.agents.reward_surrogate import RewardSurrogate, latest
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.evaluation.evaluation import Trial
from gnncompose.policies.policy import EncoderRecipe, seeded
from gnncompose.policies.surrogate import DeepKernel, load_kernel
from gnncompose.ranges import above_zero, at_least, counts, one_of, shares

FIRST_FIT = 4
Acquisition = Literal["expected_improvement", "thompson"]
Vector = Float[np.ndarray, " candidate"]


class GNNThompson:
    """Fits the surrogate to what was evaluated, and evaluates what it promises most of."""

    def __init__(
        self,
        encoder: EncoderRecipe,
        checkpoint: str | None = None,
        acquisition: Acquisition = "expected_improvement",
        opening: int | None = None,
        elite: float = 0.1,
        climbs: int = 2,
        pool: int = 2000,
        refit: float = 1.25,
        deviation: float = 1.0,
        rows: int = 600,
    ) -> None:
        """Set the surrogate and how to choose.

        Args:
            encoder: Describes the graph encoder.
            checkpoint: File with a pre-trained surrogate; None for random weights, where the kernel over the
                catalog's own operators does the work.
            acquisition: What makes a candidate worth a measurement.
            opening: Single models that are evaluated first, the most promising ones, unless old trials are recalled;
                None for five, or for one with a checkpoint, which knows more of them beforehand.
            elite: Share of the trials, the best ones, around which candidates lie; one trial at least.
            climbs: How often what is worth most gives way to what is worth more among its edits while nothing beats the
                start; only with a checkpoint, since random weights know nothing of what lies far.
            pool: Candidates of a decision, at most.
            refit: Growth of the evaluations after which the variances are fitted again.
            deviation: How far they may go from the checkpoint's, as the deviation of a prior over their logarithms.
            rows: Trials, the latest, that the process is conditioned on, at most; 0 to ignore them all.

        Raises:
            GnncomposeError: No such acquisition, a number out of its range, or a checkpoint that is not usable.
        """
        counts("agent", 1, pool=pool)
        counts("agent", 0, opening=opening, climbs=climbs, rows=rows)
        shares("agent", elite=elite)
        at_least("agent", 1, refit=refit)
        above_zero("agent", deviation=deviation)
        one_of("agent", ("expected_improvement", "thompson"), acquisition=acquisition)
        self.encoder = encoder
        self.acquisition = acquisition
        self.opening = (1 if checkpoint else 5) if opening is None else opening
        self.elite = elite
        self.climbs = climbs if checkpoint else 0
        self.pool = pool
        self.refit = refit
        self.deviation = deviation
        self.rows = rows
        self._trained = [] if checkpoint is None else [load_kernel(checkpoint, encoder)]
        self._old: Sequence[Trial] = ()

    def recall(self, trials: Sequence[Trial]) -> None:
        """Let later runs begin with old trials: what they say, and that each of them is a candidate."""
        self._old = trials

    def propose(self, space: Space, budget: int, generator: np.random.Generator) -> Proposals:
        """Yield the start, then what the surrogate favours; see `Agent.propose`."""
        seed = int(generator.integers(2**31))
        kernels = [*self._trained, seeded(lambda: DeepKernel(self.encoder), seed)]
        old = latest([trial for trial in self._old if is_within(trial.composition, space)], self.rows)
        surrogate = RewardSurrogate(space, kernels, self.deviation, old)
        candidates = Candidates(space, self.pool, generator)
        singles = [] if old else space.single_models()
        trials = {space.start.id: (yield space.start)}
        fitted_at = FIRST_FIT
        while pool := (opening := self._opening(singles, trials)) or candidates(
            list(trials.values()), self._incumbents(trials)
        ):
            seen = trials.keys() | {composition.id for composition in pool}
            pool += [trial.composition for trial in old if trial.composition.id not in seen]
            known = latest(list(trials.values()), self.rows)
            if known and len(trials) >= self.refit * fitted_at:
                surrogate.fit(known)
                fitted_at = len(trials)
            best = max(trial.reward for trial in trials.values())
            worth_of = partial(self._worth, surrogate, known, best, generator)
            climbs = 0 if opening or best > trials[space.start.id].reward else self.climbs
            chosen = climbed(pool, worth_of, climbs, space, trials)
            trials[chosen.id] = yield chosen

    def _opening(self, singles: Sequence[Composition], trials: Collection[str]) -> list[Composition]:
        """Single models that were not tried, while it is their turn."""
        return [single for single in singles if single.id not in trials] if len(trials) <= self.opening else []

    def _incumbents(self, trials: Sized) -> int:
        """Around how many of the trials candidates lie."""
        return max(1, round(self.elite * len(trials)))

    def _worth(
        self,
        surrogate: RewardSurrogate,
        known: Sequence[Trial],
        best: float,
        generator: np.random.Generator,
        asked: Sequence[Composition],
    ) -> Vector:
        """What the acquisition makes of each composition that is asked for, where the best reward so far is this."""
        mean, variance = surrogate.posterior(known, asked)
        deviation = np.sqrt(np.maximum(variance, 1e-12))
        if self.acquisition == "thompson":
            return generator.normal(mean, deviation)
        above = (mean - best) / deviation
        return deviation * (above * norm.cdf(above) + norm.pdf(above))

    def checkpoint(self) -> dict[str, Any] | None:
        """Nothing is learned in a run but variances, which the next one fits anew."""
        return None


def climbed(
    pool: Sequence[Composition],
    worth_of: Callable[[Sequence[Composition]], Vector],
    climbs: int,
    space: Space,
    tried: Collection[str],
) -> Composition:
    """What is worth most of a pool, or where so many steps to the best of its own edits lead from there, at most."""
    worth = worth_of(pool)
    top, most = pool[int(np.argmax(worth))], worth.max()
    for _ in range(climbs):
        beyond = [composition for _, composition in space.successors(top) if composition.id not in tried]
        worth = worth_of(beyond)
        if not (worth > most).any():
            break
        top, most = beyond[int(np.argmax(worth))], worth.max()
    return top


def is_within(composition: Composition, space: Space) -> bool:
    """Whether the space allows a composition, and its catalog has every operator of it, the same ones."""
    own, at_hand = (node.operator for node in composition.nodes), space.catalog.by_name
    has_all = all(o.name in at_hand and at_hand[o.name].identity == o.identity for o in own)
    return has_all and space.allows(composition)
