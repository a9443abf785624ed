"""A deployment that lives through data that change, replayed with real answers against the recorded table."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as parquet
import pytest
from wandb_records import history, of_type, offline_records

from gnncompose.adaptation.circumstances import USUAL, Circumstances
from gnncompose.adaptation.controller import Adapted, Controller, Every, Never, OnDrift, Settings
from gnncompose.adaptation.drift import Reference
from gnncompose.adaptation.recorded import Recorded
from gnncompose.adaptation.replay import BLOCK, Moment, Replayed, StreamedRows, replay
from gnncompose.adaptation.runs import Life, figures_of, live_through, opened, run_adaptation
from gnncompose.adaptation.stream import Change, Gradual, Mixed, Recurring, Stream, Sudden, stream_of
from gnncompose.adaptation.worlds import LoadBurst, NewModel, PriceRise, WithdrawnModel
from gnncompose.agents.local_search import LocalSearch
from gnncompose.agents.random import Random
from gnncompose.composition.tree import Composition
from gnncompose.evaluation.cost import load_prices
from gnncompose.reward import WeightedSum
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Scenario, Task
from gnncompose.tracking.tracker import FilesOnly, Title
from gnncompose.tracking.wandb import WandbTracker

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


@pytest.fixture(scope="module")
def told(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that was tracked by W&B, offline."""
    folder = tmp_path_factory.mktemp("adapt")
    settings = Settings(window=96, evaluations=5)
    recorded, scenario = opened(task, "fog", Sudden(), 1.0, load_prices(), REWARD)
    life = Life(recorded, scenario, Sudden(), LocalSearch(), OnDrift(), settings, late=40, before=0, seed=0)
    title = Title(folder, "adapt", "digits/sudden/drift/local_search", "seed 0", "row", {"late": 40})
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setenv("WANDB_BASE_URL", "http://localhost:9")  # nothing answers there
        run_adaptation(title, life, WandbTracker(mode="offline", tags=("test",)))
    return folder


def test_run_adaptation__writes_what_became_of_it(told: Path):
    record = json.loads((told / "adapt.json").read_text())
    timeline = parquet.read_table(told / "timeline.parquet").to_pydict()
    figures = record["figures"]
    assert figures["changes"] == 1
    assert figures["searches"] == len(record["adapted"]) >= 1
    assert np.mean(timeline["regret"]) == pytest.approx(figures["regret"], abs=1e-4)
    assert timeline["condition"][:20] == ["clean"] * 20
    assert set(timeline["load"]) == {"single_stream"}
    assert len(record["adapted"][0]["rewards"]) == 5


def test_run_adaptation__draws_regret_with_changes_and_swaps(told: Path):
    picture = ElementTree.parse(told / "timeline.svg").getroot()
    lines = [element for element in picture.iter() if element.tag.endswith("polyline")]
    assert [len(line.attrib["points"].split()) for line in lines] == [40, 40]
    said = [element.text or "" for element in picture.iter() if element.tag.endswith("title")]
    record = json.loads((told / "adapt.json").read_text())
    assert "low_contrast" in said
    for one in record["adapted"]:
        assert any(text.startswith(f"{one['chosen']}: {one['reason']}") for text in said) == one["swapped"]


def test_run_adaptation__is_logged_block_by_block(told: Path):
    records = offline_records(told)
    (run,) = of_type(records, "run")[:1]
    assert (run.run_group, run.job_type) == ("digits/sudden/drift/local_search", "adapt")
    assert set(run.tags) == {"digits", "sudden", "drift", "local_search", "test"}
    timeline = parquet.read_table(told / "timeline.parquet").to_pydict()
    rows = [row for row in history(records) if "regret" in row]
    assert [row["row"] for row in rows] == [BLOCK * (number + 1) for number in range(40)]
    np.testing.assert_allclose([row["regret"] for row in rows], timeline["regret"])
    np.testing.assert_allclose([row["static_regret"] for row in rows], timeline["static_regret"])
    record = json.loads((told / "adapt.json").read_text())
    assert rows[-1]["mean_regret"] == pytest.approx(record["figures"]["regret"], abs=1e-5)
    assert (rows[-1]["searches"], rows[-1]["swaps"]) == (record["figures"]["searches"], record["figures"]["swaps"])
    assert rows[-1]["live"] == record["adapted"][-1]["chosen"]


def test_run_adaptation__hands_over_timeline_and_figures(told: Path):
    records = offline_records(told)
    tables = {key.split(".")[0]: row[key] for row in history(records) for key in row if key.endswith(".nrows")}
    record = json.loads((told / "adapt.json").read_text())
    assert tables == {"timeline": 40, "adapted": len(record["adapted"])}
    (artifact,) = [artifact for artifact in of_type(records, "artifact") if artifact.type == "adapt"]
    assert {entry.path for entry in artifact.manifest.contents} == {"adapt.json", "timeline.parquet", "timeline.svg"}
    summary = {item.key: json.loads(item.value_json) for entry in of_type(records, "summary") for item in entry.update}
    assert {name: summary[name] for name in ("regret", "regained")} == {
        name: record["figures"][name] for name in ("regret", "regained")
    }


def test_run_adaptation__can_go_untracked(task: Task, tmp_path: Path):
    change = NewModel()
    recorded, scenario = opened(task, "fog", change, 0.5, load_prices(), REWARD)
    life = Life(recorded, scenario, change, Random(), Never(), Settings(), late=40, before=5, seed=0)
    run_adaptation(Title(tmp_path, "adapt", "digits", "seed 0", "row"), life, FilesOnly())
    assert {path.name for path in tmp_path.iterdir()} == {"adapt.json", "timeline.parquet", "timeline.svg"}
    record = json.loads((tmp_path / "adapt.json").read_text())
    assert record["news"] == [{"row": 320, "what": "cnn is new"}]
    assert parquet.read_table(tmp_path / "timeline.parquet").to_pydict()["withheld"] == ["cnn"] * 10 + [""] * 10


def changed(task: Task, change: Change, trigger, **settings) -> tuple[Recorded, Stream, Replayed, list[Moment]]:
    """A deployment in a world that changes."""
    recorded, scenario = opened(task, "fog", change, 1.0, load_prices(), REWARD)
    chosen, moments = Settings(**{"window": 96, "evaluations": 10, **settings}), []
    life = Life(recorded, scenario, change, LocalSearch(), trigger, chosen, late=BLOCK, before=0, seed=0)
    stream = life.stream()
    return recorded, stream, live_through(life, stream, moments.append), moments


def test_new_model__is_not_deployed_before_it_is_there_and_searched_with_at_once(task: Task):
    recorded, stream, found, moments = changed(task, NewModel(), OnDrift())
    without, best = stream.around(0), recorded.best_on_validation("clean")
    (name,) = without.withheld
    assert name in names(best)
    before = [moment.live for moment in moments[:20]]
    assert all(name not in names(live) for live in before)
    assert before[0] == recorded.best_on_validation("clean", without)
    assert [adapted.reason for adapted in found.adapted if adapted.due == 640] == [f"{name} is new"]
    assert found.adapted[0].row == 640 + BLOCK
    assert figures_of(stream, found)["delay_rows"] == [BLOCK]


def test_withdrawn_model__is_replaced_at_once_whoever_searches(task: Task):
    found = {name: changed(task, WithdrawnModel(), trigger) for name, trigger in TRIGGERS.items()}
    recorded, stream, never, _ = found["never"]
    (gone,) = stream.around(640).withheld
    fallback = task_fallback(recorded, gone)
    for _, _, lived, moments in found.values():
        assert gone in names(recorded.best_on_validation("clean"))
        assert lived.live[20] == fallback.id
        assert lived.news == ((640, f"{gone} was withdrawn; {fallback} stands in"),)
        assert all(gone not in names(moment.live) for moment in moments[20:])
        later = [one for one in lived.adapted if one.row > 640]
        assert all(gone not in names(trial.composition) for one in later for trial in one.trials)
        np.testing.assert_array_equal(lived.gain, never.gain)
    assert set(never.live[20:]) == {fallback.id}
    np.testing.assert_allclose(never.regret, never.gain)
    assert found["drift"][2].adapted[0].reason == f"{gone} was withdrawn"
    assert found["drift"][2].adapted[0].row == 640 + BLOCK
    assert all(one.reason == "320 rows came" for one in found["every"][2].adapted)


@pytest.mark.parametrize("change", [Gradual(over=100), Recurring(turns=3), Mixed()])
def test_data_changes__leave_the_world_around_them_alone(task: Task, change: Change):
    _, stream, found, _ = changed(task, change, OnDrift())
    assert stream.turns == ((0, USUAL),)
    assert found.news == ()
    assert found.adapted
    assert len(found.regret) == len(stream) // BLOCK


def test_price_rise__costs_what_the_new_price_says(task: Task):
    recorded, _, found, _ = changed(task, PriceRise(times=40.0), OnDrift())
    first, dear = recorded.best_on_validation("clean"), Circumstances(price=40.0)
    before, after = (recorded.world("clean", around).evaluate(first) for around in (USUAL, dear))
    assert after.cost_usd_per_million == pytest.approx(40 * before.cost_usd_per_million)
    assert (after.score, after.latency_ms_mean) == (before.score, before.latency_ms_mean)
    assert recorded.reward(after) < recorded.reward(before)
    assert recorded.truth(first, dear)[0] < recorded.truth(first)[0]
    assert found.adapted[0].reason == "resources cost 40 times as much"
    measured = found.adapted[0].trials[0].evaluation
    assert measured is not None
    assert measured.cost_usd_per_million == pytest.approx(after.cost_usd_per_million)


def test_load_burst__is_what_searches_measure_while_it_lasts(task: Task):
    recorded, stream, found, _ = changed(task, LoadBurst(utilisation=0.9), OnDrift())
    burst, first = stream.around(640), recorded.best_on_validation("clean")
    plain, queued = (recorded.world("clean", around).evaluate(first) for around in (USUAL, burst))
    assert queued.latency_ms_mean == pytest.approx(5.5 * plain.latency_ms_mean, rel=0.02)  # M/D/1 at 0.9
    assert [row for row, _ in found.news] == [640, 1280]
    assert [one.reason for one in found.adapted[:2]] == [what for _, what in found.news]
    measured = [one.trials[0].evaluation for one in found.adapted[:2]]
    assert [evaluation and evaluation.world.load for evaluation in measured] == [burst.load, USUAL.load]
    failed = [trial for one in found.adapted for trial in one.trials if trial.failure]
    assert failed
    assert all("busy" in str(trial.failure) and trial.reward == -1 for trial in failed)
    assert recorded.truth(failed[0].composition, burst)[0] == -1


TRIGGERS = {"never": Never(), "every": Every(320), "drift": OnDrift()}


def names(composition: Composition) -> set[str]:
    return {node.operator.name for node in composition.nodes}


def task_fallback(recorded: Recorded, gone: str) -> Composition:
    """The single model with the best clean score by profile."""
    models = [c for c in recorded.task.space.single_models() if c.root.operator.name != gone]
    return max(models, key=lambda c: c.root.operator.profile.score or 0.0)


def test_figures_of__tells_what_was_regained_and_how_soon(recorded: Recorded, stream: Stream):
    found = lived(recorded, stream, OnDrift())
    told = figures_of(stream, found)
    assert told["regained"] == pytest.approx(1 - found.regret[-1] / found.gain[-1], abs=1e-3)
    assert told["delay_rows"] == [found.adapted[0].row - 640]
    nothing = replace(found, adapted=())
    assert figures_of(stream, nothing)["delay_rows"] == []
