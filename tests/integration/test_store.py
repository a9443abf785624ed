"""The evaluation store on SQLite and on a real PostgreSQL server."""

import datetime
import json
import math
import sqlite3
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sql
from postgres import PostgresServer, postgres_programs
from sqlalchemy.exc import IntegrityError
from stored import evaluation, in_processes, key, write_evaluations

from gnncompose.errors import EvaluationError, StoreError
from gnncompose.evaluation.cost import Prices, load_prices
from gnncompose.evaluation.evaluation import Evaluation, Measurement
from gnncompose.evaluation.store import EvaluationStore, Key, database
from gnncompose.evaluation.store.schema import EVALUATIONS
from gnncompose.tasks.task import World

PRICES = load_prices()
STRESS = Path(__file__).parents[2] / "benchmarks" / "store.py"


def read(store: EvaluationStore, wanted: Key, prices: Prices = PRICES) -> Evaluation | None:
    return store.get(wanted, World(), "validation", prices)


def latency_of(store: EvaluationStore, wanted: Key) -> float:
    found = read(store, wanted)
    assert found is not None
    return found.latency_ms_mean


def rows(store: EvaluationStore) -> list[dict]:
    with store.engine.connect() as connection:
        return [dict(row) for row in connection.execute(sql.select(EVALUATIONS)).mappings()]


# Reading and writing


def test_store__gives_back_what_it_took(url: str) -> None:
    put = evaluation(3)
    with EvaluationStore(url) as store:
        store.put(key(3), put)
    with EvaluationStore(url) as store:
        got = read(store, key(3))
    assert got is not None
    told = {"cached", "measurement", "cost_usd_per_million"}
    assert got.cached
    for field in fields(Evaluation):
        if field.name not in told:
            assert getattr(got, field.name) == getattr(put, field.name), field.name
    assert got.measurement is not None
    assert put.measurement is not None
    for field in fields(Measurement):
        np.testing.assert_array_equal(getattr(got.measurement, field.name), getattr(put.measurement, field.name))


def test_store__keeps_where_a_number_came_from(url: str) -> None:
    with EvaluationStore(url) as store:
        store.put(key(), evaluation())
        (row,) = rows(store)
    assert "cores: " in row["hardware"]
    assert '"onnxruntime": ' in row["versions"]
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(row["measured_at"])
    assert abs(age) < datetime.timedelta(minutes=5)


def test_store__applies_prices_on_reading(url: str) -> None:
    dear = Prices(tuple(r.model_copy(update={"usd_per_vcpu_hour": 100.0}) for r in PRICES.resources))
    with EvaluationStore(url) as store:
        store.put(key(), evaluation())
        cheap, costly = read(store, key()), read(store, key(), dear)
    assert cheap is not None
    assert costly is not None
    assert costly.latency_ms_mean == cheap.latency_ms_mean
    assert costly.cost_usd_per_million > 100 * cheap.cost_usd_per_million > 0


@pytest.mark.parametrize(
    "change",
    [
        {"composition_id": "1"},
        {"data_sha256": "other"},
        {"resource": "cpu-2"},
        {"load": "offline:1"},
        {"batch": 2},
        {"protocol": "3 accuracy"},
    ],
    ids=str,
)
def test_store__every_part_of_the_key_tells_evaluations_apart(url: str, change: dict) -> None:
    with EvaluationStore(url) as store:
        store.put(key(), evaluation())
        assert read(store, key(**change)) is None
        assert read(store, key()) is not None


def test_store__first_evaluation_stays(url: str) -> None:
    with EvaluationStore(url) as store:
        store.put(key(), evaluation(latency_ms=1.0))
        store.put(key(), evaluation(latency_ms=2.0))
        assert len(store) == 1
        assert latency_of(store, key()) == 1.0


def test_store__failure_is_kept_and_told_with_the_way_out(url: str) -> None:
    with EvaluationStore(url) as store:
        store.put_failure(key(), "worker\ncrashed \x00\ud800 by SIGSEGV", evaluator="onnx", wall_s=12.5)
        store.put_failure(key(), "a later reason", evaluator="onnx", wall_s=1.0)
        with pytest.raises(EvaluationError) as caught:
            read(store, key())
        (row,) = rows(store)
    assert str(caught.value).startswith("worker crashed by SIGSEGV (failed on 20")
    assert "gnncompose store prune " in str(caught.value)
    assert "--failed" in str(caught.value)
    assert "gnncompose:" not in str(caught.value), "the password is shown"
    assert (row["failure"], row["wall_s"]) == ("worker crashed by SIGSEGV", 12.5)
    assert row["hardware"]
    assert row["measured_at"]
    assert row["score"] is None


def test_store__success_takes_the_place_of_a_failure_and_never_the_reverse(url: str) -> None:
    with EvaluationStore(url) as store:
        store.put_failure(key(), "out of memory", evaluator="onnx", wall_s=1.0)
        store.put(key(), evaluation(latency_ms=1.0))
        assert latency_of(store, key()) == 1.0
        store.put_failure(key(), "out of memory", evaluator="onnx", wall_s=1.0)
        store.put(key(), evaluation(latency_ms=2.0))
        assert latency_of(store, key()) == 1.0
        assert len(store) == 1


def test_store__prunes_what_meets_every_criterion(url: str) -> None:
    now = datetime.datetime.now(datetime.UTC)
    old, soon = now - datetime.timedelta(days=30), now + datetime.timedelta(days=1)
    with EvaluationStore(url) as store:
        for number in range(4):
            store.put(key(number), evaluation(number))
        store.put(key(0, protocol="1"), evaluation(0))
        store.put_failure(key(5), "crash", evaluator="onnx", wall_s=1.0)
        store.put_failure(key(6, protocol="1"), "crash", evaluator="onnx", wall_s=1.0)
        assert store.prune(failed=True, before=old) == 0
        assert store.prune(failed=True, protocol="1", before=soon, dry_run=True) == 1
        assert len(store) == 7
        assert store.prune(failed=True, protocol="1", before=soon) == 1
        assert store.prune(protocol="1") == 1
        assert store.prune(failed=True) == 1
        assert read(store, key(5)) is None
        assert len(store) == 4
        with pytest.raises(StoreError, match="what to prune"):
            store.prune()
        assert store.prune(before=soon) == 4


def test_store__refuses_what_was_not_measured_or_is_no_number(url: str) -> None:
    with EvaluationStore(url) as store:
        for broken in (
            evaluation(measurement=None),
            evaluation(deviation={"score": 0.1}),
            evaluation(score=math.nan),
            evaluation(latency_ms_p95=math.inf),
        ):
            with pytest.raises(EvaluationError):
                store.put(key(), broken)
        with pytest.raises(ValueError, match="the key is of composition"):
            store.put(key(1), evaluation(2))
        assert len(store) == 0
    with pytest.raises(EvaluationError, match="shorter name"):
        key(resource="r" * 65)


@pytest.mark.parametrize("change", [{"score": None}, {"samples": None}, {"failure": "crash"}], ids=str)
def test_store__database_refuses_half_an_evaluation(url: str, change: dict) -> None:
    with EvaluationStore(url) as store:
        store.put(key(), evaluation())
        (row,) = rows(store)
        with pytest.raises(IntegrityError), store.engine.begin() as connection:
            connection.execute(EVALUATIONS.insert(), row | {"composition_id": "1"} | change)


# Trouble


def test_store__processes_write_at_once_and_lose_nothing(url: str) -> None:
    assert in_processes(write_evaluations, [(url, 0, 150, 1.0), (url, 100, 150, 2.0)]) == [0, 0]
    with EvaluationStore(url) as store:
        assert len(store) == 250
        assert {latency_of(store, key(number)) for number in range(100)} == {1.0}
        assert {latency_of(store, key(number)) for number in range(150, 250)} == {2.0}


def test_store__writes_again_while_another_holds_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0)
    path = tmp_path / "evaluations.db"
    with EvaluationStore(f"sqlite:///{path}") as store:
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.5, other.rollback)
        timer.start()
        store.put(key(), evaluation())
        timer.join()
        assert len(store) == 1
        monkeypatch.setattr(database, "RETRY_AFTER_S", (0.01,))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="did not take an evaluation: database is locked"):
            store.put(key(1), evaluation(1))
        assert len(store) == 1
        other.close()


@pytest.mark.slow
def test_store__goes_on_after_the_server_restarted(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "RETRY_AFTER_S", (0.2,) * 500)  # a busy machine is slow to start a server
    with EvaluationStore(server.new_database()) as store:
        store.put(key(0), evaluation(0))
        server.stop()
        timer = threading.Timer(1.0, server.start)
        timer.start()
        store.put(key(1), evaluation(1))
        timer.join()
        server.stop()
        server.start()
        assert read(store, key(0)) is not None
        assert len(store) == 2


@pytest.mark.slow
@pytest.mark.parametrize("place", ["--url sqlite", "--postgres --without-fsync"])
def test_store__writers_killed_while_they_write_lose_and_double_nothing(place: str) -> None:
    if "--postgres" in place and postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    size = ["--processes", "4", "--writes", "250", "--samples", "2000", "--kill-every", "0.2"]
    done = subprocess.run(
        [sys.executable, str(STRESS), *place.split(), *size], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills_during_a_write"] > 0
    assert found["rows"] == found["keys"] == 1000
    assert [found[name] for name in ("lost", "double", "mixed", "overwritten", "stray", "damaged")] == [0] * 6
