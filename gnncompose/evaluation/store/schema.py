"""The one table of a store, as its newest migration leaves it."""

from __future__ import annotations

from dataclasses import fields

import sqlalchemy as sql

from gnncompose.evaluation.store.key import TEXT_LIMIT, Key

TABLE = "evaluations"
# Of its own name, so that a database may be shared with another program that uses Alembic.
VERSION_TABLE = "evaluations_alembic_version"
FIRST, HEAD = "0001", "0002"
# What tells a store that keeps no revision, as the first ones did, from another program's table.
FIRST_COLUMNS = (
    "composition_id",
    "data_sha256",
    "resource",
    "scenario",
    "batch",
    "protocol",
    "metric",
    "score",
    "latency_ms_mean",
    "latency_ms_p50",
    "latency_ms_p95",
    "latency_ms_p99",
    "samples",
    "repeats",
    "cpu_ms",
    "peak_memory_bytes",
    "artifact_bytes",
    "reference_ms",
    "evaluator",
    "hardware",
    "measured_at",
)

KEY = tuple(field.name for field in fields(Key))
# What every evaluation that did not fail has.
FIGURES = (
    "metric",
    "score",
    "latency_ms_mean",
    "latency_ms_p50",
    "throughput_per_s",
    "cpu_ms",
    "peak_memory_bytes",
    "artifact_bytes",
    "reference_ms",
)
PERCENTILES = ("latency_ms_p90", "latency_ms_p95", "latency_ms_p99")
SAMPLES = ("samples", "repeats")

EVALUATIONS = sql.Table(
    TABLE,
    sql.MetaData(),
    *(sql.Column(name, sql.String(TEXT_LIMIT[name]), primary_key=True) for name in KEY[:4]),
    sql.Column("batch", sql.Integer, primary_key=True),
    sql.Column("protocol", sql.String(TEXT_LIMIT["protocol"]), primary_key=True),
    sql.Column("failure", sql.Text),
    sql.Column("metric", sql.Double),
    sql.Column("score", sql.Double),
    sql.Column("latency_ms_mean", sql.Double),
    sql.Column("latency_ms_p50", sql.Double),
    sql.Column("latency_ms_p90", sql.Double),
    sql.Column("latency_ms_p95", sql.Double),
    sql.Column("latency_ms_p99", sql.Double),
    sql.Column("throughput_per_s", sql.Double),
    sql.Column("samples", sql.LargeBinary),
    sql.Column("repeats", sql.Integer),
    sql.Column("cpu_ms", sql.Double),
    sql.Column("peak_memory_bytes", sql.BigInteger),
    sql.Column("artifact_bytes", sql.BigInteger),
    sql.Column("reference_ms", sql.Double),
    sql.Column("noise", sql.Double),
    sql.Column("wall_s", sql.Double),
    sql.Column("evaluator", sql.String(64), nullable=False),
    sql.Column("hardware", sql.Text, nullable=False),
    sql.Column("versions", sql.Text),
    sql.Column("git_sha", sql.String(64)),
    sql.Column("measured_at", sql.String(32), nullable=False),
    # The database itself refuses an evaluation that is neither whole nor failed.
    sql.CheckConstraint(
        f"CASE WHEN failure IS NULL THEN {' AND '.join(f'{name} IS NOT NULL' for name in FIGURES + SAMPLES)} "
        f"ELSE {' AND '.join(f'{name} IS NULL' for name in FIGURES + PERCENTILES + SAMPLES)} END",
        name="ck_evaluations_whole_or_failed",
    ),
)
