"""The evaluation store on SQLite and on a real PostgreSQL server."""

import datetime
import functools
import math
import multiprocessing
import sqlite3
import sys
import threading
import zlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres import PostgresServer, postgres_programs
from sqlalchemy.exc import IntegrityError
from stored import evaluation, key

from gnncompose.errors import EvaluationError, StoreError
from gnncompose.evaluation.cost import Prices, load_prices
from gnncompose.evaluation.evaluation import Evaluation, Measurement
from gnncompose.evaluation.store import EvaluationStore, Key, database
from gnncompose.evaluation.store.schema import EVALUATIONS, HEAD, VERSION_TABLE
from gnncompose.tasks.task import World

PRICES = load_prices()
# As the first release made it; SQLite has other words for two types.
FIRST_TABLE = """CREATE TABLE evaluations (
    composition_id VARCHAR(64) NOT NULL, data_sha256 VARCHAR(64) NOT NULL, resource VARCHAR(64) NOT NULL,
    scenario VARCHAR(64) NOT NULL, batch INTEGER NOT NULL, protocol VARCHAR(128) NOT NULL,
    metric DOUBLE PRECISION NOT NULL, score DOUBLE PRECISION NOT NULL, latency_ms_mean DOUBLE PRECISION NOT NULL,
    latency_ms_p50 DOUBLE PRECISION NOT NULL, latency_ms_p95 DOUBLE PRECISION NOT NULL,
    latency_ms_p99 DOUBLE PRECISION NOT NULL, samples BYTEA NOT NULL, repeats INTEGER NOT NULL,
    cpu_ms DOUBLE PRECISION NOT NULL, peak_memory_bytes BIGINT NOT NULL, artifact_bytes BIGINT NOT NULL,
    reference_ms DOUBLE PRECISION NOT NULL, evaluator VARCHAR(64) NOT NULL, hardware TEXT NOT NULL,
    measured_at VARCHAR(32) NOT NULL,
    PRIMARY KEY (composition_id, data_sha256, resource, scenario, batch, protocol))"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with PostgresServer() as running:
        yield running


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be made; a database of its own for each test."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/evaluations.db"
    return request.getfixturevalue("server").new_database()


def read(store: EvaluationStore, wanted: Key, prices: Prices = PRICES) -> Evaluation | None:
    return store.get(wanted, World(), "validation", prices)


def latency_of(store: EvaluationStore, wanted: Key) -> float:
    found = read(store, wanted)
    assert found is not None
    return found.latency_ms_mean


def rows(store: EvaluationStore) -> list[dict]:
    with store.engine.connect() as connection:
        return [dict(row) for row in connection.execute(sql.select(EVALUATIONS)).mappings()]


def in_processes(target, jobs: list[tuple]) -> list[int | None]:
    """Exit codes of processes that run side by side, one per job."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(jobs))
    processes = [context.Process(target=target, args=(barrier, *job)) for job in jobs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


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


# Opening and migrating


def make_first_store(url: str) -> None:
    """A store as the first release left it, with 20 rows."""
    engine = database.make_engine(url)
    samples = zlib.compress(np.array([[1.0, 2.0], [3.0, 4.0]], dtype="<f8").tobytes())
    with engine.begin() as connection:
        words = {"DOUBLE PRECISION": "DOUBLE", "BYTEA": "BLOB"} if engine.dialect.name == "sqlite" else {}
        connection.exec_driver_sql(functools.reduce(lambda text, word: text.replace(*word), words.items(), FIRST_TABLE))
        columns = "metric score latency_ms_mean latency_ms_p50 latency_ms_p95 latency_ms_p99 cpu_ms reference_ms"
        table = sql.table(
            "evaluations",
            *map(sql.column, columns.split()),
            *map(sql.column, ("composition_id", "data_sha256", "resource", "scenario", "batch", "protocol")),
            *map(sql.column, ("samples", "repeats", "peak_memory_bytes", "artifact_bytes")),
            *map(sql.column, ("evaluator", "hardware", "measured_at")),
        )
        for number in range(20):
            row = dict.fromkeys(columns.split(), 0.5) | {
                "latency_ms_mean": 2.5,
                "composition_id": f"{number:032d}",
                "data_sha256": "data",
                "resource": "cpu-1",
                "scenario": "single_stream",
                "batch": 1,
                "protocol": "1 accuracy 2x2",
                "samples": samples,
                "repeats": 2,
                "peak_memory_bytes": 5_000_000_000,
                "artifact_bytes": 7,
                "evaluator": "onnx",
                "hardware": "cpu: some",
                "measured_at": "2025-01-02T03:04:05+00:00",
            }
            connection.execute(table.insert(), row)
    engine.dispose()


def open_store(barrier, url: str) -> None:
    barrier.wait()
    EvaluationStore(url).close()


def assert_newest(store: EvaluationStore) -> None:
    with store.engine.connect() as connection:
        assert database.revision(connection) == HEAD
        settings = {"version_table": VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=settings), EVALUATIONS.metadata) == []


def test_store__new_one_has_the_newest_table(url: str) -> None:
    with EvaluationStore(url) as store:
        assert_newest(store)
        if store.engine.dialect.name == "sqlite":
            with store.engine.connect() as connection:
                assert connection.execute(sql.text("PRAGMA journal_mode")).scalar() == "wal"


def test_store__migrates_the_first_release_s_with_its_rows(url: str) -> None:
    make_first_store(url)
    with EvaluationStore(url) as store:
        assert_newest(store)
        assert len(store) == 20
        found = read(store, key(7, protocol="1 accuracy 2x2"))
        store.put(key(7, protocol="1 accuracy 2x2"), evaluation(7))
        store.put(key(7), evaluation(7))
        store.put_failure(key(8), "crash", evaluator="onnx", wall_s=1.0)
        assert len(store) == 22
    assert found is not None
    assert (found.latency_ms_mean, found.latency_ms_p50, found.latency_ms_p95) == (2.5, 0.5, 0.5)
    assert found.latency_ms_p90 is None
    assert found.throughput_per_s == 400
    assert found.peak_memory_bytes == 5_000_000_000
    assert found.measurement is not None
    assert found.measurement.samples_ms.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert math.isnan(found.measurement.noise)


@pytest.mark.parametrize("old", [False, True])
def test_store__many_processes_open_it_at_once(url: str, old: bool) -> None:
    if old:
        make_first_store(url)
    assert in_processes(open_store, [(url,)] * 6) == [0] * 6
    with EvaluationStore(url) as store:
        assert_newest(store)
        assert len(store) == (20 if old else 0)


def test_store__refuses_a_newer_one_and_another_program_s_table(url: str) -> None:
    with EvaluationStore(url) as store, store.engine.begin() as connection:
        connection.execute(sql.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(StoreError, match="revision 9999, written by a newer gnncompose"):
        EvaluationStore(url)
    engine = database.make_engine(url)
    with engine.begin() as connection:
        for table in (VERSION_TABLE, "evaluations"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        connection.exec_driver_sql("CREATE TABLE evaluations (mark INTEGER)")
    engine.dispose()
    with pytest.raises(StoreError, match="not gnncompose's"):
        EvaluationStore(url)


def test_store__opens_no_missing_one_unless_told_to_make_it(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(StoreError, match="there is no evaluation store at"):
        EvaluationStore(f"sqlite:///{path}", create=False)
    assert not path.exists()


@pytest.mark.parametrize("url", ["sqlite:///FOLDER/none/such.db", "nonsense", "strange://x", "mysql://x", "oracle://"])
def test_store__unusable_url_is_one_clear_line(tmp_path: Path, url: str) -> None:
    with pytest.raises(StoreError, match="give a URL such as") as caught:
        EvaluationStore(url.replace("FOLDER", str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_store__unreachable_server_is_one_clear_line_without_the_password() -> None:
    with pytest.raises(StoreError, match="give a URL such as") as caught:
        EvaluationStore("postgresql://user:secret@127.0.0.1:1/database")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_store__missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install 'gnncompose\[postgres\]'"):
        EvaluationStore("postgresql://user:secret@127.0.0.1:1/database")


# Trouble


def write_evaluations(barrier, url: str, first: int, count: int, latency_ms: float) -> None:
    barrier.wait()
    with EvaluationStore(url) as store:
        for number in range(first, first + count):
            store.put(key(number), evaluation(number, latency_ms))


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
def test_store__goes_on_after_the_server_restarted(server: PostgresServer) -> None:
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
