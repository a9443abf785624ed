"""Who is asked for what, when, where workers are threads that wait to be told what to answer (FAKE workers)."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from synthetic import FakeEvaluator, large_space, reward_of

from gnncompose.agents.agent import search
from gnncompose.agents.bananas import Bananas
from gnncompose.agents.exhaustive import Exhaustive
from gnncompose.agents.local_search import LocalSearch
from gnncompose.agents.random import Random
from gnncompose.agents.regularised_evolution import RegularisedEvolution
from gnncompose.composition.tree import Composition
from gnncompose.errors import BusyError, EvaluationError
from gnncompose.evaluation.crew import MOST_AHEAD, Crew, WorkerLostError
from gnncompose.evaluation.evaluation import Budget, Evaluation

SPACE = large_space()
SINGLES = list(SPACE.single_models())
PATIENCE_S = 20.0


class FakeWorkers:
    """Notes what it is asked, and answers once `gate` is open."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gate = threading.Event()
        self.deaths: dict[str, int] = {}
        self._real = FakeEvaluator({})

    def ask(self, composition: Composition, split: str) -> Evaluation:
        self.begun.append(composition.id)
        assert self.gate.wait(PATIENCE_S)
        if self.deaths.get(composition.id, 0) > 0:
            self.deaths[composition.id] -= 1
            raise WorkerLostError("killed")
        return self._real.evaluate(composition, split)


@pytest.fixture
def workers() -> FakeWorkers:
    return FakeWorkers()


@pytest.fixture
def crew(workers: FakeWorkers) -> Iterator[Crew]:
    made = Crew(workers.ask, 2, 2)
    yield made
    made.end(workers.gate.set)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def ids(compositions: list[Composition]) -> list[str]:
    return [composition.id for composition in compositions]


def test_crew__begins_what_is_foreseen_in_order_and_answers_each_once(crew: Crew, workers: FakeWorkers) -> None:
    crew.foresee(SINGLES[:3])
    wait_until(lambda: len(workers.begun) == 2)
    workers.gate.set()
    found = [crew.evaluate(composition, "validation").composition_id for composition in SINGLES[:3]]
    assert found == ids(SINGLES[:3])
    assert sorted(workers.begun) == sorted(found)


def test_crew__does_not_run_far_ahead(crew: Crew, workers: FakeWorkers) -> None:
    workers.gate.set()
    crew.foresee(SINGLES)
    wait_until(lambda: len(workers.begun) == MOST_AHEAD * 2)
    time.sleep(0.1)
    assert sorted(workers.begun) == sorted(ids(SINGLES[: MOST_AHEAD * 2]))
    crew.evaluate(SINGLES[0], "validation")
    wait_until(lambda: len(workers.begun) == MOST_AHEAD * 2 + 1)


def test_crew__asked_goes_before_foreseen(crew: Crew, workers: FakeWorkers) -> None:
    crew.foresee(SINGLES[:4])
    wait_until(lambda: len(workers.begun) == 2)
    asking = threading.Thread(target=crew.evaluate, args=(SINGLES[6], "validation"))
    asking.start()
    wait_until(lambda: crew.holds(SINGLES[6], "validation"))
    workers.gate.set()
    asking.join(PATIENCE_S)
    assert workers.begun.index(SINGLES[6].id) in (2, 3)


def test_crew__what_is_no_longer_foreseen_is_not_begun(crew: Crew, workers: FakeWorkers) -> None:
    crew.foresee(SINGLES[:4])
    wait_until(lambda: len(workers.begun) == 2)
    crew.foresee(SINGLES[4:6])
    workers.gate.set()
    wait_until(lambda: len(workers.begun) == 4)
    assert sorted(workers.begun) == sorted(ids([*SINGLES[:2], *SINGLES[4:6]]))
    assert crew.evaluate(SINGLES[0], "validation").composition_id == SINGLES[0].id
    assert len(workers.begun) == 4


def test_crew__asks_another_where_a_worker_is_lost(crew: Crew, workers: FakeWorkers) -> None:
    workers.deaths[SINGLES[0].id] = 2
    workers.gate.set()
    crew.foresee(SINGLES[:2])
    assert crew.evaluate(SINGLES[0], "validation").composition_id == SINGLES[0].id
    assert workers.begun.count(SINGLES[0].id) == 3
    assert crew.evaluate(SINGLES[1], "validation").composition_id == SINGLES[1].id


def test_crew__gives_up_what_ends_every_worker_and_nothing_else(crew: Crew, workers: FakeWorkers) -> None:
    workers.deaths[SINGLES[0].id] = 99
    workers.gate.set()
    with pytest.raises(BusyError, match="ended 3 workers that it was asked of; the last one: killed"):
        crew.evaluate(SINGLES[0], "validation")
    assert workers.begun == [SINGLES[0].id] * 3
    assert crew.evaluate(SINGLES[1], "validation").composition_id == SINGLES[1].id


def test_crew__what_goes_wrong_is_told_to_the_one_who_asks(workers: FakeWorkers) -> None:
    def failing(composition: Composition, split: str) -> Evaluation:
        raise EvaluationError("broken")

    crew = Crew(failing, 1, 0)
    crew.foresee(SINGLES[:1])
    with pytest.raises(EvaluationError, match="broken"):
        crew.evaluate(SINGLES[0], "validation")
    crew.end(lambda: None)


class ForeseeingEvaluator(FakeEvaluator):
    """FAKE: notes what it is told beforehand."""

    told: list[list[str]]

    def foresee(self, compositions: list[Composition]) -> None:
        self.told.append(ids(compositions))


AGENTS = {
    "random": (Random, 0.99),
    "exhaustive": (Exhaustive, 0.99),
    "regularised_evolution": (lambda: RegularisedEvolution(population=12), 0.4),
    "bananas": (lambda: Bananas(initial=6, round_size=5, epochs=5, pool=30), 0.9),
    "local_search": (LocalSearch, 0.3),
}


@pytest.mark.parametrize("name", AGENTS)
def test_agent__foretells_what_it_asks_for_and_is_moved_by_nobody(name: str) -> None:
    make, least = AGENTS[name]
    asked: list[list[str]] = []
    foreseen: list[tuple[int, list[str]]] = []
    for kind in (FakeEvaluator, ForeseeingEvaluator):
        evaluator = kind({})
        if isinstance(evaluator, ForeseeingEvaluator):
            evaluator.told = []
        budget = Budget(evaluator, reward_of, 24)
        if isinstance(evaluator, ForeseeingEvaluator):
            noted = evaluator.foresee

            def foresee(compositions, noted=noted, budget=budget):
                foreseen.append((budget.left, ids(compositions)))
                noted(compositions)

            evaluator.foresee = foresee
        search(make(), SPACE, budget, np.random.default_rng(4))
        asked.append(ids([trial.composition for trial in budget.trials]))
    assert asked[0] == asked[1]
    assert all(len(told) <= left for left, told in foreseen)
    assert foreseen[-1][1] == []
    known = {composition for _, told in foreseen for composition in told}
    assert len(known & set(asked[1][1:])) >= least * (len(asked[1]) - 1)
