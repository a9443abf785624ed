"""The engine of a replica: it serves what it is told to on real artifacts, and refuses without harm."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from deploying import alone, answers, bright, odd_bundle

from gnncompose.composition.files import composition_to_json
from gnncompose.deployment.engine import Settings
from gnncompose.deployment.follower import Follower, Target, Trying
from gnncompose.deployment.history import Deployment, DeploymentError
from gnncompose.deployment.replicas import Scale, set_up_ray
from gnncompose.deployment.served import Bounds
from gnncompose.execution.worker import Limits
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task

SETTINGS = Settings(Bounds(least=5), Limits(memory_bytes=1 << 30, timeout_s=20.0))


@pytest.fixture(scope="module")
def task(digits_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Task:
    return load_task(odd_bundle(digits_directory, tmp_path_factory.mktemp("odd")))


@pytest.fixture
def follower(task: Task):
    made = Follower(task, SETTINGS)
    made.follow(Target(1, deployment(task, "logistic", 1)))
    yield made
    made.close()


@pytest.fixture(scope="module")
def rows(task: Task) -> np.ndarray:
    return task.split("clean", "test").x[:20]


def deployment(task: Task, name: str, version: int) -> Deployment:
    return Deployment(version, composition_to_json(alone(task, name)), "", "")


def test_follow__serves_what_was_prepared(follower: Follower, task: Task, rows: np.ndarray):
    follower.prepare(deployment(task, "mlp", 2))
    assert follower.answer(rows).version == 1
    follower.follow(Target(2, deployment(task, "mlp", 2), deployment(task, "logistic", 1)))
    found = follower.answer(rows)
    assert found.version == 2
    np.testing.assert_allclose(found.y, answers(task, alone(task, "mlp"), rows), atol=1e-5)
    assert follower.report().number == 2


def test_follow__loads_what_it_never_prepared(follower: Follower, task: Task, rows: np.ndarray):
    follower.follow(Target(5, deployment(task, "tree", 7), deployment(task, "mlp", 4)))
    assert follower.answer(rows).version == 7


@pytest.mark.parametrize("name", ["not_finite", "mixing"])
def test_follower__goes_on_where_a_deployment_is_refused(follower: Follower, task: Task, rows: np.ndarray, name: str):
    bad = deployment(task, name, 2)
    with pytest.raises(DeploymentError, match="refused"):
        follower.prepare(bad)
    with pytest.raises(DeploymentError, match="refused"):
        follower.follow(Target(2, bad, deployment(task, "logistic", 1)))
    assert follower.answer(rows).version == 1
    assert follower.report().number == 1


def test_follow__goes_without_a_spare_that_does_not_load(follower: Follower, task: Task, rows: np.ndarray):
    target = Target(2, deployment(task, "mlp", 3), deployment(task, "mixing", 2))
    follower.follow(target)
    assert follower.answer(rows).version == 3
    assert follower.status()["before"] is None


def test_follow__goes_on_comparing_where_the_trial_is_the_same(follower: Follower, task: Task, rows: np.ndarray):
    live, trying = deployment(task, "logistic", 1), Trying(deployment(task, "tree", 2), "shadow", 1.0)
    follower.follow(Target(2, live, None, trying))
    comparison = follower._tried.comparison
    follower.follow(Target(3, live, None, trying))
    assert follower._tried.comparison is comparison
    follower.follow(Target(4, live, None, trying._replace(how="canary")))
    assert follower.answer(rows).version == 2
    follower.follow(Target(5, live))
    assert follower.answer(rows).version == 1


def test_follower__complains_and_leaves_it_to_the_front_what_to_do(follower: Follower, task: Task, rows: np.ndarray):
    follower.follow(Target(2, deployment(task, "dazzled", 2), deployment(task, "logistic", 1)))
    for _ in range(10):
        assert follower.answer(bright(rows[:1])).version == 1
    follower.check()
    assert follower.answer(rows).version == 2
    assert "failed" in follower.report().complaints[2]


def test_reload__reads_the_catalog_again(task: Task, tmp_path: Path):
    directory = tmp_path / "digits"
    shutil.copytree(task.directory, directory)
    made = Follower(load_task(directory), SETTINGS)
    (directory / "catalog.yaml").write_text((directory / "catalog.yaml").read_text().replace("name: tree", "name: oak"))
    made.reload()
    made.follow(Target(1, deployment(made.task, "oak", 1)))
    assert made.live.version == 1
    made.close()


@pytest.mark.parametrize(("text", "least", "most"), [("1", 1, 1), ("2", 2, 2), ("1:4", 1, 4)])
def test_scale__reads_a_number_or_a_range(text: str, least: int, most: int):
    assert Scale.read(text, 2) == Scale(least, most, 2)


@pytest.mark.parametrize("text", ["", "0", "-1", "two", "4:1", "1:", ":", "1:2:3", "1.5"])
def test_scale__refuses_what_is_neither(text: str):
    with pytest.raises(DeploymentError, match="--replicas"):
        Scale.read(text, 2)


def test_set_up_ray__says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DeploymentError, match=r"gnncompose\[ray\]"):
        set_up_ray()
