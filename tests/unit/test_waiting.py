"""Latency under load by formula is that of a queue with the table's service times."""

import numpy as np
import pytest
from recorded import recorded

from gnncompose.adaptation.waiting import Waiting, mean_squares
from gnncompose.composition.tree import Composition
from gnncompose.errors import EvaluationError, TableError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.recording.files import read_columns, rows_file
from gnncompose.evaluation.recording.formula import weights_from_json
from gnncompose.evaluation.recording.table import Table, reached_of
from gnncompose.evaluation.recording.times import read_times
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.execution.load import poisson_arrivals_ns, queue_completions_ns
from gnncompose.tasks.task import World

pytestmark = recorded("digits")
CONDITION = "noise"


@pytest.fixture(scope="module")
def evaluator() -> TableEvaluator:
    return TableEvaluator(recorded_task("digits"), World(CONDITION), load_prices())


def found(evaluator: TableEvaluator, text: str) -> Composition:
    space = evaluator.table.space
    return next(c for c in map(space.composition, range(len(space))) if str(c) == text)


def services_ms(table: Table, row: int, count: int) -> np.ndarray:
    """Service times as rows take one way or another through a composition."""
    structure = table.structure
    columns, timed = read_columns(table.folder / rows_file(CONDITION)), table.manifest["conditions"][CONDITION]["timed"]
    shares = structure.shares(reached_of(columns, "validation"), timed["validation"])
    weights = weights_from_json(table.manifest["formula"]["latency"])
    times_ms = read_times(table.folder, "latency_ms")[CONDITION]
    levels = [
        (often[row], structure.milliseconds(times_ms, taken, weights)[row]) for often, taken in structure.levels(shares)
    ]
    often, ms = (np.array(part) for part in zip(*levels, strict=True))
    return np.random.default_rng(0).choice(ms, size=count, p=often)


@pytest.mark.parametrize("text", ["svm(input)", "cascade[threshold=0.99](cnn(input), svm(input))"])
@pytest.mark.parametrize("busy", [0.5, 0.8])
def test_waiting__is_as_in_a_simulated_queue(evaluator: TableEvaluator, text: str, busy: float) -> None:
    composition = found(evaluator, text)
    plain = evaluator.evaluate(composition)
    rate = 1000 * busy / plain.latency_ms_mean
    told = Waiting(evaluator.table, CONDITION, f"server:{rate:.0f}", load_prices())(plain)
    arrivals_ns = poisson_arrivals_ns(rate, 400_000)
    service_ns = 1e6 * services_ms(evaluator.table, evaluator.table.row(composition), len(arrivals_ns))
    waited_ms = (queue_completions_ns(arrivals_ns, service_ns) - arrivals_ns).mean() / 1e6
    assert told.latency_ms_mean == pytest.approx(waited_ms, rel=0.03)
    assert told.latency_ms_mean > plain.latency_ms_mean
    assert told.world == World(CONDITION, load=f"server:{rate:.0f}")
    assert told.cost_usd_per_million > plain.cost_usd_per_million  # memory is held while nothing comes
    assert (told.score, told.cpu_ms) == (plain.score, plain.cpu_ms)


def test_waiting__has_one_service_time_without_a_cascade(evaluator: TableEvaluator) -> None:
    squares, figures = mean_squares(evaluator.table, CONDITION, "test"), evaluator.figures("test")
    cascade = np.array([way is not None and way.operator.kind == "cascade" for way in evaluator.table.space.ways])
    varies = cascade[evaluator.table.space.way]
    np.testing.assert_allclose(squares[~varies], figures.latency_ms_mean[~varies] ** 2)
    assert (squares[varies] >= figures.latency_ms_mean[varies] ** 2 - 1e-12).all()
    assert (squares[varies] > 1.1 * figures.latency_ms_mean[varies] ** 2).any()


def test_waiting__fails_where_the_queue_would_not_end(evaluator: TableEvaluator) -> None:
    plain = evaluator.evaluate(evaluator.task.space.start)
    rate = 1000 * 0.96 / plain.latency_ms_mean
    with pytest.raises(EvaluationError, match="96% busy"):
        Waiting(evaluator.table, CONDITION, f"server:{rate:.3f}", load_prices())(plain)


def test_waiting__knows_rates_only(evaluator: TableEvaluator) -> None:
    with pytest.raises(TableError, match="load=offline:8"):
        Waiting(evaluator.table, CONDITION, "offline:8", load_prices())
