"""A search as a run: the agent spends its budget, trackers hear of it, and the result is tested once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from gnncompose.agents.agent import Agent, search
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.errors import EvaluationError, GnncomposeError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.evaluation import Aimed, Budget, Evaluation, Evaluator, Keeps, Trial
from gnncompose.resuming import is_complete
from gnncompose.reward import Reward
from gnncompose.tracking.tracker import Result, Run, Summary, Tracker

Candidate = tuple[float, Composition, Evaluation]
KEPT = ".evaluations.db"


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
        GnncomposeError: The start could not be evaluated, or the folder holds a complete run.
    """
    _open_folder(run, evaluator)
    reward_of = reward.bind(run.task.catalog, prices, run.world)

    def on_trial(trial: Trial) -> None:
        if trial.index == 1 and trial.failure:
            raise GnncomposeError(f"the start could not be evaluated: {trial.failure}")
        for tracker in trackers:
            tracker.on_trial(trial)

    generator, space = run.generator(), run.task.space
    if run.start == "random":
        space = replace(space, initial=space.random(generator))
    budget = _prepared(Budget(evaluator, reward_of, run.budget, on_trial), space)
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
    summary = Summary(
        start=_best_tested(_ranked(budget.trials[:1]), evaluator.real, reward_of),
        best_single=best_single(run, evaluator.real, reward_of, budget),
        found=found,
        trials=tuple(budget.trials),
        wall_s=wall_s,
        interrupted=interrupted,
        checkpoint=agent.checkpoint(),
        model=_merged(found.composition, run),
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
    if is_complete(run.folder):
        raise GnncomposeError(f"{run.folder}: holds a complete run; give another folder as hydra.run.dir")
    if (run.task.directory / "data").is_dir():  # where nothing is but a recorded table, nothing is read
        run.task.split(run.world.condition, "test")  # a missing file is to be told now, not after the search
    if isinstance(evaluator.real, Keeps):
        evaluator.real.keep(run.folder / KEPT)


def _close_folder(folder: Path) -> None:
    for path in folder.glob(f"{KEPT}*"):
        path.unlink()


def best_single(run: Run, evaluator: Evaluator, reward: Callable[[Evaluation], float], budget: Budget) -> Result:
    """The best single model without transforms by reward on validation data; nothing is charged.

    What the search measured already is used as it is; what it only predicted is measured now.

    Raises:
        GnncomposeError: No single model could be evaluated.
    """
    known = {trial.composition.id: trial for trial in budget.trials if not trial.is_predicted}
    singles: list[Candidate] = []
    for composition in run.task.space.single_models():
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
