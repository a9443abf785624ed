"""The table as the first stores had it, before they kept a revision."""

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "evaluations",
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
        sql.Column("latency_ms_p95", sql.Double, nullable=False),
        sql.Column("latency_ms_p99", sql.Double, nullable=False),
        sql.Column("samples", sql.LargeBinary, nullable=False),
        sql.Column("repeats", sql.Integer, nullable=False),
        sql.Column("cpu_ms", sql.Double, nullable=False),
        sql.Column("peak_memory_bytes", sql.BigInteger, nullable=False),
        sql.Column("artifact_bytes", sql.BigInteger, nullable=False),
        sql.Column("reference_ms", sql.Double, nullable=False),
        sql.Column("evaluator", sql.String(64), nullable=False),
        sql.Column("hardware", sql.Text, nullable=False),
        sql.Column("measured_at", sql.String(32), nullable=False),
    )
