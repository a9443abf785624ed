"""The real evaluator on the digits bundle, its store, the memory probe, and profiles."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from gnncompose.catalog.profile import profile_catalog
from gnncompose.composition.tree import Composition, make_node
from gnncompose.errors import EvaluationError
from gnncompose.evaluation.cost import Prices, load_prices
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.execution.memory import peak_memory_bytes
from gnncompose.execution.plan import Plan
from gnncompose.execution.sessions import SessionPool
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task, World

PROFILED = ["logistic", "extra_trees", "mlp", "median", "cascade"]  # the last runs no code of its own


@pytest.fixture(scope="module")
def task(digits_directory: Path) -> Task:
    return load_task(digits_directory)


def evaluator(task: Task, store: str | None = None, prices: Prices | None = None, **settings) -> OnnxEvaluator:
    return OnnxEvaluator(
        task, World(), prices or load_prices(), rows=6, repeats=2, seconds=0.0, store=store, **settings
    )


def test_evaluator__measures_score_speed_and_size(task: Task) -> None:
    for composition in task.space.single_models()[:4]:
        found = evaluator(task).evaluate(composition)
        split = task.split("clean", "validation")
        answers = Plan(composition, SessionPool(task.catalog)).run(split.x).argmax(axis=1)
        assert found.metric == found.score == pytest.approx((answers == split.y).mean())
        assert found.measurement is not None
        assert found.measurement.samples_ms.shape == (6, 2)
        assert found.latency_ms_p50 > 0
        assert found.latency_ms_p90 is None  # twelve samples cannot tell it
        assert found.peak_memory_bytes > 20e6
        assert found.artifact_bytes == sum(
            task.catalog.artifact_path(o).stat().st_size
            for o in {n.operator.sha256: n.operator for n in composition.nodes}.values()
        )
        assert found.cost_usd_per_million > 0
        assert not found.cached


@pytest.mark.parametrize(("load", "shape"), [("offline:16", (4, 2)), ("server:50", (12, 1))])
def test_evaluator__measures_under_the_load_of_its_world(task: Task, load: str, shape: tuple[int, int]) -> None:
    world = World(load=load)
    ours = OnnxEvaluator(task, world, load_prices(), rows=6, repeats=2, seconds=0.0, measure_memory=False)
    found = ours.evaluate(task.space.start)
    assert found.world == world
    assert found.measurement is not None
    assert found.measurement.samples_ms.shape == shape
    assert found.throughput_per_s == found.measurement.throughput_per_s > 0


def test_evaluator__load_that_cannot_be_sustained_fails_with_a_reason(task: Task) -> None:
    ours = OnnxEvaluator(task, World(load="server:90000000"), load_prices(), rows=6, seconds=0.0, measure_memory=False)
    with pytest.raises(EvaluationError, match="give a rate of at most"):
        ours.evaluate(task.space.start)


def test_evaluator__stores_an_evaluation_under_its_load(task: Task, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/evaluations.db"
    settings = {"rows": 6, "repeats": 2, "seconds": 0.0, "store": url, "measure_memory": False}
    for load in ("single_stream", "offline:4", "offline:8"):
        ours = OnnxEvaluator(task, World(load=load), load_prices(), **settings)
        assert [ours.evaluate(task.space.start).cached for _ in range(2)] == [False, True]


def test_evaluator__test_split_is_scored_on_its_own_rows(task: Task) -> None:
    ours = evaluator(task, measure_memory=False)
    validation, test = (ours.evaluate(task.space.start, split) for split in ("validation", "test"))
    assert [validation.split, test.split] == ["validation", "test"]
    assert validation.peak_memory_bytes == 0


def test_evaluator__altered_artifact_fails_with_a_reason(task: Task, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(task.directory, copy)
    start, loaded = task.space.start, load_task(copy)
    artifact = copy / str(start.root.operator.artifact)
    artifact.write_bytes(artifact.read_bytes()[:-100])
    with pytest.raises(EvaluationError, match="has sha256"):
        evaluator(loaded).evaluate(start)


def test_evaluator__second_one_reads_the_store_at_its_own_prices(task: Task, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/evaluations.db"
    first = evaluator(task, url).evaluate(task.space.start)
    dear = Prices(tuple(r.model_copy(update={"usd_per_vcpu_hour": 100.0}) for r in load_prices().resources))
    again = evaluator(task, url, dear).evaluate(task.space.start)
    assert again.cached
    assert again.latency_ms_mean == first.latency_ms_mean
    assert again.cost_usd_per_million > 100 * first.cost_usd_per_million
    assert first.measurement is not None
    assert again.measurement is not None
    np.testing.assert_array_equal(again.measurement.samples_ms, first.measurement.samples_ms)
    other = OnnxEvaluator(task, World(), load_prices(), rows=5, repeats=2, seconds=0.0, store=url, measure_memory=False)
    assert not other.evaluate(task.space.start).cached


def test_peak_memory__repeats_and_grows_with_the_artifact(task: Task) -> None:
    x = task.split("clean", "validation").x
    small, large = (c for c in task.space.single_models() if c.root.operator.name in ("logistic", "extra_trees"))
    first, again, more = (peak_memory_bytes(c, task.catalog, x) for c in (small, small, large))
    assert again == pytest.approx(first, rel=0.1)
    assert more > first


def test_peak_memory__tells_why_a_composition_does_not_run(task: Task) -> None:
    with pytest.raises(EvaluationError, match="Invalid"):
        peak_memory_bytes(task.space.start, task.catalog, np.zeros((2, 3), dtype=np.float32))


def test_profile_catalog__fills_profiles_and_nothing_else(task: Task, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(task.directory, copy)
    before = yaml.safe_load((copy / "catalog.yaml").read_text())
    before["operators"] = [entry for entry in before["operators"] if entry["name"] in PROFILED]
    (copy / "catalog.yaml").write_text(yaml.safe_dump(before, sort_keys=False))
    unprofiled = load_task(copy).catalog
    done: list[str] = []
    catalog = profile_catalog(copy, done.append)
    after = yaml.safe_load((copy / "catalog.yaml").read_text())
    assert done == PROFILED[:-1]
    for old, new in zip(before["operators"], after["operators"], strict=True):
        assert old | {"profile": None} == new | {"profile": None}
    assert catalog.sha256 == unprofiled.sha256
    for model in catalog.models:
        profile = model.profile
        assert profile.weights
        assert profile.measured_at
        assert profile.row_deviation is not None
        chain = next(c for c in task.space.single_models() if c.root.operator.name == model.name)
        assert profile.score == pytest.approx(evaluator(task, measure_memory=False).evaluate(chain).score)
    assert [path.name for path in copy.iterdir() if "new" in path.name] == []


def test_evaluator__scores_a_cascade_as_its_plan_answers(task: Task) -> None:
    stages = [single.root for single in task.space.single_models()[1:4]]
    composition = Composition(make_node(task.catalog.of_kind("cascade")[0], stages, {"threshold": 0.9}))
    split = task.split("clean", "validation")
    answers = Plan(composition, SessionPool(task.catalog)).run(split.x).argmax(axis=1)
    found = evaluator(task, measure_memory=False).evaluate(composition)
    assert found.metric == pytest.approx((answers == split.y).mean())
