"""A search as a run: the agent spends its budget, trackers hear of it, and the result is tested once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from gnncompose.agents.agent import Agent, search
from gnncompose.composition.tree import Composition
from gnncompose.errors import EvaluationError, GnncomposeError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.evaluation import Aimed, Budget, Evaluation, Evaluator, Trial
from gnncompose.reward import Reward
from gnncompose.tracking.tracker import Result, Run, Summary, Tracker


def run_search(
    run: Run, agent: Agent, evaluator: Evaluator, reward: Reward, prices: Prices, trackers: Sequence[Tracker]
) -> Summary:
    """Search, test what was found, and tell the trackers.

    An interrupt (Ctrl-C) ends the search, not the run: what there is by then is tested and written.

    Args:
        run: What is searched, and where its files go.
        agent: Who searches.
        evaluator: Gives the evaluations.
        reward: Says how good they are.
        prices: What resources cost.
        trackers: Are told in this order.

    Raises:
        GnncomposeError: The start could not be evaluated.
    """
    reward_of = reward.bind(run.task.catalog, prices, run.world.resource)

    def on_trial(trial: Trial) -> None:
        if trial.index == 1 and trial.failure:
            raise GnncomposeError(f"the start could not be evaluated: {trial.failure}")
        for tracker in trackers:
            tracker.on_trial(trial)

    run.task.split(run.world.condition, "test")  # a missing file is to be told now, not after the search
    generator, space = run.generator(), run.task.space
    if run.start == "random":
        space = replace(space, initial=space.random(generator))
    if isinstance(evaluator, Aimed):
        evaluator.aim(reward_of)
    budget = Budget(evaluator, reward_of, run.budget, on_trial)
    calibration = evaluator.charge(space.start)
    if calibration > run.budget:
        raise GnncomposeError(
            f"budget={run.budget}: the evaluator first measures {calibration} compositions; give a budget of "
            f"{calibration} or more, or a smaller evaluator.calibration"
        )
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
    start, best = budget.trials[0], budget.best
    summary = Summary(
        start=_tested(start, evaluator.real, reward_of),
        best_single=best_single(run, evaluator.real, reward_of, budget),
        found=_tested(best, evaluator.real, reward_of),
        trials=tuple(budget.trials),
        wall_s=wall_s,
        interrupted=interrupted,
        checkpoint=agent.checkpoint(),
        model=_merged(best.composition, run),
    )
    for tracker in trackers:
        tracker.on_finish(summary)
    return summary


def best_single(run: Run, evaluator: Evaluator, reward: Callable[[Evaluation], float], budget: Budget) -> Result:
    """The best single model without transforms by reward on validation data; nothing is charged.

    What the search measured already is used as it is; what it only predicted is measured now.

    Raises:
        GnncomposeError: No single model could be evaluated.
    """
    known = {trial.composition.id: trial.evaluation for trial in budget.trials if not trial.is_predicted}
    best: tuple[float, Composition, Evaluation] | None = None
    for composition in run.task.space.single_models():
        try:
            evaluation = known[composition.id] if composition.id in known else evaluator.evaluate(composition)
        except EvaluationError:
            continue
        if evaluation is not None and (best is None or reward(evaluation) > best[0]):
            best = reward(evaluation), composition, evaluation
    if best is None:
        raise GnncomposeError(f'task "{run.task.name}": no single model could be evaluated; run gnncompose task check')
    value, composition, evaluation = best
    return Result(composition, value, evaluation, evaluator.evaluate(composition, "test"))


def _tested(trial: Trial, evaluator: Evaluator, reward: Callable[[Evaluation], float]) -> Result:
    """A trial's composition with its final test; what was only predicted is measured on validation data, too."""
    validation, value = trial.evaluation, trial.reward
    assert validation is not None  # the start was evaluated, so the best was
    if validation.is_predicted:
        validation = evaluator.evaluate(trial.composition)
        value = reward(validation)
    return Result(trial.composition, value, validation, evaluator.evaluate(trial.composition, "test"))


def _merged(composition: Composition, run: Run) -> bytes | None:
    """The composition as one ONNX file; None where a host operator keeps it from being merged."""
    from gnncompose.execution.isolation import merged_file

    try:
        return merged_file(composition, run.task.catalog)
    except GnncomposeError:
        return None
