"""Keep failures, loads, throughput, noise and where a number came from.

Old rows stay: they were measured one request at a time, so their throughput is what their mean latency leaves;
their noise, p90, wall time, versions and commit are unknown and stay empty.
"""

import sqlalchemy as sql
from alembic import op

revision = "0002"
down_revision = "0001"

FIGURES = {
    "metric": sql.Double(),
    "score": sql.Double(),
    "latency_ms_mean": sql.Double(),
    "latency_ms_p50": sql.Double(),
    "throughput_per_s": sql.Double(),
    "cpu_ms": sql.Double(),
    "peak_memory_bytes": sql.BigInteger(),
    "artifact_bytes": sql.BigInteger(),
    "reference_ms": sql.Double(),
    "samples": sql.LargeBinary(),
    "repeats": sql.Integer(),
}
PERCENTILES = {"latency_ms_p90": sql.Double(), "latency_ms_p95": sql.Double(), "latency_ms_p99": sql.Double()}


def upgrade() -> None:
    """Widen the table; what only failures lack may now be empty."""
    op.execute("ALTER TABLE evaluations RENAME COLUMN scenario TO load")
    for name in ("throughput_per_s", "latency_ms_p90", "noise", "wall_s"):
        op.add_column("evaluations", sql.Column(name, sql.Double))
    for name in ("failure", "versions"):
        op.add_column("evaluations", sql.Column(name, sql.Text))
    op.add_column("evaluations", sql.Column("git_sha", sql.String(64)))
    op.execute("UPDATE evaluations SET throughput_per_s = 1000 / latency_ms_mean")
    whole = " AND ".join(f"{name} IS NOT NULL" for name in FIGURES)
    none = " AND ".join(f"{name} IS NULL" for name in [*FIGURES, *PERCENTILES])
    with op.batch_alter_table("evaluations") as table:  # SQLite cannot alter a column; this copies the table there
        for name, kind in (FIGURES | PERCENTILES).items():
            table.alter_column(name, existing_type=kind, nullable=True)
        table.create_check_constraint(
            "ck_evaluations_whole_or_failed", f"CASE WHEN failure IS NULL THEN {whole} ELSE {none} END"
        )
