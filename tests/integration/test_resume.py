"""An interrupted run goes on to the numbers of one that nobody interrupted, and pays for nothing twice."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch

from gnncompose.policies.gine import Gine
from gnncompose.pretraining import interrupted
from gnncompose.pretraining.lessons import Plan
from gnncompose.pretraining.policy_training import PolicyTraining, train_policy
from gnncompose.pretraining.rehearsal import Rehearsing
from gnncompose.pretraining.training import Training, train

SEARCH = Path(__file__).resolve().parents[2] / "experiments" / "search.py"
COMMON = ["reward.latency_scale_ms=1", "reward.cost_scale_usd_per_million=0.05", "tracker=files", "seed=2"]
BUDGET = 10
FIGURES = ["index", "composition_id", "score", "latency_ms_mean", "latency_ms_p50", "cpu_ms", "reward", "best_reward"]


def searched(*arguments: str, **given) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SEARCH), *arguments], capture_output=True, text=True, **given)


def rows_in(folder: Path) -> list[dict]:
    path = folder / "evaluations.parquet"
    return parquet.read_table(path, columns=[*FIGURES, "cached"]).to_pylist() if path.exists() else []


def killed_midway(command: list[str], folder: Path, evaluations: int) -> None:
    """Begin a search and kill it once its file tells so many evaluations."""
    process = subprocess.Popen([sys.executable, str(SEARCH), *command], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(rows_in(folder)) < evaluations:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def killed(digits_directory, tmp_path_factory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("killed") / "run"
    task = ["task=bundle", f"task.path={digits_directory}", "condition=low_contrast_impulse", "evaluator.rows=8"]
    killed_midway([*task, *COMMON, "agent=dqn", f"budget={BUDGET}", f"hydra.run.dir={folder}"], folder, 1)
    return folder, rows_in(folder)


@pytest.mark.slow
def test_resume__takes_what_was_measured_and_measures_the_rest(killed):
    folder, before = killed
    assert not (folder / "run.json").exists()
    done = searched(f"resume={folder}")
    assert done.returncode == 0, done.stderr
    after = rows_in(folder)
    assert len(after) == BUDGET
    assert [{name: row[name] for name in FIGURES} for row in after[: len(before)]] == [
        {name: row[name] for name in FIGURES} for row in before
    ]
    assert all(row["cached"] for row in after[: len(before)])
    assert not after[-1]["cached"]
    assert not list(folder.glob(".evaluations.db*"))


@pytest.mark.slow
def test_resume__refuses_what_is_complete(killed):
    folder, _ = killed
    before = (folder / "run.json").read_bytes()
    done = searched(f"resume={folder}")
    assert (done.returncode, "holds a complete run" in done.stderr) == (2, True)
    assert (folder / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["resume=nowhere"], "there is no such folder"),
        (["resume=."], "config.yaml is missing"),
        (["resume=nowhere", "seed=4"], "leave out seed=4"),
    ],
)
def test_resume__says_what_is_wrong(arguments, told, tmp_path):
    done = searched(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert told in done.stderr
    assert not list(tmp_path.iterdir())


def test_resume__names_the_command_that_goes_on(tmp_path):
    (tmp_path / ".hydra").mkdir()
    for name in ("config", "overrides"):
        (tmp_path / ".hydra" / f"{name}.yaml").write_text("{}")
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra: {job: {name: train_policy}, runtime: {cwd: /}}")
    done = searched(f"resume={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.endswith("is a run of another command; gnncompose train-policy goes on with it\n")
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra: [")
    done = searched(f"resume={tmp_path}")
    assert "is damaged (ParserError)" in done.stderr


def test_resume__refuses_settings_that_have_changed_since(tmp_path):
    table = ["task=recorded", "task.name=series_gun_point", "evaluator=table", "agent=random", "budget=5", *COMMON[2:]]
    folder = tmp_path / "run"
    assert searched(*table, f"hydra.run.dir={folder}").returncode == 0
    (folder / "run.json").unlink()
    config = folder / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("threads: 1", "threads: 2"))
    before = config.read_text()
    done = searched(f"resume={folder}")
    assert (done.returncode, "threads is another now" in done.stderr) == (2, True)
    assert config.read_text() == before


@pytest.mark.slow
def test_resume__a_search_of_a_table_comes_out_bit_for_bit(tmp_path):
    table = ["task=recorded", "task.name=series_gun_point", "evaluator=table", "agent=ppo", "budget=60", *COMMON[2:]]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert searched(*table, f"hydra.run.dir={whole}").returncode == 0
    killed_midway([*table, f"hydra.run.dir={broken}"], broken, 1)
    assert searched(f"resume={broken}").returncode == 0
    assert rows_in(broken) == rows_in(whole)
    one, two = (json.loads((folder / "run.json").read_text())["summary"] for folder in (whole, broken))
    assert one == two


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = folder.glob("*.pt")
    return torch.load(path, weights_only=True)["weights"]


def surrogate(folder: Path) -> None:
    tables, plan = ["series_gun_point", "series_acsf1"], Plan(size=8, compositions=60)
    train(folder, tables, tables[1:], [], Gine(8, 1), plan, Training(steps=12, lessons=2), seed=1)


def policy(folder: Path) -> None:
    tables, plan = ["series_gun_point", "series_acsf1"], Rehearsing(environments=16, horizon=3)
    train_policy(folder, tables, tables[1:], Gine(8, 1), plan, PolicyTraining(rehearsals=12), seed=1, history=4)


@pytest.mark.parametrize("training", [surrogate, policy])
def test_resume__a_training_comes_out_bit_for_bit(training, tmp_path, monkeypatch):
    monkeypatch.setattr(interrupted, "EVERY_S", 0.0)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    training(whole)
    offered, offer = [], interrupted.Checkpoint.offer

    def until_interrupted(self, state):
        offer(self, state)
        offered.append(state)
        if len(offered) in (5, 9):
            raise KeyboardInterrupt

    monkeypatch.setattr(interrupted.Checkpoint, "offer", until_interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            training(broken)
    training(broken)
    assert len(offered) == 12
    found = weights_in(broken)
    assert all(torch.equal(tensor, found[name]) for name, tensor in weights_in(whole).items())
    one, two = (json.loads((folder / "card.json").read_text())["curve"] for folder in (whole, broken))
    assert one == two
    assert {path.name for path in broken.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.parametrize("training", [surrogate, policy])
def test_resume__ctrl_c_loses_nothing_of_a_training(training, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    training(whole)
    offered, offer, former = [], interrupted.Checkpoint.offer, signal.getsignal(signal.SIGINT)

    def interrupting(self, state):
        offered.append(state)
        if len(offered) == 5:
            signal.raise_signal(signal.SIGINT)
        offer(self, state)

    monkeypatch.setattr(interrupted.Checkpoint, "offer", interrupting)
    with pytest.raises(KeyboardInterrupt):
        training(broken)
    assert signal.getsignal(signal.SIGINT) is former
    training(broken)
    assert len(offered) == 12
    one, two = (json.loads((folder / "card.json").read_text())["curve"] for folder in (whole, broken))
    assert one == two


def test_resume__a_second_ctrl_c_ends_a_training_at_once(tmp_path):
    with interrupted.Checkpoint(tmp_path).heeding():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert list(tmp_path.iterdir()) == []


INTERRUPTED_TRAINING = """
import runpy, sys
from gnncompose.pretraining import interrupted

interrupted.EVERY_S, offer = 0.0, interrupted.Checkpoint.offer

def interrupting(self, state):
    offer(self, state)
    raise KeyboardInterrupt

interrupted.Checkpoint.offer = interrupting
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_resume__an_interrupted_training_says_how_to_go_on(tmp_path: Path) -> None:
    app = str(SEARCH.with_name("train.py"))
    command = [sys.executable, "-c", INTERRUPTED_TRAINING, app, "tables=[series_gun_point]", "plan.compositions=60"]
    command += ["plan.size=8", "tracker=files", f"hydra.run.dir={tmp_path / 'run'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == f"error: interrupted; resume={tmp_path / 'run'} goes on"
