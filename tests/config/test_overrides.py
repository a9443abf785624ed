import subprocess
import sys
from pathlib import Path

import pytest
from recorded import recorded

from gnncompose.errors import GnncomposeError
from gnncompose.launch import set_threads

SEARCH = Path(__file__).resolve().parents[2] / "experiments" / "search.py"
MISTAKES = {
    "agnt=dqn": "agnt: there is no such setting; did you mean agent?",
    "budgett=3": "budgett: there is no such setting; did you mean budget",
    "agent=dqnn": "agent=dqnn: there is no such agent; did you mean dqn?",
    "agent.learning_ratee=1": "agent.learning_ratee: there is no such setting; did you mean agent.learning_rate",
    "+foo=1": "foo: there is no such setting",
    "foo.bar=1": "foo.bar: there is no such setting; there are agent, budget",
    "checkpoint=a.pt": "checkpoint: there is no such setting; did you mean agent.checkpoint?",
    "agent.patience=3": "agent.patience: is a setting of agent=local_search only; choose that",
    "encoder=gatv2": "encoder: is no group of its own here; write +encoder@agent.encoder=NAME",
    "experiment=demo": "experiment: is no setting but a file of settings; write +experiment=NAME",
    "+reward.foo=1": "unexpected keyword argument 'foo'",
    "budget=abc": "budget=abc: is no whole number",
    "budget=0": "budget=0: is no whole number from 1 up",
    "bogus": "bogus: is no override; write key=value",
    "task=bundle": "task.path: is needed; give task.path=VALUE",
    "task=wine": "task=wine: there is no such task; for a bundle of your own give task=bundle task.path=wine; there",
    "task=../wine": "task=../wine: there is no such task; for a bundle of your own give task=bundle task.path=../wine",
    "task=digit": "task=digit: there is no such task; for a bundle of your own give task=bundle task.path=digit; did",
    "+experiment=dem": "experiment=dem: there is no such experiment; did you mean demo?",
    "tracker.mode=ofline": "tracker.mode=ofline: there is no such mode",
    "start=anywhere": "start=anywhere: there is no such start; choose one of shortest, random",
    "condition=fog": 'no condition "fog"',
    "resource=moon": 'no resource "moon"',
    "agent=elite": "agent=elite: there is no such agent; there are a2c, bananas",
    "agent._target_=gnncompose.agents.random.Elite": "agent._target_=gnncompose.agents.random.Elite: is not to be",
    "agent.encoder=gatv2": "agent.encoder=gatv2: is a text; write +encoder@agent.encoder=gatv2",
    "reward.latency=abc": "reward.latency=abc: is no number from 0 up",
    "evaluator.repeats=0": "evaluator.repeats=0: is no whole number from 1 up",
    "--budget=5": "--budget=5: is no option; settings are written budget=VALUE",
    "load=flood": 'no load "flood"',
    "load=server:0": 'load "server:0": the rate is a number of rows per second over 0',
}


def run(directory: Path, *overrides: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SEARCH), *overrides]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("override", MISTAKES)
def test_search__answers_a_mistake_with_one_line_and_writes_nothing(
    override: str, tmp_path: Path, digits_directory: Path
) -> None:
    task = [] if override.startswith("task=") else ["task=bundle", f"task.path={digits_directory}"]
    done = run(tmp_path, *task, override)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert MISTAKES[override] in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("left_out=letter", "left_out=letter: is no list; write left_out=[letter]"),
        ("steps=3", "steps: there is no such setting; did you mean training.steps?"),
        ("plan.sze=3", "plan.sze: there is no such setting; did you mean plan.size"),
        ("encoder=gatv2", "encoder: is no group of its own here; write +encoder@encoder=NAME"),
    ],
)
def test_explain__names_where_a_setting_of_a_training_stands(override: str, line: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SEARCH.with_name("train.py")), override],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {line}")
    assert list(tmp_path.iterdir()) == []


def test_search__needs_a_folder_for_its_run(tmp_path: Path, digits_directory: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    done = run(tmp_path, "task=bundle", f"task.path={digits_directory}", "hydra.run.dir=taken")
    assert done.returncode == 2
    assert done.stderr.endswith("taken: is no folder, so no run can go there; give another as hydra.run.dir\n")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("override", ["agent=dqn,dqnn", "agnt=dqn,random"])
def test_search__writes_nothing_where_a_sweep_names_what_does_not_exist(override: str, tmp_path: Path) -> None:
    done = run(tmp_path, "-m", override)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threads", [0, -1, "two", 1.5])
def test_set_threads__refuses_what_is_no_count(threads: object) -> None:
    with pytest.raises(GnncomposeError, match="is no whole number from 1 up"):
        set_threads(threads)


TABLE = ["task=recorded", "task.name=digits", "evaluator=table", "tracker=files", "agent=local_search", "budget=5"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["--help"], "agent: ", id="help"),
        pytest.param(TABLE, "found: ", id="search", marks=recorded("digits")),
    ],
)
def test_search__goes_without_torch(arguments: list[str], told: str, tmp_path: Path) -> None:
    code = (
        "import atexit, runpy, sys; atexit.register(lambda: print('torch' in sys.modules, 'wandb' in sys.modules)); "
        f"sys.argv = ['search.py', *{arguments}]; runpy.run_path({str(SEARCH)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
    assert done.stdout.endswith("False False\n")
