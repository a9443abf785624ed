"""`gnncompose store stats|export|prune` on a SQLite file, and on PostgreSQL."""

import csv
import json
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from command_line import assert_refused, run
from postgres import PostgresServer
from stored import evaluation, key

from gnncompose.evaluation.store import EvaluationStore


def run_store(*arguments: object) -> subprocess.CompletedProcess:
    return run("store", *arguments)


def answer(*arguments: object) -> dict:
    done = run_store(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fill(url: str) -> None:
    """3 evaluations by one protocol, 1 by another, 3 failures of 2 reasons."""
    with EvaluationStore(url) as store:
        for number in range(3):
            store.put(key(number), evaluation(number))
        store.put(key(0, protocol="1", load="offline:64", batch=64), evaluation(0))
        for number, reason in enumerate(("crashed", "hung", "hung"), start=10):
            store.put_failure(key(number), reason, evaluator="onnx", wall_s=2.5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    fill(f"sqlite:///{tmp_path}/evaluations.db")
    return tmp_path / "evaluations.db"


def test_stats__counts_by_what_tells_rows_apart(path: Path) -> None:
    found = answer("stats", path)
    assert found["total"] == {"evaluations": 4, "failures": 3}
    assert found["reasons"] == {"hung": 2, "crashed": 1}
    assert list(found["reasons"]) == ["hung", "crashed"]
    assert found["groups"]["load"] == {
        "single_stream": {"evaluations": 3, "failures": 3},
        "offline:64": {"evaluations": 1, "failures": 0},
    }
    assert found["groups"]["batch"].keys() == {"1", "64"}
    for group in found["groups"].values():
        assert sum(count["evaluations"] for count in group.values()) == 4
        assert sum(count["failures"] for count in group.values()) == 3
    assert found["bytes"] > 0
    assert found["first_measured_at"] <= found["last_measured_at"]
    text = run_store("stats", path).stdout
    assert text.startswith("4 evaluations, 3 failures")
    assert "     2  hung" in text


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_export__writes_every_row_and_the_samples_where_asked(path: Path, suffix: str) -> None:
    file = path.with_name(f"rows.{suffix}")
    assert answer("export", path, "-o", file)["rows"] == 7
    assert "samples_ms" not in rows_of(file)[0]
    assert answer("export", path, "-o", file, "--samples")["rows"] == 7
    assert [entry.name for entry in path.parent.iterdir() if entry.name.startswith(".")] == []
    rows = rows_of(file)
    assert len(rows) == 7
    failed = [row for row in rows if row["failure"]]
    assert sorted(row["failure"] for row in failed) == ["crashed", "hung", "hung"]
    row = next(row for row in rows if row["composition_id"] == key(2).composition_id)
    put = evaluation(2)
    assert put.measurement is not None
    samples = json.loads(row["samples_ms"]) if suffix == "csv" else row["samples_ms"]
    np.testing.assert_array_equal(samples, put.measurement.samples_ms)
    assert float(row["latency_ms_p95"]) == put.latency_ms_p95
    assert row["latency_ms_p99"] in (None, "")
    assert int(row["peak_memory_bytes"]) == put.peak_memory_bytes


def rows_of(file: Path) -> list[dict]:
    if file.suffix == ".parquet":
        return parquet.read_table(file).to_pylist()
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_export__refuses_what_it_cannot_write_and_leaves_what_was_there(path: Path) -> None:
    old = path.with_name("rows.parquet")
    old.write_text("old")
    assert_refused(run_store("export", path, "-o", path.with_name("rows.xlsx")), ".parquet or .csv")
    assert_refused(run_store("export", path, "-o", path.parent / "none" / "rows.csv"), "folder does not exist")
    broken = path.with_name("broken.db")
    broken.write_text("no database " * 100)
    assert_refused(run_store("export", broken, "-o", old), "file is not a database")
    assert old.read_text() == "old"


def test_prune__says_how_many_rows_went(path: Path) -> None:
    assert answer("prune", path, "--failed", "--dry-run") == {"rows": 7, "pruned": 3, "dry_run": True}
    assert answer("prune", path, "--failed", "--older-than", 1)["pruned"] == 0
    assert run_store("prune", path, "--failed").stdout == "3 of 7 rows are gone\n"
    assert answer("prune", path, "--protocol", "1")["pruned"] == 1
    assert answer("stats", path)["total"] == {"evaluations": 3, "failures": 0}


def test_prune__wants_a_criterion(path: Path) -> None:
    assert_refused(run_store("prune", path), "--failed", "--protocol", "--older-than")
    assert answer("stats", path)["total"]["evaluations"] == 4


@pytest.mark.parametrize("command", [["stats"], ["export", "-o", "x.csv"], ["prune", "--failed"]], ids=" ".join)
@pytest.mark.parametrize("form", ["{}", "sqlite:///{}"])
def test_store_commands__make_no_store(tmp_path: Path, command: list[str], form: str) -> None:
    name, *options = command
    assert_refused(run_store(name, form.format(tmp_path / "none.db"), *options), "there is no evaluation store at")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_store_commands__work_on_postgresql(server: PostgresServer, tmp_path: Path) -> None:
    url = server.new_database()
    assert_refused(run_store("stats", url), "there is no evaluation store at")
    fill(url)
    found = answer("stats", url)
    assert found["total"] == {"evaluations": 4, "failures": 3}
    assert found["reasons"] == {"hung": 2, "crashed": 1}
    assert found["bytes"] > 0
    file = tmp_path / "rows.parquet"
    assert answer("export", url, "-o", file, "--samples")["rows"] == len(rows_of(file)) == 7
    assert answer("prune", url, "--failed") == {"rows": 7, "pruned": 3, "dry_run": False}
