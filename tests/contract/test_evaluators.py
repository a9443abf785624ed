"""What every evaluator keeps to, whether it runs compositions or tells of them."""

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from recorded import recorded

from gnncompose.agents.agent import search
from gnncompose.agents.local_search import LocalSearch
from gnncompose.composition.tree import Composition
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.cost_model.evaluator import CostModelEvaluator
from gnncompose.evaluation.evaluation import Aimed, Budget, Evaluation, Evaluator, LetsGo
from gnncompose.evaluation.hybrid import HybridEvaluator
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.evaluation.ray import RayEvaluator
from gnncompose.evaluation.table import TableEvaluator
from gnncompose.reward import WeightedSum
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task, World

WORLD = World("noise")
REAL = partial(OnnxEvaluator, rows=4, repeats=1, seconds=0.0, measure_memory=False)
EVALUATORS = {
    "onnx": REAL,
    "cost_model": partial(CostModelEvaluator, inner=REAL, calibration=3),
    "cost_model_uncalibrated": partial(CostModelEvaluator, inner=REAL, calibration=0),
    "hybrid": partial(HybridEvaluator, inner=REAL, initial=2),
    "table": TableEvaluator,
    "ray": partial(RayEvaluator, workers=1, rows=4, repeats=1, seconds=0.0, measure_memory=False),
}
NEEDS = {
    "table": [recorded("digits")],
    "ray": [pytest.mark.slow, pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")],
}


@pytest.fixture(scope="module")
def task(digits_directory: Path) -> Task:
    return load_task(digits_directory)


@pytest.fixture(params=[pytest.param(name, marks=NEEDS.get(name, ())) for name in EVALUATORS])
def evaluator(request: pytest.FixtureRequest, task: Task) -> Iterator[Evaluator]:
    made: Evaluator = EVALUATORS[request.param](task, WORLD, load_prices())
    yield made
    if isinstance(made, LetsGo):
        made.let_go()


@pytest.fixture
def compositions(evaluator: Evaluator) -> list[Composition]:
    generator, space = np.random.default_rng(3), evaluator.task.space
    drawn = {c.id: c for c in (space.random(generator, 4) for _ in range(12))}
    return [space.start, *(c for key, c in drawn.items() if key != space.start.id)][:6]


def aimed(evaluator: Evaluator, task: Task) -> Evaluator:
    if isinstance(evaluator, Aimed):
        evaluator.aim(WeightedSum().bind(task.catalog, load_prices(), WORLD))
    return evaluator


def figures(evaluation: Evaluation) -> np.ndarray:
    return np.array(
        [
            evaluation.metric,
            evaluation.score,
            evaluation.latency_ms_mean,
            evaluation.latency_ms_p50,
            evaluation.throughput_per_s,
            evaluation.cpu_ms,
            evaluation.cost_usd_per_million,
        ]
    )


def test_evaluator__tells_of_what_was_asked_in_its_world(
    evaluator: Evaluator, task: Task, compositions: list[Composition]
) -> None:
    assert isinstance(evaluator, Evaluator)
    assert evaluator.world == WORLD
    for composition in compositions:
        found = aimed(evaluator, task).evaluate(composition)
        assert (found.composition_id, found.world, found.split) == (composition.id, WORLD, "validation")
        assert np.isfinite(figures(found)).all()
        assert 0 <= found.score <= 1
        assert (figures(found)[2:] > 0).all()


def test_evaluator__charges_what_it_measures(evaluator: Evaluator, task: Task, compositions: list[Composition]) -> None:
    for composition in compositions:
        expected = aimed(evaluator, task).charge(composition)
        assert evaluator.evaluate(composition).measurements == expected


def test_evaluator__says_how_sure_it_is_of_what_it_predicts_and_of_nothing_else(
    evaluator: Evaluator, task: Task, compositions: list[Composition]
) -> None:
    for composition in compositions:
        found = aimed(evaluator, task).evaluate(composition)
        assert found.is_predicted == (found.deviation is not None)
        if found.deviation is None:
            assert found.measurements == 1
            assert (found.measurement is None) == (found.evaluator == "table")  # of recorded ones no samples are kept
        else:
            assert {"score", "latency_ms_mean", "cost_usd_per_million"} <= found.deviation.keys()
            assert all(np.isfinite(value) and value >= 0 for value in found.deviation.values())


def test_evaluator__real_one_really_runs(evaluator: Evaluator, task: Task, compositions: list[Composition]) -> None:
    real = evaluator.real
    assert isinstance(real, Evaluator)
    assert real.real is real
    assert real.world == WORLD
    found = real.evaluate(compositions[0], "test")
    assert (found.split, found.measurements, found.deviation) == ("test", 1, None)


def test_evaluator__what_was_measured_is_told_as_it_was(
    evaluator: Evaluator, task: Task, compositions: list[Composition]
) -> None:
    first, again = (aimed(evaluator, task).evaluate(compositions[0]) for _ in range(2))
    assert again.score == pytest.approx(first.score, abs=1e-12)


def test_evaluator__never_overspends_a_budget(evaluator: Evaluator, task: Task) -> None:
    reward = WeightedSum().bind(task.catalog, load_prices(), WORLD)
    budget = Budget(aimed(evaluator, task), reward, 5)
    search(LocalSearch(), evaluator.task.space, budget, np.random.default_rng(0))
    assert budget.spent == sum(trial.measurements for trial in budget.trials) <= 5
    assert all(trial.failure is None for trial in budget.trials)
