"""Opening an evaluation store: making its table, bringing an old one along, refusing what is none."""

import functools
import math
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres import PostgresServer
from stored import evaluation, in_processes, key, open_store

from gnncompose.errors import StoreError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.store import EvaluationStore, database
from gnncompose.evaluation.store.schema import EVALUATIONS, FIRST_COLUMNS, HEAD, VERSION_TABLE
from gnncompose.tasks.task import World

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
        found = store.get(key(7, protocol="1 accuracy 2x2"), World(), "validation", load_prices())
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


def test_store__migration_that_breaks_off_leaves_the_old_one_whole(url: str) -> None:
    make_first_store(url)
    engine = database.make_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE evaluations SET latency_ms_mean = 0 WHERE composition_id LIKE '%%7'")
    with pytest.raises(StoreError, match="does not open"):
        EvaluationStore(url)
    with engine.begin() as connection:
        assert {column["name"] for column in sql.inspect(connection).get_columns("evaluations")} == set(FIRST_COLUMNS)
        assert sql.inspect(connection).get_table_names() == ["evaluations"]
        connection.exec_driver_sql("UPDATE evaluations SET latency_ms_mean = 2.5")
    engine.dispose()
    with EvaluationStore(url) as store:
        assert_newest(store)
        assert len(store) == 20


@pytest.mark.parametrize("old", [False, True])
def test_store__many_processes_open_it_at_once(url: str, old: bool) -> None:
    if old:
        make_first_store(url)
    assert in_processes(open_store, [(url,)] * 4) == [0] * 4
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


@pytest.mark.slow
def test_store__password_may_stay_out_of_the_url(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.new_database()
    password = str(sql.make_url(url).password)
    monkeypatch.setenv("PGPASSWORD", password)
    with EvaluationStore(url.replace(f":{password}@", "@")) as store:
        assert_newest(store)
