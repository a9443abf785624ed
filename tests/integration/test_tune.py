"""Tuning on a recorded table: trials are remembered, go on, fail by themselves, and end on an interrupt."""

import csv
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from recorded import recorded

from gnncompose.agents.agent import Agent
from gnncompose.agents.local_search import LocalSearch
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.reward import WeightedSum
from gnncompose.tasks.task import World
from gnncompose.tuning.cases import Case, Plan, Subject
from gnncompose.tuning.space import Dial, read_space
from gnncompose.tuning.study import Tuning

optuna = pytest.importorskip("optuna", reason="needs the extra sweep")
TUNE = Path(__file__).parents[2] / "experiments" / "tune.py"
SPACE = [Dial("perturbation", 1, 6), Dial("patience", 5, 100, log=True), Dial("improvement", choices=("first", "best"))]
OWN = {"perturbation": 2, "patience": 40, "improvement": "first"}
pytestmark = recorded("digits")


@pytest.fixture(scope="module")
def case() -> Case:
    world, prices = World("mixed"), load_prices()
    evaluator = TableEvaluator(recorded_task("digits"), world, prices)
    return Case("digits/mixed", evaluator, WeightedSum().bind(evaluator.task.catalog, prices, world))


def build(changes: Mapping[str, Any]) -> Agent:
    return LocalSearch(**{**OWN, **changes})


def tuning(
    case: Case, folder: Path, trials: int, make: Callable[[Mapping[str, Any]], Agent] = build, **plan: Any
) -> Tuning:
    settings = {"budget": 12, "seeds": 2, "fresh_seeds": 2, **plan}
    subject = Subject("local_search", make, OWN, SPACE)
    sampler, pruner = optuna.samplers.RandomSampler, optuna.pruners.MedianPruner(n_startup_trials=2)
    return Tuning(subject, [case], Plan(trials, **settings), "mine", f"sqlite:///{folder}/t.db", sampler, pruner)


def trials_in(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_tuning__goes_on_in_the_same_database(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuning(case, tmp_path, 3).run(tmp_path)
    before = trials_in(tmp_path)
    assert [before[0][name] for name in OWN] == [str(value) for value in OWN.values()]
    tuning(case, tmp_path, 8).run(tmp_path)
    after = trials_in(tmp_path)
    assert after[:3] == before
    assert len(after) == 8
    assert len({tuple(row[name] for name in OWN) for row in after}) > 5  # what was drawn is not drawn again
    assert {row["state"] for row in after} == {"complete", "pruned"}

    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    complete = [float(row["value"]) for row in after if row["state"] == "complete"]
    assert best["value"] == max(complete)
    assert best["overrides"][0] == "agent=local_search"
    assert set(best["on_fresh_seeds"]) == {"best", "own"}
    assert f"gnncompose search {' '.join(best['overrides'])}" in capsys.readouterr().out
    assert ElementTree.parse(tmp_path / "tuning.svg").getroot().tag.endswith("svg")


def test_tuning__values_are_shares_of_the_way_to_the_best(case: Case, tmp_path: Path) -> None:
    tuning(case, tmp_path, 1).run(tmp_path)
    shares = [case.search(build({}), 12, seed, "share") for seed in range(2)]
    assert float(trials_in(tmp_path)[0]["value"]) == pytest.approx(sum(shares) / 2)
    assert all(0 <= share <= 1 for share in shares)
    assert case.search(build({}), 12, 0, "reward") < case.optimum


def test_tuning__goes_on_after_settings_that_fail(case: Case, tmp_path: Path, capsys) -> None:
    def make(changes: Mapping[str, Any]) -> Agent:
        return build({**changes, "improvement": "sideways"} if changes.get("improvement") == "best" else changes)

    tuning(case, tmp_path, 6, make).run(tmp_path)
    failed = [row for row in trials_in(tmp_path) if row["state"] == "fail"]
    assert 0 < len(failed) < 6
    assert all("improvement=sideways: is none of first, best" in row["failure"] for row in failed)
    assert "agent.improvement=best" in capsys.readouterr().err


def test_tuning__ends_where_nothing_works(case: Case, tmp_path: Path) -> None:
    with pytest.raises(GnncomposeError, match=r"the first 3 trials failed; the last: GnncomposeError: agent\.improv"):
        tuning(case, tmp_path, 6, lambda changes: build({"improvement": "sideways"})).run(tmp_path)


def test_tuning__ends_on_an_interrupt_and_goes_on(case: Case, tmp_path: Path, capsys) -> None:
    built = 0

    def interrupted(changes: Mapping[str, Any]) -> Agent:
        nonlocal built
        built += 1
        if built > 3:  # in the second trial
            raise KeyboardInterrupt
        return build(changes)

    assert not tuning(case, tmp_path, 4, interrupted).run(tmp_path)
    assert "interrupted after 1 of 4 trials; the same command goes on" in capsys.readouterr().err
    assert (tmp_path / "best.yaml").exists()
    assert tuning(case, tmp_path, 4).run(tmp_path)
    states = [row["state"] for row in trials_in(tmp_path)]
    assert states.count("fail") == 1
    assert len(states) == 5


def test_tuning__says_why_nothing_came_of_it(case: Case, tmp_path: Path) -> None:
    with pytest.raises(GnncomposeError, match=r"all 2 trials failed; the last: GnncomposeError: agent\.improv"):
        tuning(case, tmp_path, 2, lambda changes: build({"improvement": "sideways"})).run(tmp_path)


def test_tuning__refuses_a_study_of_something_else(case: Case, tmp_path: Path) -> None:
    tuning(case, tmp_path, 1)
    with pytest.raises(GnncomposeError, match="study=mine: was begun with other budget: "):
        tuning(case, tmp_path, 1, budget=13)


def test_tuning__refuses_a_database_that_cannot_be(case: Case, tmp_path: Path) -> None:
    with pytest.raises(GnncomposeError, match=r"storage=sqlite:.*nowhere/t.db: cannot be opened"):
        tuning(case, tmp_path / "nowhere", 1)


@pytest.mark.parametrize(
    "document",
    [
        {"a": 3},
        {"a": {"low": 2, "high": 1}},
        {"a": {"low": 0, "high": 1, "log": True}},
        {"a": {"low": 1}},
        {"a": {"choices": []}},
        {"a": {"low": 1, "high": 2, "step": 1}},
        {},
    ],
    ids=str,
)
def test_read_space__refuses_what_is_no_range(document: dict[str, Any]) -> None:
    with pytest.raises(GnncomposeError, match=r"^space"):
        read_space(document)


def test_read_space__names_nested_settings() -> None:
    dials = read_space({"encoder": {"dim": {"choices": [8, 16]}}, "gamma": {"low": 0.0, "high": 1.0}})
    assert [dial.name for dial in dials] == ["encoder.dim", "gamma"]
    assert (dials[0].holds(16), dials[0].holds(9), dials[1].holds(1.5)) == (True, False, False)


@pytest.mark.slow
def test_tune__command_tunes_an_agent_of_the_leaves(tmp_path: Path) -> None:
    settings = ["agent=dqn", "cases=[digits/mixed]", "plan.trials=2", "plan.seeds=1", "plan.budget=6"]
    settings += ["plan.fresh_seeds=1", "hydra.run.dir=run"]
    done = subprocess.run([sys.executable, str(TUNE), *settings], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tuning.db").exists()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *(".hydra", "best.yaml", "trials.csv", "tuning.svg"),
    }
    assert any(
        name.startswith("agent.encoder.dim=")
        for name in yaml.safe_load((tmp_path / "run/best.yaml").read_text())["overrides"]
    )


@pytest.mark.slow
def test_tune__command_takes_a_bundle_that_is_really_run(tmp_path: Path, digits_directory: Path) -> None:
    settings = ["agent=local_search", "cases=[mine/clean]", "plan.trials=2", "plan.seeds=1", "plan.budget=3"]
    settings += [f'task_overrides=["task=bundle","task.path={digits_directory}"]', 'overrides=["evaluator=onnx"]']
    settings += ["plan.fresh_seeds=1", "hydra.run.dir=run"]
    done = subprocess.run([sys.executable, str(TUNE), *settings], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "(2 complete)" in done.stdout


def test_tune__refuses_a_case_without_its_condition(tmp_path: Path) -> None:
    command = [sys.executable, str(TUNE), "agent=local_search", "cases=[digits]"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: cases=digits: is no case; write TASK/CONDITION, as in digits/mixed\n"
    assert list(tmp_path.iterdir()) == []
