import json
from pathlib import Path

import pytest
from wandb_records import history, of_type, offline_records

from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.evaluation import Budget
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import World
from gnncompose.tracking.tracker import Result, Run, Summary
from gnncompose.tracking.wandb import METRICS, PREDICTED, WandbTracker, choose_mode


@pytest.fixture(scope="module")
def offline(digits_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> list:
    from synthetic import FakeEvaluator

    folder = tmp_path_factory.mktemp("run")
    task = load_task(digits_directory)
    run = Run(folder, task, World("impulse"), "random", 3, 4, {"agent": {"learning_rate": 0.5}, "budget": 4})
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setenv("WANDB_BASE_URL", "http://localhost:9")  # nothing answers there
        tracker = WandbTracker(mode="offline", tags=["test"])
        tracker.on_start(run)
        budget = Budget(FakeEvaluator({}), lambda e: e.score, 4, tracker.on_trial)
        for composition in [task.space.start, *(c for _, c in task.space.successors(task.space.start)[:3])]:
            budget.evaluate(composition)
        best = budget.best
        result = Result(best.composition, best.reward, best.evaluation, best.evaluation)
        tracker.on_finish(Summary(result, result, result, tuple(budget.trials), 1.0, model=b"onnx"))
    return offline_records(folder)


def test_wandb__names_and_groups_the_run(offline: list) -> None:
    run = of_type(offline, "run")[0]
    assert run.run_group == "digits/impulse/random"
    assert run.display_name == "digits/impulse/random/seed 3, budget 4"
    assert run.job_type == "search"
    assert set(run.tags) == {"digits", "impulse", "random", "test"}
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["agent"] == {"learning_rate": 0.5}


def test_wandb__puts_evaluations_on_the_horizontal_axis(offline: list) -> None:
    metrics = {metric.name: metric.step_metric for metric in of_type(offline, "metric")}
    assert metrics == {"evaluations": "", **dict.fromkeys((*METRICS, *PREDICTED), "evaluations")}


def test_wandb__logs_every_evaluation(offline: list) -> None:
    rows = [row for row in history(offline) if "reward" in row]
    assert [row["evaluations"] for row in rows] == [1, 2, 3, 4]
    assert all(set(METRICS) <= row.keys() for row in rows)
    assert [row["best_reward"] for row in rows] == [max(r["reward"] for r in rows[: i + 1]) for i in range(4)]


def test_wandb__logs_table_and_drawing(offline: list) -> None:
    last = next(row for row in history(offline) if "compositions._type" in row)
    assert last["compositions._type"] == "table-file"
    assert last["compositions.nrows"] == 4
    assert last["found._type"] == "html-file"


def test_wandb__hands_over_model_and_composition(offline: list) -> None:
    found = [artifact for artifact in of_type(offline, "artifact") if artifact.type == "composition"]
    assert [artifact.name for artifact in found] == ["digits-impulse-random"]
    assert {entry.path for entry in found[0].manifest.contents} == {"best.composition.json", "best.svg", "best.onnx"}


@pytest.mark.parametrize(
    ("asked", "environment", "chosen"),
    [
        (None, {}, "offline"),
        (None, {"WANDB_API_KEY": "x"}, "online"),
        (None, {"WANDB_MODE": "disabled"}, "disabled"),
        ("offline", {"WANDB_API_KEY": "x"}, "offline"),
    ],
)
def test_mode__is_offline_without_a_key(
    asked: str | None, environment: dict, chosen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert choose_mode(asked) == chosen


def test_mode__must_exist() -> None:
    with pytest.raises(GnncomposeError, match="use online, offline, disabled"):
        choose_mode("ofline")
