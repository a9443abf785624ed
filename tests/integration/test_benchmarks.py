"""The benchmark from the command line: rows that are missing are run, rows that were changed by hand are found."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from recorded import recorded
from rows import COLUMNS, PROVENANCE, Row, key_of, read_rows, write_rows

from gnncompose.resuming import occupied

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"

SUITE = """
tasks: {digits: [clean, noise]}
agents:
  local_search: []
  random: []
  stubborn: [agent=local_search, agent.patience=5]
seeds: 2
budgets: [12]
evaluator: onnx
overrides:
  - evaluator._target_=fake_recorded.FakeRecorded
  - reward.latency_scale_ms=1
  - reward.cost_scale_usd_per_million=1
repeatable: true
noise: 0.0
"""
ROWS = 12


@pytest.fixture(scope="module")
def place(digits_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite on digits, whose evaluator is a FAKE, and a cache that holds the task."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "tasks").mkdir()
    (folder / "tasks" / "digits").symlink_to(digits_directory)
    (folder / "tiny.yaml").write_text(SUITE, encoding="utf-8")
    return folder


def environment(place: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "GNNCOMPOSE_CACHE": str(place), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def script(place: Path, name: str, *arguments: str, suite: str = "tiny") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), f"suite={place / suite}.yaml", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(place), check=False)


@pytest.fixture(scope="module")
def filled(place: Path) -> Path:
    """The folder of the suite's runs, all of them done."""
    done = script(place, "run", "jobs=1", f"runs={place / 'runs'}")
    assert done.returncode == 0, done.stderr
    return place / "runs" / "tiny"


@pytest.fixture
def copied(filled: Path, tmp_path: Path) -> Path:
    """A copy of the runs that a test may spoil."""
    shutil.copytree(filled, tmp_path / "tiny")
    return tmp_path / "tiny"


def test_run__gives_a_row_for_every_cell(filled: Path) -> None:
    rows = read_rows(filled / "rows")
    assert len({key_of(row) for row in rows}) == len(rows) == ROWS
    assert {path.name for path in (filled / "rows").iterdir()} == {"local_search.csv", "random.csv", "stubborn.csv"}
    for row in rows:
        assert tuple(row) == COLUMNS
        assert row["evaluations"] == row["budget"] == 12
        curve = json.loads(str(row["curve"]))
        assert curve[-1][1] == row["found_reward"] >= row["best_at_10"] >= curve[0][1]  # type: ignore[operator]
        assert row["best_at_30"] is None
        assert row["optimum"] == 1.0
        assert json.loads(str(row["versions"]))["numpy"]
        assert json.loads(str(row["found"]))["nodes"]


def test_run__runs_only_what_is_missing(place: Path, copied: Path) -> None:
    def written() -> dict[Path, float]:
        return {path: path.stat().st_mtime for path in copied.glob("**/run.json")}

    before = written()
    (copied / "digits/noise/random/budget_12/seed_1/run.json").unlink()
    # what was run with other settings is missing, too
    other = copied / "digits/clean/random/budget_12/seed_0"
    settings = (other / ".hydra" / "overrides.yaml").read_text()
    (other / ".hydra" / "overrides.yaml").write_text(settings.replace("budget=12", "budget=11"))
    done = script(place, "run", "jobs=1", f"runs={copied.parent}")
    assert done.returncode == 0, done.stderr
    assert "12 rows, 10 were there, 0 failed" in done.stdout
    changed = {path.parent.relative_to(copied).as_posix() for path, at in written().items() if at != before.get(path)}
    assert changed == {"digits/noise/random/budget_12/seed_1", "digits/clean/random/budget_12/seed_0"}


def test_run__leaves_out_what_was_published(place: Path, filled: Path, tmp_path: Path) -> None:
    rows = read_rows(filled / "rows")
    changed = {**rows[1], "overrides": f"{rows[1]['overrides']} agent.patience=6"}
    write_rows([changed, *rows[3:]], tmp_path / "results" / "tiny" / "rows")
    done = script(place, "run", "jobs=1", f"runs={tmp_path}", f"published={tmp_path / 'results'}")
    assert done.returncode == 0, done.stderr
    assert "3 rows, 0 were there, 0 failed" in done.stdout
    assert [key_of(row) for row in read_rows(tmp_path / "tiny" / "rows")] == [key_of(row) for row in rows[:3]]
    nothing = script(place, "run", f"runs={tmp_path}", f"published={filled.parent}")
    assert (nothing.returncode, nothing.stdout) == (0, "tiny: 0 rows, 0 were there, 0 failed\n")


def test_run__tells_what_failed_and_runs_the_rest(place: Path, tmp_path: Path) -> None:
    text = SUITE.replace("agent.patience=5", "agent.improvement=sideways").replace("seeds: 2", "seeds: 3")
    (place / "broken.yaml").write_text(text, encoding="utf-8")
    arguments = ["agents=stubborn,random", "jobs=1", f"runs={tmp_path}"]
    done = script(place, "run", *arguments, suite="broken")
    assert done.returncode == 1
    failures = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert len(failures) == 6
    assert all("/stubborn/" in line and "agent.improvement=sideways: is none of" in line for line in failures)
    assert "Traceback" not in done.stderr
    assert {row["agent"] for row in read_rows(tmp_path / "broken" / "rows")} == {"random"}


def test_run__keeps_no_row_of_an_earlier_run_for_one_that_failed(place: Path, copied: Path) -> None:
    assert {row["agent"] for row in read_rows(copied / "rows")} == {"local_search", "random", "stubborn"}
    shutil.rmtree(copied / "digits" / "clean" / "stubborn")
    shutil.rmtree(copied / "digits" / "noise" / "stubborn" / "budget_12" / "seed_1")
    with (copied / "digits" / "noise" / "stubborn" / "budget_12" / "seed_0" / "run.json").open("r+") as file:
        file.truncate(100)
    arguments = ["agents=stubborn", "jobs=1", f"runs={copied.parent}"]
    damaged = script(place, "run", *arguments)
    assert damaged.returncode == 2
    assert "seed_0: is damaged (JSONDecodeError" in damaged.stderr.splitlines()[-1]
    shutil.rmtree(copied / "digits" / "noise" / "stubborn")
    failing = SUITE.replace("agent.patience=5", "agent.improvement=sideways")
    (place / "failing").mkdir(exist_ok=True)
    (place / "failing" / "tiny.yaml").write_text(failing, encoding="utf-8")
    done = script(place, "run", *arguments, suite="failing/tiny")
    assert "4 rows, 0 were there, 4 failed" in done.stdout, done.stderr
    assert {row["agent"] for row in read_rows(copied / "rows")} == {"local_search", "random"}


def test_run__leaves_alone_what_another_process_runs(place: Path, copied: Path) -> None:
    folder = copied / "digits" / "clean" / "random" / "budget_12" / "seed_0"
    (folder / "run.json").unlink()
    with occupied(folder) as is_held:
        assert is_held
        done = script(place, "run", "jobs=1", f"runs={copied.parent}")
    assert "12 rows, 11 were there, 1 failed" in done.stdout
    assert not (folder / "run.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["agents=nobody"], "agent=nobody: there is no agent/nobody.yaml"),
        (["jobs=0"], "jobs=0: is no whole number from 1 up"),
        (["seed=3"], "seed=3: is no argument"),
        (["runs=/dev/null"], "/dev/null"),
    ],
)
def test_run__answers_mistakes_with_one_line(place: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = script(place, "run", f"runs={tmp_path}", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {message}")


def test_table__writes_tables_and_figures_that_agree_with_the_published_ones(place: Path, copied: Path) -> None:
    published = copied.parent / "results"
    arguments = [f"runs={copied.parent}", f"results={published}"]
    done = script(place, "table", *arguments, "publish=true")
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (published / "tiny").iterdir()}
    assert files == {"rows", "table.md", "table.tex", "regret.svg", "regret_digits.svg", "ranks.svg"}
    for path in published.glob("tiny/*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    text = (published / "tiny" / "table.md").read_text()
    assert "tiny: all 2 cases" in text
    assert "critical difference" in text
    assert (published / "tiny" / "table.tex").read_text().count(r"\begin{tabular}") == 3
    (copied / "table" / "older.md").touch()
    rows = read_rows(copied / "rows")
    rows[0]["found_test_score"] += 1e-3  # type: ignore[operator]
    write_rows(rows, copied / "rows")
    again = script(place, "table", *arguments, "publish=true")
    assert "yours: 1 rows stand for published ones that differ" in again.stdout
    assert {path.name for path in (published / "tiny").iterdir()} == files
    again = script(place, "table", *arguments)
    assert "yours: " not in again.stdout
    compared = again.stdout.splitlines()[-2]
    assert compared.split()[0] == compared.split()[2] != "0", compared


def test_table__leaves_out_and_names_an_agent_that_lacks_rows(place: Path, copied: Path) -> None:
    rows = [row for row in read_rows(copied / "rows") if row["agent"] != "random" or row["seed"] != 1]
    write_rows(rows, copied / "rows")
    done = script(place, "table", f"runs={copied.parent}", f"results={copied.parent / 'none'}")
    assert done.returncode == 0, done.stderr
    assert "left out: random lacks 2 rows" in done.stdout
    none = script(place, "table", f"runs={copied.parent}", "tasks=digit")
    assert none.stderr == "error: tasks=digit: suite tiny has no such task; it has digits\n"


def test_table__counts_no_row_of_other_settings(place: Path, copied: Path) -> None:
    text = SUITE.replace("agent.patience=5", "agent.patience=6")
    (place / "changed").mkdir(exist_ok=True)
    (place / "changed" / "tiny.yaml").write_text(text, encoding="utf-8")
    arguments = [f"runs={copied.parent}", f"results={copied.parent / 'none'}"]
    done = script(place, "table", *arguments, "publish=true", suite="changed/tiny")
    assert done.returncode == 0, done.stderr
    assert "ignored: 4 rows" in done.stdout
    assert {path.stem for path in copied.parent.glob("none/tiny/rows/*")} == {"local_search", "random"}


@pytest.mark.parametrize("name", ["run", "table", "validate", "transfer"])
def test_scripts__say_how_they_are_used(place: Path, name: str) -> None:
    done = script(place, name, "--help")
    assert done.returncode == 0
    assert f"python benchmarks/{name}.py [" in done.stdout


def test_validate__finds_that_all_hold(place: Path, filled: Path) -> None:
    done = script(place, "validate", f"rows={filled / 'rows'}", "jobs=1")
    assert done.returncode == 0, done.stderr
    assert "missing" not in done.stderr
    figures = {"suite": "tiny", "rows": 12, "hold": 12, "do_not_hold": 0, "searched_again": 12}
    assert json.loads(done.stdout.splitlines()[-1]) == figures


def tampered(rows: list[Row]) -> list[str]:
    """Change a row in every column by hand, each row in another one; names of the columns."""
    columns = [name for name in COLUMNS if name not in PROVENANCE]
    changed = []
    for row, name in zip(rows, columns[:: max(len(columns) // len(rows), 1)], strict=False):
        value = row[name]
        if isinstance(value, float):
            row[name] = value + 1e-6
        elif isinstance(value, int):
            row[name] = value + 1
        else:
            row[name] = f"{value or ''}1" if value is not None else 0.5
        changed.append(name)
    return changed


def test_validate__names_every_row_that_was_changed_by_hand(place: Path, copied: Path) -> None:
    rows = read_rows(copied / "rows")
    changed = tampered(rows[:11])
    write_rows(rows, copied / "rows")
    assert len(changed) == 11
    done = script(place, "validate", f"rows={copied / 'rows'}", "jobs=1")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("does not hold: ")]
    assert len(lines) == 11, (changed, lines)
    assert sum(line.startswith("missing: ") for line in done.stderr.splitlines()) >= 1
    assert json.loads(done.stdout.splitlines()[-1])["hold"] == 1


def test_validate__looks_rows_up_that_it_does_not_search_again(place: Path, copied: Path) -> None:
    arguments = [f"rows={copied / 'rows'}", "jobs=1", "searches=1"]
    done = script(place, "validate", *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["searched_again"] == 3
    rows = read_rows(copied / "rows")
    for row, name in zip(rows, itertools.cycle(["found_test_score", "best_single_reward", "optimum"]), strict=False):
        row[name] += 1e-6  # type: ignore[operator]
    write_rows(rows, copied / "rows")
    done = script(place, "validate", *arguments)
    assert json.loads(done.stdout.splitlines()[-1])["do_not_hold"] == 12, done.stderr


def test_validate__compares_measured_rows_within_the_noise(place: Path, copied: Path) -> None:
    text = SUITE.replace("repeatable: true", "repeatable: false").replace("noise: 0.0", "noise: 0.1")
    (place / "measured").mkdir(exist_ok=True)
    (place / "measured" / "tiny.yaml").write_text(text, encoding="utf-8")
    rows = read_rows(copied / "rows")
    latency = "found_test_latency_ms_mean"
    rows[0][latency] *= 1.05  # type: ignore[operator]
    rows[1][latency] *= 1.2  # type: ignore[operator]
    rows[2]["best_single_test_score"] -= 0.01  # type: ignore[operator]
    rows[3]["found_reward"] += 0.01  # type: ignore[operator]
    rows[4]["best_at_10"] += 0.01  # type: ignore[operator]
    rows[5]["found"] = rows[6]["found"] if rows[5]["found"] != rows[6]["found"] else rows[7]["found"]
    write_rows(rows, copied / "rows")
    done = script(place, "validate", f"rows={copied / 'rows'}", suite="measured/tiny")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("does not hold: ")]
    assert len(lines) == 5, lines
    assert f"{latency} is" in lines[0]
    assert "more than 10% off" in lines[0]


@pytest.mark.slow
def test_run__goes_on_after_being_killed(place: Path, tmp_path: Path) -> None:
    text = SUITE.replace("seeds: 2", "seeds: 5").replace("budgets: [12]", "budgets: [60]")
    (place / "killed.yaml").write_text(text, encoding="utf-8")
    command = [
        sys.executable,
        str(BENCHMARKS / "run.py"),
        f"suite={place / 'killed.yaml'}",
        "jobs=2",
        f"runs={tmp_path}",
    ]
    process = subprocess.Popen(command, env=environment(place), stderr=subprocess.DEVNULL, start_new_session=True)
    root, deadline = tmp_path / "killed", time.monotonic() + 120
    while len(list(root.glob("**/run.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime for path in root.glob("**/run.json")}
    assert 3 <= len(before) < 30
    done = script(place, "run", "jobs=2", f"runs={tmp_path}", suite="killed")
    assert done.returncode == 0, done.stderr
    assert f"30 rows, {len(before)} were there, 0 failed" in done.stdout
    assert all(path.stat().st_mtime == at for path, at in before.items())
    assert len(read_rows(root / "rows")) == 30


@pytest.mark.slow
@recorded("series_gun_point")
def test_warm_start__runs_what_is_missing_and_publishes_nothing_unasked(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "warm_start.py"), "tables=series_gun_point", "seeds=2", "jobs=1"]
    command += [f"runs={tmp_path}"]
    rows = tmp_path / "warm_start" / "series_gun_point.csv"
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    lines = rows.read_text().splitlines()
    assert len(lines) == 1 + 2 * 7 * 5  # seeds, conditions but the first, ways
    assert first.stdout.count("\n| ") == 1 + 5
    written_ns = rows.stat().st_mtime_ns
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.stdout == first.stdout
    assert rows.stat().st_mtime_ns == written_ns
