"""The evaluation store: what was measured once need not be measured again, in this run or another.

Resource use is stored, money is not: prices are applied when an evaluation is read. Several processes may
write to one store.
"""

from __future__ import annotations

import datetime
import zlib
from typing import Any

import numpy as np
import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.schema import CreateTable

from gnncompose.errors import EvaluationError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.evaluation import Evaluation, Measurement
from gnncompose.execution.sessions import first_line
from gnncompose.provenance import hardware
from gnncompose.tasks.task import World

BUSY_TIMEOUT_S = 60

EVALUATIONS = sql.Table(
    "evaluations",
    sql.MetaData(),
    sql.Column("composition_id", sql.String(64), primary_key=True),
    sql.Column("data_sha256", sql.String(64), primary_key=True),
    sql.Column("resource", sql.String(64), primary_key=True),
    sql.Column("scenario", sql.String(64), primary_key=True),
    sql.Column("batch", sql.Integer, primary_key=True),
    sql.Column("protocol", sql.String(128), primary_key=True),
    sql.Column("metric", sql.Double, nullable=False),
    sql.Column("score", sql.Double, nullable=False),
    sql.Column("latency_ms_mean", sql.Double, nullable=False),
    sql.Column("latency_ms_p50", sql.Double, nullable=False),
    sql.Column("latency_ms_p90", sql.Double),
    sql.Column("latency_ms_p95", sql.Double),
    sql.Column("latency_ms_p99", sql.Double),
    sql.Column("throughput_per_s", sql.Double, nullable=False),
    sql.Column("samples", sql.LargeBinary, nullable=False),
    sql.Column("repeats", sql.Integer, nullable=False),
    sql.Column("cpu_ms", sql.Double, nullable=False),
    sql.Column("peak_memory_bytes", sql.BigInteger, nullable=False),
    sql.Column("artifact_bytes", sql.BigInteger, nullable=False),
    sql.Column("reference_ms", sql.Double, nullable=False),
    sql.Column("noise", sql.Double, nullable=False),
    sql.Column("evaluator", sql.String(64), nullable=False),
    sql.Column("hardware", sql.Text, nullable=False),
    sql.Column("measured_at", sql.String(32), nullable=False),
)


class EvaluationStore:
    """Evaluations in a database, keyed by what they were measured of, on and by."""

    def __init__(self, url: str) -> None:
        """Open a store and make its table where there is none.

        Args:
            url: As SQLAlchemy writes it, such as `sqlite:///evaluations.db`.

        Raises:
            EvaluationError: The database cannot be opened.
        """
        try:
            address = sql.make_url(url)
            sqlite = address.get_backend_name() == "sqlite"
            self.engine = sql.create_engine(address, connect_args={"timeout": BUSY_TIMEOUT_S} if sqlite else {})
            if sqlite:
                event.listen(self.engine, "connect", _prepare_sqlite)
            with self.engine.begin() as connection:
                connection.execute(CreateTable(EVALUATIONS, if_not_exists=True))
        except (SQLAlchemyError, ImportError) as problem:
            raise EvaluationError(
                f"the evaluation store {url!r} does not open: {first_line(problem)}; give a URL such as "
                f"sqlite:///evaluations.db in a folder that exists"
            ) from None

    def __len__(self) -> int:
        with self.engine.connect() as connection:
            return connection.execute(sql.select(sql.func.count()).select_from(EVALUATIONS)).scalar_one()

    def put(self, evaluation: Evaluation, data_sha256: str, scenario: str, batch: int, protocol: str) -> None:
        """Store an evaluation; where its key is taken already, the first one stays.

        Args:
            evaluation: What to store; it must carry its measurement.
            data_sha256: The split that it was measured on.
            scenario: How requests arrived.
            batch: Rows per request.
            protocol: How it was measured.

        Raises:
            EvaluationError: The database refuses, or the evaluation has no measurement.
        """
        measurement = evaluation.measurement
        if measurement is None:
            raise EvaluationError("an evaluation without its measurement cannot be stored")
        row = {name: getattr(evaluation, name) for name in _PLAIN} | {
            "data_sha256": data_sha256,
            "resource": evaluation.world.resource,
            "scenario": scenario,
            "batch": batch,
            "protocol": protocol,
            "samples": zlib.compress(np.ascontiguousarray(measurement.samples_ms, dtype="<f8").tobytes()),
            "repeats": measurement.samples_ms.shape[1],
            "reference_ms": measurement.reference_ms,
            "noise": measurement.noise,
            "hardware": _hardware_text(),
            "measured_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        try:
            with self.engine.begin() as connection:
                connection.execute(EVALUATIONS.insert(), row)
        except IntegrityError:
            return
        except SQLAlchemyError as problem:
            raise EvaluationError(f"the evaluation store did not take an evaluation: {first_line(problem)}") from None

    def get(
        self,
        composition_id: str,
        data_sha256: str,
        world: World,
        split: str,
        scenario: str,
        batch: int,
        protocol: str,
        prices: Prices,
    ) -> Evaluation | None:
        """The stored evaluation, at today's prices; None where there is none.

        Raises:
            EvaluationError: The database cannot be read.
        """
        key = {
            "composition_id": composition_id,
            "data_sha256": data_sha256,
            "resource": world.resource,
            "scenario": scenario,
            "batch": batch,
            "protocol": protocol,
        }
        query = sql.select(EVALUATIONS).where(*(EVALUATIONS.c[name] == value for name, value in key.items()))
        try:
            with self.engine.connect() as connection:
                row = connection.execute(query).mappings().first()
        except SQLAlchemyError as problem:
            raise EvaluationError(f"the evaluation store cannot be read: {first_line(problem)}") from None
        return None if row is None else _evaluation(row, world, split, prices)

    def close(self) -> None:
        """Give back the connections."""
        self.engine.dispose()


_PLAIN = (
    "composition_id",
    "metric",
    "score",
    "latency_ms_mean",
    "latency_ms_p50",
    "latency_ms_p90",
    "latency_ms_p95",
    "latency_ms_p99",
    "throughput_per_s",
    "cpu_ms",
    "peak_memory_bytes",
    "artifact_bytes",
    "evaluator",
)


def _evaluation(row: sql.RowMapping, world: World, split: str, prices: Prices) -> Evaluation:
    samples = np.frombuffer(zlib.decompress(row["samples"]), dtype="<f8").reshape(-1, row["repeats"])
    plain: dict[str, Any] = {name: row[name] for name in _PLAIN}
    shared = ("cpu_ms", "throughput_per_s", "peak_memory_bytes", "artifact_bytes", "reference_ms", "noise")
    measurement = Measurement(samples, *(row[name] for name in shared))
    cost = prices.usd_per_million(world.resource, row["cpu_ms"], row["peak_memory_bytes"], row["latency_ms_mean"])
    return Evaluation(
        **plain, world=world, split=split, cost_usd_per_million=cost, cached=True, measurement=measurement
    )


def _hardware_text() -> str:
    return ", ".join(f"{name}: {value}" for name, value in hardware().items())


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    """Let readers and a writer work at once; writers wait for each other instead of failing."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()
