"""What W&B is told, read back from what an offline run wrote."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_runs import searched
from hydra import compose, initialize_config_dir
from recorded import recorded
from wandb.sdk.launch.sweeps import utils as sweeps
from wandb_records import history, of_type, offline_records

from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.evaluation import Budget
from gnncompose.launch import resource_directory
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import World
from gnncompose.tracking.tracker import Result, Run, Summary
from gnncompose.tracking.wandb import METRICS, PREDICTED, WandbTracker, choose_mode

SEARCH = Path(__file__).resolve().parents[2] / "experiments" / "search.py"
SWEEP = SEARCH.with_name("wandb_sweep.yaml")
BUDGET = 4
OPTIMUM = 2.0


@contextmanager
def without_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setenv("WANDB_BASE_URL", "http://localhost:9")  # nothing answers there
        yield


def tracked(folder: Path, digits_directory: Path, trials: int = BUDGET) -> None:
    """Search in a folder; of fewer trials than the budget, end as a run that was killed does."""
    from synthetic import FakeEvaluator

    task = load_task(digits_directory)
    config = {"agent": {"learning_rate": 0.5}, "budget": BUDGET}
    run = Run(folder, task, World("impulse"), "random", 3, BUDGET, config, optimum=OPTIMUM)
    with without_network():
        tracker = WandbTracker(mode="offline", tags=["test"])
        tracker.on_start(run)
        budget = Budget(FakeEvaluator({}), lambda e: e.score, BUDGET, tracker.on_trial)
        for composition in [task.space.start, *(c for _, c in task.space.successors(task.space.start))][:trials]:
            budget.evaluate(composition)
        if trials < BUDGET:
            tracker._tracked.finish(exit_code=1)
            return
        best = budget.best
        result = Result(best.composition, best.reward, best.evaluation, best.evaluation)
        summary = Summary(result, result, result, tuple(budget.trials), 1.0, checkpoint={"weights": 1}, model=b"onnx")
        tracker.on_finish(summary)


@pytest.fixture(scope="module")
def folder(digits_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    tracked(folder, digits_directory)
    return folder


@pytest.fixture(scope="module")
def offline(folder: Path) -> list[Any]:
    return offline_records(folder)


def config_of(records: list[Any]) -> dict[str, Any]:
    (run,) = of_type(records, "run")
    return {item.key: json.loads(item.value_json) for item in run.config.update}


def artifacts_of(records: list[Any]) -> dict[str, Any]:
    return {found.type: found for found in of_type(records, "artifact") if found.type != "run_table"}


def table_of(records: list[Any], name: str) -> tuple[list[dict[str, Any]], dict[str, Path]]:
    """The rows of a table, and the files that belong to it."""
    (table,) = [one for one in of_type(records, "artifact") if one.name.endswith(f"-{name}")]
    files = {entry.path: Path(entry.local_path) for entry in table.manifest.contents}
    document = json.loads(files[f"{name}.table.json"].read_text())
    return [dict(zip(document["columns"], row, strict=True)) for row in document["data"]], files


def test_wandb__names_and_groups_the_run(offline: list[Any]) -> None:
    (run,) = of_type(offline, "run")
    assert run.run_group == "digits/impulse/random"
    assert run.display_name == "digits/impulse/random/seed 3, budget 4"
    assert run.job_type == "search"
    assert set(run.tags) == {"digits", "impulse", "random", "test"}


def test_wandb__has_the_settings_as_nested_keys_and_what_to_group_by(offline: list[Any]) -> None:
    config = config_of(offline)
    assert config["agent"] == {"learning_rate": 0.5}
    named = {name: config["run"][name] for name in ("task", "condition", "agent", "seed", "budget", "optimum")}
    assert list(named.values()) == ["digits", "impulse", "random", 3, 4, OPTIMUM]
    assert len(config["catalog"]["sha256"]) == 64
    assert config["hardware"]["cores"] >= 1
    assert "onnxruntime" in config["versions"]


def test_wandb__puts_evaluations_on_the_horizontal_axis(offline: list[Any]) -> None:
    metrics = {metric.name: metric.step_metric for metric in of_type(offline, "metric")}
    assert metrics == {"evaluations": "", **dict.fromkeys((*METRICS, "regret", *PREDICTED), "evaluations")}


def test_wandb__logs_every_evaluation(offline: list[Any]) -> None:
    rows = [row for row in history(offline) if "reward" in row]
    assert [row["evaluations"] for row in rows] == [1, 2, 3, 4]
    assert [row["_step"] for row in rows] == [0, 1, 2, 3]
    assert all(set(METRICS) <= row.keys() for row in rows)
    assert [row["best_reward"] for row in rows] == [max(r["reward"] for r in rows[: i + 1]) for i in range(4)]
    assert [row["regret"] for row in rows] == [OPTIMUM - row["best_reward"] for row in rows]


def test_wandb__knows_no_regret_where_nobody_knows_the_best(digits_directory: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, load_task(digits_directory), World("impulse"), "random", 3, BUDGET)
    with without_network():
        tracker = WandbTracker(mode="offline")
        tracker.on_start(replace(run, optimum=None))
        tracker._tracked.finish()
    assert "regret" not in {metric.name for metric in of_type(offline_records(tmp_path), "metric")}


def test_wandb__logs_tables_and_drawings(offline: list[Any]) -> None:
    last = next(row for row in history(offline) if "compositions._type" in row)
    assert last["compositions._type"] == "table-file"
    assert last["compositions.nrows"] == 4
    assert last["found._type"] == "html-file"
    rows, _ = table_of(offline, "compositions")
    assert len({row["composition"] for row in rows}) == 4
    drawn, files = table_of(offline, "drawn")
    assert [row["which"] for row in drawn][:3] == ["start", "best_single", "found"]
    assert len(drawn) > 3
    for row in drawn:
        assert f"<title>{row['composition']}</title>" in files[row["drawing"]["path"]].read_text()


def test_wandb__draws_the_line_from_task_to_model_and_policy(offline: list[Any]) -> None:
    found = artifacts_of(offline)
    assert {kind: one.name for kind, one in found.items()} == {
        "task": "task-digits",
        "model": "digits-impulse-random",
        "policy": "digits-impulse-random-policy",
    }
    files = {kind: {entry.path for entry in one.manifest.contents} for kind, one in found.items()}
    assert files == {
        "task": {"task.yaml", "catalog.yaml", "files.json"},
        "model": {"best.composition.json", "best.svg", "best.onnx"},
        "policy": {"checkpoint.pt"},
    }
    assert {kind: one.use_after_commit for kind, one in found.items()} == {
        "task": True,
        "model": False,
        "policy": False,
    }
    assert set(found["model"].aliases) == {"latest", "seed-3"}
    assert json.loads(found["model"].metadata)["mergeable"] is True


def test_wandb__tells_versions_of_a_task_apart_by_its_files(offline: list[Any], digits_directory: Path) -> None:
    (entry,) = [e for e in artifacts_of(offline)["task"].manifest.contents if e.path == "files.json"]
    listed = json.loads(Path(entry.local_path).read_text())
    names = {path.relative_to(digits_directory).as_posix() for path in digits_directory.rglob("*") if path.is_file()}
    assert listed.keys() == names
    assert any(name.startswith("data/impulse/") for name in names)


def test_wandb__goes_on_with_the_run_that_was_interrupted(digits_directory: Path, tmp_path: Path) -> None:
    tracked(tmp_path, digits_directory, trials=2)
    (begun,) = of_type(offline_records(tmp_path), "run")
    tracked(tmp_path, digits_directory)
    records = offline_records(tmp_path, runs=2)
    (went_on,) = of_type(records, "run")
    assert went_on.run_id == begun.run_id == (tmp_path / "wandb" / "run_id").read_text().strip()
    # offline there is no server that has the first ones: the last folder holds the whole run
    assert [row["evaluations"] for row in history(records) if "reward" in row] == [1, 2, 3, 4]


@recorded("series_gun_point")
def test_wandb__is_told_of_a_real_run(tmp_path: Path) -> None:
    with without_network():
        summary = searched(tmp_path, "series_gun_point", budget=6, trackers=(WandbTracker(mode="offline"),))
    records = offline_records(tmp_path)
    rows = [row for row in history(records) if "regret" in row]
    assert rows[-1]["regret"] == pytest.approx(config_of(records)["run"]["optimum"] - summary.found.reward)
    nodes, _ = table_of(records, "nodes")
    assert [row["operator"] for row in nodes] == [one.node.operator.name for one in summary.contributions]
    assert any("report._type" in row for row in history(records))


def sweep() -> dict[str, Any]:
    return yaml.safe_load(SWEEP.read_text(encoding="utf-8"))


def test_sweep__is_one_that_wandb_takes() -> None:
    loaded = sweeps.load_sweep_config(str(SWEEP))
    assert loaded == sweep()
    assert loaded["metric"]["name"] in METRICS
    assert (SEARCH.parents[1] / loaded["program"]) == SEARCH


def test_sweep__has_parameters_that_search_takes() -> None:
    given = sweep()["parameters"]
    values = {name: one.get("values", [one.get("value")]) for name, one in given.items()}
    most = max(len(several) for several in values.values())
    for number in range(most):
        overrides = [f"{name}={several[number % len(several)]}" for name, several in values.items()]
        with initialize_config_dir(str(resource_directory("conf")), version_base="1.3"):
            config = compose("search", overrides=overrides)
        assert config.tracker._target_.endswith("WandbTracker")


@pytest.mark.slow
@recorded("series_gun_point")
def test_sweep__runs_as_the_agent_of_wandb_runs_it(tmp_path: Path) -> None:
    chosen = {"task": "recorded", "task.name": "series_gun_point", "evaluator": "table", "agent": "random", "budget": 3}
    arguments = {name: {"value": value} for name, value in chosen.items()}
    told = sweeps.create_sweep_command_args({"args": arguments})
    words = {"${env}": ["/usr/bin/env"], "${interpreter}": [sys.executable], "${program}": [str(SEARCH)]}
    words["${args_no_hyphens}"] = told["args_no_hyphens"]
    command = [word for part in sweeps.create_sweep_command(sweep()["command"]) for word in words[part]]
    parameters = tmp_path / "config-abc.yaml"
    parameters.write_text(yaml.safe_dump({"wandb_version": 1, **arguments}))
    given = {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "abc", "WANDB_SWEEP_PARAM_PATH": str(parameters)}
    environment = {**os.environ, "WANDB_MODE": "offline", **given}
    folder = tmp_path / "run"
    done = subprocess.run([*command, f"hydra.run.dir={folder}"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    records = offline_records(folder)
    (run,) = of_type(records, "run")
    assert (run.run_id, run.sweep_id) == ("abc", "s1")
    assert config_of(records)["run"]["agent"] == "random"
    assert (folder / "wandb" / "run_id").read_text().strip() == "abc"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in what it imports
def test_workspace__shows_what_runs_log(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb_workspaces", reason="needs wandb[workspaces]")
    monkeypatch.syspath_prepend(str(SEARCH.parent))
    from wandb_workspace import workspace

    made = workspace("somebody", "gnncompose")
    panels = [panel for section in made.sections for panel in section.panels]
    curves = {panel.y[0]: panel.x for panel in panels if getattr(panel, "y", None) and isinstance(panel.y, list)}
    assert curves == dict.fromkeys(("best_reward", "regret", "score"), "evaluations")
    text = made._to_model().model_dump_json()
    for key in ("run.value.agent", "found.test.latency_ms_mean", "found.test.score", '"drawn"'):
        assert key in text


@pytest.mark.parametrize("arguments", [[], ["a/b", "c"]])
def test_workspace__says_what_it_needs(arguments: list[str]) -> None:
    program = [sys.executable, str(SEARCH.with_name("wandb_workspace.py")), *arguments]
    done = subprocess.run(program, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


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
