"""The deployment engine on real artifacts: what may go live, what may not, and what happens when it does badly."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from deploying import ODD, alone, answers, bright, joined, odd_bundle

from gnncompose.composition.tree import Composition, Input, make_node
from gnncompose.deployment.engine import Engine, Settings
from gnncompose.deployment.history import DeploymentError, History
from gnncompose.deployment.served import Bounds
from gnncompose.errors import EvaluationError
from gnncompose.execution.worker import Limits
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task

LIMITS = Limits(memory_bytes=1 << 30, timeout_s=20.0)


@pytest.fixture(scope="module")
def task(digits_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Task:
    return load_task(odd_bundle(digits_directory, tmp_path_factory.mktemp("odd")))


@pytest.fixture
def engine(task: Task, tmp_path: Path):
    made = Engine(task, History(tmp_path), Settings(Bounds(least=5), LIMITS))
    made.start(alone(task, "logistic"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def rows(task: Task) -> np.ndarray:
    return task.split("clean", "test").x[:20]


def what_happened(engine: Engine) -> list[tuple[int, str]]:
    return [(event.version, event.what) for event in reversed(engine.history.events())]


def wait_until(true, patience_s: float = 20.0) -> None:
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_engine__answers_what_the_composition_answers(engine: Engine, task: Task, rows: np.ndarray):
    found = engine.answer(rows)
    assert found.version == 1
    np.testing.assert_allclose(found.y.sum(axis=1), 1.0, atol=1e-5)
    deployment = engine.deploy(joined(task, "cascade", "tree", "mlp"), "better")
    after = engine.answer(rows)
    assert after.version == deployment.version == 2
    assert not np.allclose(after.y, found.y)
    assert what_happened(engine) == [(1, "live"), (2, "live")]


@pytest.mark.parametrize("name", [name for name in ODD if name != "dazzled"])
def test_deploy__refuses_what_does_badly_aside(engine: Engine, task: Task, rows: np.ndarray, name: str):
    before = engine.answer(rows)
    with pytest.raises(DeploymentError, match="refused"):
        engine.deploy(alone(task, name), "hope")
    after = engine.answer(rows)
    assert after.version == before.version == 1
    np.testing.assert_array_equal(after.y, before.y)
    assert what_happened(engine)[-1] == (2, "refused")


def test_deploy__refuses_an_altered_artifact(engine: Engine, digits_directory: Path, tmp_path: Path, rows: np.ndarray):
    task = load_task(odd_bundle(digits_directory, tmp_path))
    altered = Engine(task, History(tmp_path / "history"), Settings(limits=LIMITS))
    altered.start(alone(task, "logistic"))
    path = task.directory / "operators" / "tree.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DeploymentError, match=r"refused.*tree"):
        altered.deploy(alone(task, "tree"), "hope")
    assert altered.answer(rows).version == 1
    altered.close()


def test_deploy__refuses_what_takes_longer_than_its_bound(task: Task, tmp_path: Path):
    engine = Engine(task, History(tmp_path), Settings(Bounds(latency_ms=1e-6), LIMITS))
    with pytest.raises(DeploymentError, match="over the bound of 1e-06 ms"):
        engine.start(alone(task, "logistic"))
    engine.close()


def test_answer__falls_back_and_rolls_back_where_the_live_one_fails(engine: Engine, task: Task, rows: np.ndarray):
    engine.deploy(alone(task, "dazzled"), "it passes")
    assert engine.answer(rows).version == 2
    glare = bright(rows)
    for _ in range(5):
        found = engine.answer(glare[:1])  # answered all the same
        assert found.version == 1
    wait_until(lambda: engine.live.version == 1)
    assert what_happened(engine)[-2:] == [(2, "rolled_back"), (1, "live")]
    assert engine.answer(glare).version == 1


def test_answer__holds_rows_that_nothing_answers_against_nobody(engine: Engine, task: Task, rows: np.ndarray):
    engine.deploy(alone(task, "dazzled"), "second")
    engine.deploy(joined(task, "mean", "dazzled", "mlp"), "third")
    for _ in range(30):
        with pytest.raises(EvaluationError, match="finite"):
            engine.answer(bright(rows[:1]))
    engine.check()
    assert engine.live.version == 3


UNLIKE = {"missing": (np.nan, "missing number"), "infinite": (np.inf, "inf at"), "huge": (3e38, r"3e\+38 at")}


@pytest.mark.parametrize(("value", "told"), UNLIKE.values(), ids=UNLIKE)
@pytest.mark.parametrize(("live", "before"), [("cnn", "forest"), ("forest", "cnn")])
def test_answer__holds_rows_unlike_the_data_against_nobody(
    engine: Engine, task: Task, rows: np.ndarray, live: str, before: str, value: float, told: str
):
    engine.deploy(alone(task, before), "first")
    engine.deploy(alone(task, live), "better")
    strange = rows[:1].copy()
    strange[0, 0, 3, 4] = value
    for _ in range(10):
        if live == "forest":  # it knows an answer to anything
            assert engine.answer(strange).version == 3
        else:
            with pytest.raises(EvaluationError, match=rf"version 3 gives no answer: row 0 .*{told}.*\[0, 3, 4\].*send"):
                engine.answer(strange)
    engine.check()
    assert engine.live.version == 3
    assert "rolled_back" not in [what for _, what in what_happened(engine)]
    assert engine.answer(rows).version == 3


@pytest.mark.parametrize("how", ["shadow", "canary"])
def test_try_out__holds_rows_unlike_the_data_against_nobody(engine: Engine, task: Task, rows: np.ndarray, how: str):
    engine.deploy(alone(task, "forest"), "it answers anything")
    engine.try_out(alone(task, "cnn"), "maybe", how, 1.0)
    for _ in range(10):
        assert engine.answer(np.full_like(rows[:1], np.nan)).version == 2
    assert how == "canary" or wait_until(lambda: engine.status()["tried"]["skipped"] == 10) is None
    engine.check()
    tried = engine.status()["tried"]
    assert (tried["version"], tried["failed"]) == (3, 0)


def test_roll_back__goes_back_step_by_step(engine: Engine, task: Task, rows: np.ndarray):
    engine.deploy(alone(task, "tree"), "second")
    engine.deploy(alone(task, "mlp"), "third")
    assert engine.roll_back() == 2
    assert engine.answer(rows).version == 2
    assert engine.roll_back() == 1
    assert engine.answer(rows).version == 1
    with pytest.raises(DeploymentError, match="no good deployment"):
        engine.roll_back()
    assert engine.answer(rows).version == 1


def test_start__goes_on_with_what_was_live(engine: Engine, task: Task, rows: np.ndarray, tmp_path: Path):
    engine.deploy(alone(task, "tree"), "second")
    told = engine.answer(rows)
    engine.close()
    again = Engine(task, History(tmp_path), Settings(limits=LIMITS))
    again.start()
    found = again.answer(rows)
    assert found.version == told.version == 2
    np.testing.assert_array_equal(found.y, told.y)
    again.close()


def test_start__takes_the_last_good_one_where_the_live_one_does_not_load(digits_directory: Path, tmp_path: Path):
    task = load_task(odd_bundle(digits_directory, tmp_path))
    engine = Engine(task, History(tmp_path / "history"), Settings(limits=LIMITS))
    engine.start(alone(task, "logistic"))
    engine.deploy(alone(task, "tree"), "second")
    engine.close()
    catalog = yaml.safe_load((task.directory / "catalog.yaml").read_text())
    catalog["operators"] = [entry for entry in catalog["operators"] if entry["name"] != "tree"]
    (task.directory / "catalog.yaml").write_text(yaml.safe_dump(catalog))
    again = Engine(load_task(task.directory), History(tmp_path / "history"), Settings(limits=LIMITS))
    again.start()
    assert again.live.version == 1
    again.close()


def test_start__says_that_there_is_nothing(task: Task, tmp_path: Path):
    engine = Engine(task, History(tmp_path))
    with pytest.raises(DeploymentError, match="give a composition"):
        engine.start()
    engine.close()


def test_history__belongs_to_one_server(engine: Engine, tmp_path: Path):
    with pytest.raises(DeploymentError, match="--state"):
        History(tmp_path)


def test_shadow__compares_and_never_answers(engine: Engine, task: Task, rows: np.ndarray):
    engine.try_out(alone(task, "tree"), "maybe", "shadow", 0.5)
    for _ in range(20):
        assert engine.answer(rows).version == 1
    wait_until(lambda: engine.status()["tried"]["mirrored"] + engine.status()["tried"]["skipped"] == 10)
    tried = engine.status()["tried"]
    agreeing = np.mean(
        engine.answer(rows).y.argmax(axis=1)
        == answers(task, alone(task, "tree"), rows).argmax(axis=1)  # by another way
    )
    assert tried["agreement"] == pytest.approx(agreeing, abs=1e-3)
    assert engine.promote() == 2
    assert engine.answer(rows).version == 2


def test_deploy__says_what_it_ended(engine: Engine, task: Task):
    assert engine.deploy(alone(task, "mlp"), "second").ended is None
    engine.try_out(alone(task, "tree"), "maybe", "canary", 0.5)
    assert engine.deploy(alone(task, "forest"), "at once").ended == "the canary of version 3"
    (end,) = [event for event in engine.history.events() if event.what == "aborted"]
    assert (end.version, end.detail) == (3, "its canary ended: version 4 was deployed instead")


def test_canary__answers_its_share(engine: Engine, task: Task, rows: np.ndarray):
    engine.try_out(alone(task, "tree"), "maybe", "canary", 0.25)
    versions = [engine.answer(rows).version for _ in range(40)]
    assert versions.count(2) == 10
    assert engine.abort("enough") == 2
    assert {engine.answer(rows).version for _ in range(8)} == {1}
    assert what_happened(engine)[-2:] == [(2, "canary"), (2, "aborted")]


def test_canary__ends_by_itself_where_it_fails(engine: Engine, task: Task, rows: np.ndarray):
    engine.try_out(alone(task, "dazzled"), "maybe", "canary", 1.0)
    for _ in range(6):
        assert engine.answer(bright(rows[:1])).version == 1
    wait_until(lambda: engine.status()["tried"] is None)
    assert what_happened(engine)[-1] == (2, "aborted")


@pytest.mark.parametrize(("how", "share"), [("shadow", 0.0), ("canary", 1.5), ("swap", 0.5)])
def test_try_out__refuses_what_makes_no_sense(engine: Engine, task: Task, how: str, share: float):
    with pytest.raises(DeploymentError, match=r"how|share"):
        engine.try_out(alone(task, "tree"), "maybe", how, share)  # type: ignore[arg-type]


def test_deploy__swaps_while_requests_are_answered(engine: Engine, task: Task, rows: np.ndarray):
    """Every answer is one of the compositions', whole, and none is lost."""
    names = ["logistic", "tree", "mlp"]
    due = [answers(task, alone(task, name), rows) for name in names]
    wrong: list[object] = []
    answered = [0] * 3
    ended = threading.Event()

    def ask(number: int) -> None:
        while not ended.is_set():
            try:
                found = engine.answer(rows).y
            except Exception as problem:
                wrong.append(problem)
                return
            answered[number] += 1
            if not any(np.allclose(found, one, atol=1e-5) for one in due):
                wrong.append(found)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    swaps = 0
    for number in range(9):
        engine.deploy(alone(task, names[number % 3]), "again")
        swaps += 1
        if number % 3 == 2:
            with pytest.raises(DeploymentError):
                engine.deploy(alone(task, "not_finite"), "hope")
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert min(answered) > swaps


def test_deploy__refuses_another_output(engine: Engine, task: Task):
    transform = task.catalog.of_kind("transform")[0]
    half = Composition(make_node(transform, [Input(task.input.type)]))
    with pytest.raises(DeploymentError, match="refused"):
        engine.deploy(half, "hope")
