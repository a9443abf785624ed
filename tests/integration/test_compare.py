"""Reports of finished runs, and several of them side by side: what the pages hold, and what folders are refused."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from finished_runs import searched
from recorded import recorded

from gnncompose.agents.random import Random
from gnncompose.errors import GnncomposeError
from gnncompose.tracking.comparison import differences, document, page, read_runs, table
from gnncompose.tracking.finished import read_run
from gnncompose.tracking.tracker import Summary

pytestmark = recorded("digits")
FETCHES = r"<link|@import|url\(|<script[^>]+src|<(?:img|iframe)[^>]+src=\"(?!data:image/svg)"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Summary]]:
    """Two agents with two seeds."""
    root = tmp_path_factory.mktemp("runs")
    folders = [root / str(number) for number in range(4)]
    agents = [None, None, Random(), Random()]
    found = [searched(f, agent=a, seed=n % 2) for n, (f, a) in enumerate(zip(folders, agents, strict=True))]
    return folders, found


def test_report__shows_all_of_the_run(runs: tuple[list[Path], list[Summary]]) -> None:
    (folder, *_), (summary, *_) = runs
    text = (folder / "report.html").read_text()
    assert not re.search(FETCHES, text)
    for heading in ("The composition found", "What each node takes and gives", "Next to the best single model"):
        assert f"<h2>{heading}" in text
    for one in summary.contributions:
        assert one.reason or str(one.without) in text
    steps = re.search(r'<ol class="way">(.*?)</ol>', text, re.DOTALL)[1]
    assert steps.count("<li>") == len(summary.path) + 1
    assert str(summary.found.composition) in steps
    front = re.search(r'<table id="front">(.*?)</table>', text, re.DOTALL)[1]
    assert str(summary.found.composition) in front
    for fact in ("SHA-256", "USD per vCPU hour", "seed 0", "budget 40", "onnxruntime", "the best there is"):
        assert fact in text


def test_report__is_told_by_run_json_too(runs: tuple[list[Path], list[Summary]]) -> None:
    (folder, *_), (summary, *_) = runs
    record = json.loads((folder / "run.json").read_text())
    assert record["metric"] == "accuracy"
    assert record["optimum"] >= record["summary"]["found"]["reward"]
    told = {part["node"]: part for part in record["contributions"]}
    for one in summary.contributions:
        assert told[one.node.id]["reward_without"] == one.reward
        assert told[one.node.id]["share"] == pytest.approx(one.time.share)
    assert (folder / "best.svg").read_text().count("without it") == sum(
        one.evaluation is not None for one in summary.contributions
    )


def test_report__charges_nothing_for_what_it_asks(tmp_path: Path) -> None:
    summary = searched(tmp_path, seed=4, budget=1, start="random")
    assert len(summary.trials) == 1 == parquet.read_table(tmp_path / "evaluations.parquet").num_rows
    assert json.loads((tmp_path / "run.json").read_text())["evaluations"] == 1
    asked = {one.without.id for one in summary.contributions if one.evaluation}
    assert asked - {trial.composition.id for trial in summary.trials}


def test_report__escapes_what_others_named(tmp_path: Path) -> None:
    searched(tmp_path, budget=3, note=HOSTILE, task="digits", evaluator={HOSTILE: HOSTILE})
    text = (tmp_path / "report.html").read_text()
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_comparison__tells_runs_apart(runs: tuple[list[Path], list[Summary]]) -> None:
    compared = read_runs(runs[0])
    assert [one.label for one in compared] == [
        "1: localsearch, seed 0",
        "2: localsearch, seed 1",
        "3: random, seed 0",
        "4: random, seed 1",
    ]
    assert len({(one.colour, one.dash) for one in compared}) == 4
    assert differences(compared) == {
        "agent": ["localsearch", "localsearch", "random", "random"],
        "seed": [0, 1, 0, 1],
    }


def test_comparison__says_what_a_program_wants_to_know(runs: tuple[list[Path], list[Summary]]) -> None:
    told = document(read_runs(runs[0]))
    for one, folder, summary in zip(told["runs"], *runs, strict=True):
        assert one["folder"] == str(folder)
        assert one["composition"] == str(summary.found.composition)
        assert one["summary"]["found"]["test"]["score"] == summary.found.test.score
        assert max(row["score"] for row in one["front"]) == max(t.evaluation.score for t in summary.trials)
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize("count", [2, 12])
def test_comparison__is_one_page(runs: tuple[list[Path], list[Summary]], count: int) -> None:
    compared = read_runs((runs[0] * 3)[:count])
    text = page(compared)
    assert not re.search(FETCHES, text)
    assert text.count('src="data:image/svg+xml;base64,') == count
    curves = re.search(r"<h2>How the searches went</h2>(.*?)</figure>", text, re.DOTALL)[1]
    drawn = re.findall(r'd="M[^"]+" fill="none" stroke="(#\w+)" stroke-width="2.2"( stroke-dasharray="7 4")?', curves)
    assert len(drawn) == len(set(drawn)) == count


def test_comparison__warns_of_runs_that_cannot_be_compared(runs: tuple[list[Path], list[Summary]], tmp_path: Path):
    searched(tmp_path, budget=5, condition="clean")
    assert "of different tasks or conditions" in page(read_runs([runs[0][0], tmp_path]))


def test_comparison__warns_of_rewards_that_cannot_be_compared(runs: tuple[list[Path], list[Summary]], tmp_path: Path):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder, target, cost in zip(folders, ("WeightedSum", "ServiceLevel"), (0.05, 0.01), strict=True):
        searched(folder, budget=5, reward={"_target_": f"gnncompose.reward.{target}", "cost": cost})
        assert f"{target}: cost {cost}" in (folder / "report.html").read_text()
    compared, same = read_runs(folders), read_runs(runs[0][:2])
    assert differences(compared) == {"reward": ["WeightedSum", "ServiceLevel"], "reward.cost": [0.05, 0.01]}
    assert "were after different rewards" in page(compared)
    assert table(compared).endswith("reward.cost [0.05, 0.01]): they do not compare")
    assert not document(compared)["have_one_reward"]
    assert "were after different rewards" not in page(same)
    assert "rewards differ" not in table(same)
    assert "of different tasks or conditions" not in page(read_runs(runs[0]))


def test_comparison__does_without_a_drawing(runs: tuple[list[Path], list[Summary]], tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(runs[0][0], old)
    (old / "best.svg").unlink()
    record = json.loads((old / "run.json").read_text())
    for added in ("metric", "optimum", "contributions"):  # as runs were before these were recorded
        del record[added]
    (old / "run.json").write_text(json.dumps(record))
    text = page(read_runs([old, runs[0][1]]))
    assert text.count('src="data:image/svg+xml;base64,') == 1


def damaged(folder: Path, copy: Path, name: str, content: str | None) -> Path:
    shutil.copytree(folder, copy)
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_text(content)
    return copy


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("run.json", None, "holds no complete run: run.json is missing; name a folder with a run.json"),
        ("run.json", "{", "is not readable"),
        ("run.json", "[]", "is no record of a search"),
        ("run.json", '{"summary": {}, "interrupted": true, "evaluations": 3, "budget": 9}', "after 3 of 9 evaluations"),
        ("best.composition.json", None, "is damaged"),
        ("best.composition.json", "{}", "is damaged"),
        ("evaluations.parquet", "no table", "is damaged"),
    ],
)
def test_run__is_refused_where_it_is_not_complete(
    runs: tuple[list[Path], list[Summary]], tmp_path: Path, name: str, content: str | None, told: str
) -> None:
    with pytest.raises(GnncomposeError, match=re.escape(told)):
        read_run(damaged(runs[0][0], tmp_path / "run", name, content))


def command(*arguments: object) -> subprocess.CompletedProcess:
    program = [sys.executable, "-m", "gnncompose.cli", "compare", *map(str, arguments)]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_command__writes_the_page_and_prints_a_table(runs: tuple[list[Path], list[Summary]], tmp_path: Path) -> None:
    done = command(*runs[0], "-o", tmp_path / "side.html")
    assert done.returncode == 0, done.stderr
    assert "1: localsearch, seed 0" in done.stdout
    assert (tmp_path / "side.html").read_text().startswith("<!DOCTYPE html>")
    told = command(*runs[0], "--json")
    assert [one["seed"] for one in json.loads(told.stdout)["runs"]] == [0, 1, 0, 1]


def test_command__says_what_is_wrong_in_one_line(runs: tuple[list[Path], list[Summary]], tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    trained = tmp_path / "trained"
    for folder in (begun, trained):
        (folder / ".hydra").mkdir(parents=True)
    (trained / "card.json").write_text("{}")
    for arguments, told in [
        ([runs[0][0]], "name 2 to 12 to compare"),
        ([runs[0][0], tmp_path / "none"], "there is no such run folder"),
        ([runs[0][0], begun], f"go on with it by gnncompose search resume={begun}"),
        ([runs[0][0], trained], "holds a training; name folders that gnncompose search wrote"),
    ]:
        done = command(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert told in done.stderr
