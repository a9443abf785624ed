"""`evaluator=ray` on a real Ray of this machine: workers in processes of their own, some of which are killed."""

import dataclasses
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile_kernels  # noqa: F401 - enters its cases
import numpy as np
import pyarrow.parquet as parquet
import pytest
import sqlalchemy as sql
import yaml
from hostile_models import CASES
from postgres import PostgresServer

from gnncompose.agents.agent import search
from gnncompose.agents.random import Random
from gnncompose.composition.tree import Composition
from gnncompose.errors import ClusterError, EvaluationError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.evaluation import Budget
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.evaluation.ray import RayEvaluator
from gnncompose.evaluation.ray_worker import Failure, Post, Ready, Worker, packed
from gnncompose.evaluation.store import EvaluationStore
from gnncompose.evaluation.store.schema import EVALUATIONS
from gnncompose.reward import WeightedSum
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task, World

if importlib.util.find_spec("ray") is None:  # not imported yet: it reads settings when it is
    pytest.skip("needs the extra ray", allow_module_level=True)
ROOT = Path(__file__).resolve().parents[2]
PRICES = load_prices()
QUICK = {"rows": 8, "repeats": 3, "seconds": 0.0, "measure_memory": False}
LONG = {**QUICK, "rows": 64, "repeats": 120}  # seconds of timing, so that a worker can be killed in the midst
KILLER = "recurrent_network_on_no_rows"
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def task(digits_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Task]:
    """Digits with one more model, which ends the process that runs it; all artifacts are trusted, so that one does."""
    bundle = tmp_path_factory.mktemp("bundle") / "digits"
    shutil.copytree(digits_directory, bundle)
    content = CASES[KILLER]()
    content = content if isinstance(content, bytes) else content.SerializeToString()
    (bundle / "operators" / "killer.onnx").write_bytes(content)
    catalog = yaml.safe_load((bundle / "catalog.yaml").read_text())
    entry = next(operator for operator in catalog["operators"] if operator["name"] == "logistic")
    killer = {"name": "killer", "artifact": "operators/killer.onnx", "sha256": hashlib.sha256(content).hexdigest()}
    catalog["operators"].append({**entry, **killer, "profile": {}})
    (bundle / "catalog.yaml").write_text(yaml.safe_dump(catalog, sort_keys=False))
    made = load_task(bundle)
    trust = bundle.with_name("trusted.txt")
    trust.write_text("".join(f"{o.sha256}  test\n" for o in made.catalog.operators if o.sha256))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNNCOMPOSE_TRUST", str(trust))
        yield made
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()


@pytest.fixture
def evaluators(task: Task) -> Iterator[Callable[..., RayEvaluator]]:
    made: list[RayEvaluator] = []

    def make(**settings: object) -> RayEvaluator:
        made.append(RayEvaluator(task, World(), PRICES, **{**QUICK, **settings}))
        return made[-1]

    yield make
    for evaluator in made:
        evaluator.let_go()


def drawn(task: Task, count: int) -> list[Composition]:
    generator, found = np.random.default_rng(5), dict[str, Composition]()
    while len(found) < count:
        composition = task.space.random(generator, 4)
        if all(node.operator.name != "killer" for node in composition.nodes):
            found[composition.id] = composition
    return list(found.values())


def single(task: Task, name: str) -> Composition:
    return next(one for one in task.space.single_models() if one.root.operator.name == name)


def rows(url: str) -> list[dict]:
    with EvaluationStore(url) as store, store.engine.connect() as connection:
        return [dict(row) for row in connection.execute(sql.select(EVALUATIONS)).mappings()]


def cpu_s(pid: int) -> float:
    """CPU time of a process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# A worker, without Ray


def worker(task: Task, **changes: object) -> Worker:
    post = Post(task.directory, task.catalog.sha256, World(), PRICES, QUICK)
    return Worker(dataclasses.replace(post, **changes))


def test_worker__measures_from_a_bundle_that_was_sent(task: Task, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GNNCOMPOSE_CACHE", str(tmp_path / "cache"))
    one, start = worker(task, directory=tmp_path / "elsewhere"), task.space.start
    said = one.take_up()
    assert isinstance(said, Ready)
    assert not said.has_bundle
    assert packed(task) == packed(task)
    for _ in range(2):  # the second finds what the first unpacked
        said = one.take_up(packed(task))
        assert isinstance(said, Ready)
        assert said.has_bundle
    found = one.run(start, "validation", task.split("clean", "validation").sha256)
    assert not isinstance(found, Failure)
    assert found.score == OnnxEvaluator(task, World(), PRICES, **QUICK).evaluate(start).score
    (sent,) = (tmp_path / "cache" / "sent").iterdir()
    assert {path.name for path in sent.iterdir()} == {"task.yaml", "catalog.yaml", "operators", "data"}


def test_worker__refuses_another_catalog_and_other_data(task: Task) -> None:
    said = worker(task, catalog_sha256="0" * 64).take_up()
    assert isinstance(said, Failure)
    assert all(word in str(said.problem) for word in ("catalog.yaml", task.catalog.sha256[:12], "copy the bundle"))
    one = worker(task)
    one.take_up()
    answer = one.run(task.space.start, "test", "0" * 64)
    assert isinstance(answer, Failure)
    assert isinstance(answer.problem, ClusterError)
    assert "data/clean/test.npz" in str(answer.problem)


def test_ray_evaluator__refuses_numbers_that_make_no_sense(evaluators) -> None:
    for settings in ({"workers": 0}, {"retries": -1}):
        with pytest.raises(ClusterError, match="give 1 or more workers"):
            evaluators(**settings)


def test_ray_evaluator__says_how_to_get_ray(evaluators, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    with pytest.raises(ClusterError, match=r"pip install 'gnncompose\[ray\]'"):
        evaluators().evaluate(drawn_start := evaluators().task.space.start)
    assert drawn_start is not None


# On Ray


@pytest.mark.slow
def test_ray_evaluator__measures_as_onnx_does_and_two_at_once(task: Task, evaluators, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/evaluations.db"
    compositions, onnx = drawn(task, 4), OnnxEvaluator(task, World(), PRICES, **{**QUICK, "repeats": 400})
    evaluator = evaluators(store=url, repeats=400)
    evaluator.foresee(compositions)
    assert evaluator.protocol == onnx.protocol
    ratios = []
    for composition in compositions:
        found, due = evaluator.evaluate(composition), onnx.evaluate(composition)
        assert (found.score, found.metric, found.artifact_bytes) == (due.score, due.metric, due.artifact_bytes)
        assert (found.evaluator, found.cached) == ("onnx", False)
        ratios.append(found.latency_ms_mean / due.latency_ms_mean)
    assert 0.7 < np.median(ratios) < 1.4, ratios
    kept = rows(url)
    assert sorted(row["composition_id"] for row in kept) == sorted(c.id for c in compositions)
    assert all("cores: " in row["hardware"] and row["versions"] for row in kept)
    again = evaluators(store=url)  # another run, which needs no worker for these
    assert again._crew is None
    with pytest.raises(ClusterError):
        evaluators(workers=1000).evaluate(single(task, "tree"))


@pytest.mark.slow
def test_ray_evaluator__survives_workers_that_are_killed(task: Task, evaluators, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/evaluations.db"
    reward = WeightedSum(latency_scale_ms=1, cost_scale_usd_per_million=1).bind(task.catalog, PRICES, World())
    evaluator, compositions = evaluators(store=url, **LONG), drawn(task, 4)
    told: list[int] = []
    budget = Budget(evaluator, reward, 4, lambda trial: told.append(trial.index))
    evaluator.foresee(compositions[:2])
    wait_until(lambda: len(evaluator._handles) == 2)
    first = evaluator.processes()  # answered before, or between, evaluations
    assert len(set(first)) == 2
    budget.foresee(compositions)
    asking = threading.Thread(target=lambda: [budget.evaluate(composition) for composition in compositions])
    asking.start()
    before = [cpu_s(pid) for pid in first]
    wait_until(lambda: all(cpu_s(pid) - was > 0.1 for pid, was in zip(first, before, strict=True)))  # both run
    os.kill(first[0], signal.SIGKILL)
    asking.join(PATIENCE_S)
    assert not asking.is_alive()
    assert (budget.spent, told) == (4, [1, 2, 3, 4])
    assert all(trial.failure is None for trial in budget.trials)
    assert sorted(row["composition_id"] for row in rows(url)) == sorted(c.id for c in compositions)
    assert set(evaluator.processes()) & set(first) == {first[1]}
    onnx = OnnxEvaluator(task, World(), PRICES, **QUICK)
    scores = [trial.evaluation.score for trial in budget.trials if trial.evaluation]
    assert scores == [onnx.evaluate(composition).score for composition in compositions]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_ray_evaluator__what_kills_its_workers_fails_alone(task: Task, evaluators, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/evaluations.db"
    evaluator, killer, sound = evaluators(store=url, retries=1), single(task, "killer"), single(task, "tree")
    assert evaluator.isolation.is_trusted(killer)
    evaluator.foresee([killer, sound])
    with pytest.raises(EvaluationError, match=r"killer\(input\) ended 2 workers that it was asked of"):
        evaluator.evaluate(killer)
    assert evaluator.evaluate(sound).score > 0.5
    assert [row["composition_id"] for row in rows(url)] == [sound.id]  # what was lost may run another time


@pytest.mark.slow
def test_ray_evaluator__two_searches_share_a_store_of_postgresql(
    task: Task, evaluators, server: PostgresServer
) -> None:
    url = server.new_database()
    reward = WeightedSum(latency_scale_ms=1, cost_scale_usd_per_million=1).bind(task.catalog, PRICES, World())
    runs, crews = [], []
    for _ in range(2):
        evaluator = evaluators(store=url)
        budget = Budget(evaluator, reward, 6)
        search(Random(), task.space, budget, np.random.default_rng(2))
        runs.append(budget)
        crews.append(evaluator._crew)
        evaluator.let_go()
    first, second = runs
    assert first.spent == second.spent == 6  # what another run paid for is charged, too
    measured = [trial.evaluation for trial in second.trials if trial.evaluation]
    assert all(evaluation.cached for evaluation in measured)
    assert crews[1] is None  # no worker was started
    assert [e.latency_ms_mean for e in measured] == [t.evaluation.latency_ms_mean for t in first.trials if t.evaluation]
    ids = [row["composition_id"] for row in rows(url)]
    assert len(ids) == len(set(ids)) >= 6


@pytest.mark.slow
def test_search__runs_on_ray_quietly_and_leaves_no_process(digits_directory: Path, tmp_path: Path) -> None:
    words = ["task=bundle", f"task.path={digits_directory}", "agent=random", "evaluator=ray", "budget=4"]
    words += ["evaluator.rows=4", "evaluator.seconds=0", "evaluator.measure_memory=false", "tracker=files"]
    words += ["reward.latency_scale_ms=1", "reward.cost_scale_usd_per_million=0.05", f"hydra.run.dir={tmp_path}/run"]
    command = [sys.executable, str(ROOT / "experiments" / "search.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    noise = [line for line in done.stderr.splitlines() if line and "digits/clean" not in line]
    assert noise == []
    assert "ray" not in done.stdout.replace(str(tmp_path), "").lower()
    table = parquet.read_table(tmp_path / "run" / "evaluations.parquet").to_pylist()
    assert [row["index"] for row in table] == [1, 2, 3, 4]
    assert {row["evaluator"] for row in table} == {"onnx"}
    assert not list((tmp_path / "run").glob(".evaluations.db*"))
    refused = subprocess.run(
        [*command[:-1], "evaluator.address=127.0.0.1:1", f"hydra.run.dir={tmp_path}/other"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "error: no Ray on 127.0.0.1:1" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_ray_evaluator__starts_a_second_ray_after_a_first_one_was_shut_down(task: Task, evaluators) -> None:
    for name in ("logistic", "tree"):
        evaluator = evaluators(workers=1)
        assert evaluator.evaluate(single(task, name)).score > 0.5
        evaluator.let_go()
        sys.modules["ray"].shutdown()
