"""A deployment that lives through data that change, replayed with real answers against the recorded table."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from gnncompose.adaptation.controller import Adapted, Controller, Every, Never, OnDrift, Settings
from gnncompose.adaptation.drift import Reference
from gnncompose.adaptation.replay import BLOCK, Recorded, Replayed, StreamedRows, replay
from gnncompose.adaptation.runs import Life, figures_of, opened, run_adaptation
from gnncompose.adaptation.stream import Stream, Sudden, stream_of
from gnncompose.agents.local_search import LocalSearch
from gnncompose.agents.random import Random
from gnncompose.evaluation.cost import load_prices
from gnncompose.reward import WeightedSum
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Scenario, Task

FOG = Scenario.of("fog", 640, ["clean", "low_contrast"])
REWARD = WeightedSum(latency=0.01, cost=0.01)


@pytest.fixture(scope="module")
def task(digits_directory: Path) -> Task:
    return replace(load_task(digits_directory), scenarios={"fog": FOG})


@pytest.fixture(scope="module")
def recorded(task: Task) -> Recorded:
    return Recorded(task, load_prices(), REWARD, ["clean", "low_contrast"])


@pytest.fixture(scope="module")
def stream(task: Task) -> Stream:
    return stream_of(task, FOG, Sudden(), "validation", np.random.default_rng(0))


def lived(recorded: Recorded, stream: Stream, trigger, agent=None, seed: int = 0, **settings) -> Replayed:
    first, generator = recorded.best_on_validation("clean"), np.random.default_rng(seed)
    chosen = Settings(**{"window": 96, "evaluations": 10, **settings})
    return replay(recorded, stream, agent or LocalSearch(), trigger, first, generator, chosen, late=BLOCK)


def test_stream__rows_are_in_the_state_that_their_place_says(task: Task, stream: Stream):
    assert len(stream) == 1280
    assert {name for name, _ in stream.places(np.arange(640))} == {"clean"}
    assert {name for name, _ in stream.places(np.arange(640, 1280))} == {"low_contrast"}


def test_streamed_rows__answers_are_those_of_the_artifacts(recorded: Recorded, stream: Stream):
    seen, rows = StreamedRows(recorded, stream), np.arange(600, 700)
    composition = recorded.best_on_validation("clean")
    x, y = seen.gathered(rows, "x"), seen.gathered(rows, "y")
    found = seen.evaluator(rows).evaluate(composition)
    reference = seen.reference(composition, rows)
    assert reference.errors is not None
    assert found.metric == pytest.approx(1.0 - reference.errors.mean())
    assert found.metric == pytest.approx((seen.answers(composition, rows).argmax(axis=1) == y).mean())
    assert x.shape == (100, 1, 8, 8)


def test_replay__gives_up_nothing_where_the_best_is_deployed(recorded: Recorded, stream: Stream):
    found = lived(recorded, stream, Never())
    assert not found.adapted
    assert set(found.live) == {recorded.best_on_validation("clean").id}
    np.testing.assert_allclose(found.regret, found.gain)
    assert (found.regret >= 0).all()
    assert found.regret[:20].max() < 0.05 < found.regret[-1]


def test_replay__searches_where_the_data_change_and_gets_better(recorded: Recorded, stream: Stream):
    found = lived(recorded, stream, OnDrift())
    (first, *_) = found.adapted
    assert 640 <= first.due < 800
    assert len(first.trials) == 10
    assert first.trials[0].composition.id == found.live[0]
    assert found.regret[-1] < found.gain[-1]


def test_replay__is_the_same_again_for_the_same_seed(recorded: Recorded, stream: Stream):
    one, two = (lived(recorded, stream, Every(320), Random(), seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.regret, two.regret)
    assert one.live == two.live
    assert lived(recorded, stream, Every(320), Random(), seed=4).live != one.live


def test_replay__goes_on_as_long_as_it_pays(recorded: Recorded, stream: Stream):
    once, often = (lived(recorded, stream, OnDrift(), rounds=rounds) for rounds in (1, 3))
    assert len(often.adapted) > len(once.adapted)
    assert often.adapted[0].chosen == once.adapted[0].chosen


class FakeRows:
    """Hands out one evaluator, whatever is asked."""

    def __init__(self, evaluator) -> None:
        self.asked: list[np.ndarray] = []
        self._evaluator = evaluator

    def evaluator(self, rows: np.ndarray):
        self.asked.append(rows)
        return self._evaluator

    def reference(self, composition, rows: np.ndarray) -> Reference:
        return Reference(np.zeros((len(rows), 1)), np.ones((len(rows), 2)))


def test_controller__waits_for_labels_that_came_after_the_change(recorded: Recorded, stream: Stream):
    seen = FakeRows(StreamedRows(recorded, stream).evaluator(np.arange(64)))
    first = recorded.best_on_validation("clean")
    settings = Settings(window=10, evaluations=3)
    generator = np.random.default_rng(0)
    controller = Controller(
        first, recorded.task.space, LocalSearch(), Every(20), seen, recorded.reward, generator, settings
    )
    x, answers = np.zeros((20, 1)), np.ones((20, 2))
    controller.labels(np.arange(0), None)
    controller.rows(x, answers)
    assert controller.due is not None
    controller.labels(np.arange(10, 20), None)  # labels of rows from before
    assert controller.act() is None
    controller.rows(x[:10], answers[:10])
    controller.labels(np.arange(20, 30), None)
    found = controller.act()
    assert isinstance(found, Adapted)
    assert seen.asked[0].tolist() == list(range(20, 30))
    assert len(found.trials) == 3
    assert controller.act() is None
    controller.demand("the catalog changed")  # the latest labels will do
    again = controller.act()
    assert again is not None
    assert again.reason == "the catalog changed"


def test_run_adaptation__writes_what_became_of_it(task: Task, stream: Stream, tmp_path: Path):
    settings = Settings(window=96, evaluations=5)
    recorded, scenario = opened(task, "fog", 1.0, load_prices(), REWARD)
    life = Life(recorded, scenario, Sudden(), LocalSearch(), OnDrift(), settings, late=40, before=0, seed=0)
    told = run_adaptation(tmp_path, life, {"seed": 0})
    record = json.loads((tmp_path / "adapt.json").read_text())
    timeline = parquet.read_table(tmp_path / "timeline.parquet").to_pydict()
    assert record["figures"] == told
    assert told["changes"] == 1
    assert told["searches"] == len(record["adapted"]) >= 1
    assert np.mean(timeline["regret"]) == pytest.approx(told["regret"], abs=1e-4)
    assert timeline["condition"][:20] == ["clean"] * 20
    assert len(record["adapted"][0]["rewards"]) == 5


def test_figures_of__tells_what_was_regained_and_how_soon(recorded: Recorded, stream: Stream):
    found = lived(recorded, stream, OnDrift())
    told = figures_of(stream, found)
    assert told["regained"] == pytest.approx(1 - found.regret[-1] / found.gain[-1], abs=1e-3)
    assert told["delay_rows"] == [found.adapted[0].row - 640]
    nothing = replace(found, adapted=())
    assert figures_of(stream, nothing)["delay_rows"] == []
