"""A search as a run: the agent spends its budget, trackers hear of it, and the result is tested once."""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gnncompose.agents.agent import Agent, search
from gnncompose.composition.paths import EditStep, direct_path, shortest_path
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.errors import EvaluationError, GnncomposeError, one_line
from gnncompose.evaluation.contributions import contributions
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.evaluation import Aimed, Budget, Evaluation, Evaluator, Foresees, Keeps, LetsGo, Trial
from gnncompose.evaluation.optimum import Complete
from gnncompose.resuming import refuse_result
from gnncompose.reward import Reward
from gnncompose.sweeping import heed_interrupt
from gnncompose.tracking.tracker import Result, Run, Summary, Tracker

Candidate = tuple[float, Composition, Evaluation]
KEPT = ".evaluations.db"
# What a report may add to a run that was not interrupted: a share of the search's time, or so many seconds.
REPORT_SHARE, REPORT_S = 0.1, 3.0
KEPT_OPTIMA = 8
_optima: dict[Hashable, float] = {}


def run_search(
    run: Run, agent: Agent, evaluator: Evaluator, reward: Reward, prices: Prices, trackers: Sequence[Tracker]
) -> Summary:
    """Search, test what was found, and tell the trackers.

    An interrupt (Ctrl-C) ends the search, not the run: what there is by then is tested and written. Until a run is
    complete, its folder keeps what was measured; searched anew there, it goes on where it was and pays for nothing
    twice.

    Args:
        run: What is searched, and where its files go.
        agent: Who searches.
        evaluator: Gives the evaluations.
        reward: Says how good they are.
        prices: What resources cost.
        trackers: Are told in this order.

    Raises:
        GnncomposeError: The start could not be evaluated, the folder holds a complete run, or the reward is none.
    """
    if not isinstance(reward, Reward):
        name = type(reward).__name__
        raise GnncomposeError(
            f"reward {name}: has no bind(catalog, prices, world); write it as gnncompose.reward has it"
        )
    try:
        return _run(run, agent, evaluator, reward, prices, trackers)
    finally:
        if isinstance(evaluator.real, LetsGo):
            evaluator.real.let_go()


def _run(
    run: Run, agent: Agent, evaluator: Evaluator, reward: Reward, prices: Prices, trackers: Sequence[Tracker]
) -> Summary:
    _open_folder(run, evaluator)
    reward_of = reward.bind(run.task.catalog, prices, run.world)

    def on_trial(trial: Trial) -> None:
        if trial.index == 1 and trial.failure:
            raise GnncomposeError(f"the start could not be evaluated: {trial.failure}")
        for tracker in trackers:
            tracker.on_trial(trial)
        heed_interrupt()

    generator, space = run.generator(), run.task.space
    if run.start == "random":
        space = replace(space, initial=space.random(generator))
    budget = _prepared(Budget(evaluator, reward_of, run.budget, on_trial), space)
    optimum = _optimum(evaluator.real, (reward, prices, run.world), reward_of)
    run = replace(run, optimum=optimum, price=prices.resource(run.world.resource))
    started, interrupted = time.perf_counter(), False
    for tracker in trackers:
        tracker.on_start(run)
    try:
        search(agent, space, budget, generator)
    except KeyboardInterrupt:
        if not budget.trials:
            raise
        interrupted = True
    wall_s = time.perf_counter() - started
    found = _best_tested(_ranked(budget.trials), evaluator.real, reward_of)
    seconds = 0.0 if interrupted else max(REPORT_S, REPORT_SHARE * wall_s)
    measured = {t.composition.id: t.evaluation for t in budget.trials if t.evaluation and not t.is_predicted}
    summary = Summary(
        start=_best_tested(_ranked(budget.trials[:1]), evaluator.real, reward_of),
        best_single=best_single(run, evaluator.real, reward_of, budget),
        found=found,
        trials=tuple(budget.trials),
        wall_s=wall_s,
        interrupted=interrupted,
        checkpoint=_checkpoint(agent),
        model=_merged(found.composition, run),
        contributions=contributions(found.composition, evaluator.real, space, reward_of, measured, seconds),
        path=_path(space, budget, found.composition),
    )
    for tracker in trackers:
        tracker.on_finish(summary)
    if not interrupted:
        _close_folder(run.folder)
    return summary


def _open_folder(run: Run, evaluator: Evaluator) -> None:
    """Keep there what is measured, until the run is complete.

    Raises:
        GnncomposeError: It is complete already, or the task lacks test data.
    """
    refuse_result(run.folder)
    if run.task.has_data:  # where nothing is but a recorded table, nothing is read
        run.task.split(run.world.condition, "test")  # a missing file is to be told now, not after the search
    if isinstance(evaluator.real, Keeps):
        evaluator.real.keep(run.folder / KEPT)


def _close_folder(folder: Path) -> None:
    for path in folder.glob(f"{KEPT}*"):
        path.unlink()


def _optimum(evaluator: Evaluator, told: Hashable, reward: Callable[[Evaluation], float]) -> float | None:
    """The largest reward of the space, where the evaluator knows it; what one process found before is not sought again.

    Args:
        evaluator: Really runs compositions, or looks them up.
        told: What the reward follows from, beside the task.
        reward: From evaluations to rewards.
    """
    if not isinstance(evaluator, Complete):
        return None
    key = evaluator.task, told
    try:
        hash(key)
    except TypeError:  # somebody's reward that cannot be hashed
        return evaluator.optimum(reward)
    if key not in _optima:
        while len(_optima) >= KEPT_OPTIMA:
            del _optima[next(iter(_optima))]
        _optima[key] = evaluator.optimum(reward)
    return _optima[key]


def _checkpoint(agent: Agent) -> dict[str, Any] | None:
    """What the agent learned; None where that cannot be written, for which no search is to be lost."""
    found = agent.checkpoint()
    try:
        pickle.dumps(found)
    except Exception as problem:  # whatever somebody's objects raise
        name = type(agent).__name__
        print(f"agent {name}: its checkpoint() cannot be written: {one_line(str(problem))}", file=sys.stderr)
        return None
    return found


def _path(space: Space, budget: Budget, found: Composition) -> tuple[EditStep, ...] | None:
    """How edits lead from where the search began to what it found: through evaluated compositions if they can."""
    start, visited = budget.trials[0].composition, {trial.composition.id: trial.composition for trial in budget.trials}
    path = shortest_path(space, start, found, visited, REPORT_S)
    return direct_path(space, start, found, REPORT_S) if path is None else path


def best_single(run: Run, evaluator: Evaluator, reward: Callable[[Evaluation], float], budget: Budget) -> Result:
    """The best single model without transforms by reward on validation data; nothing is charged.

    What the search measured already is used as it is; what it only predicted is measured now.

    Raises:
        GnncomposeError: No single model could be evaluated.
    """
    known = {trial.composition.id: trial for trial in budget.trials if not trial.is_predicted}
    compositions, singles = list(run.task.space.single_models()), list[Candidate]()
    if isinstance(evaluator, Foresees):
        evaluator.foresee([composition for composition in compositions if composition.id not in known])
    for composition in compositions:
        try:
            trial = known.get(composition.id)
            evaluation = trial.evaluation if trial else evaluator.evaluate(composition)
        except EvaluationError:
            continue
        if evaluation is not None:
            singles.append((reward(evaluation), composition, evaluation))
    if not singles:
        raise GnncomposeError(f'task "{run.task.name}": no single model could be evaluated; run gnncompose task check')
    return _best_tested(sorted(singles, key=lambda single: -single[0]), evaluator, reward)


def _prepared(budget: Budget, space: Space) -> Budget:
    """The budget, its evaluator told what is sought.

    Raises:
        GnncomposeError: It does not even pay for what the evaluator measures before its first prediction.
    """
    if isinstance(budget.evaluator, Aimed):
        budget.evaluator.aim(budget.reward)
    first = budget.evaluator.charge(space.start)
    if first > budget.limit:
        raise GnncomposeError(
            f"budget={budget.limit}: the evaluator first measures {first} compositions; give a budget of {first} or "
            f"more, or a smaller evaluator.calibration"
        )
    return budget


def _ranked(trials: Sequence[Trial]) -> list[Candidate]:
    """What was evaluated, the best first and the earliest of equals; what was measured goes before predictions."""
    ranked = sorted(trials, key=lambda trial: trial.rank, reverse=True)
    return [(trial.reward, trial.composition, trial.evaluation) for trial in ranked if trial.evaluation is not None]


def _best_tested(
    candidates: Sequence[Candidate], evaluator: Evaluator, reward: Callable[[Evaluation], float]
) -> Result:
    """The first that can be evaluated on test data, too: an artifact may fail on rows that no search has seen.

    What was only predicted on validation data is measured there now.

    Raises:
        GnncomposeError: None can.
    """
    failures: list[str] = []
    for value, composition, told in candidates:
        try:
            evaluation = evaluator.evaluate(composition) if told.is_predicted else told
            value = reward(evaluation) if told.is_predicted else value
            return Result(composition, value, evaluation, evaluator.evaluate(composition, "test"))
        except EvaluationError as problem:
            failures.append(f"{composition} could not be evaluated on test data: {problem}")
            print(failures[-1], file=sys.stderr)
    raise GnncomposeError(failures[0])


def _merged(composition: Composition, run: Run) -> bytes | None:
    """The composition as one ONNX file; None where a host operator keeps it from being merged."""
    from gnncompose.execution.isolation import merged_file

    try:
        return merged_file(composition, run.task.catalog)
    except GnncomposeError:
        return None
