"""What a store holds, counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sql

from gnncompose.evaluation.store.database import persist, reported
from gnncompose.evaluation.store.schema import EVALUATIONS, TABLE
from gnncompose.evaluation.store.store import EvaluationStore

GROUPS = ("data_sha256", "resource", "load", "batch", "protocol", "evaluator", "hardware")
REASONS = 10


@dataclass
class Count:
    """Rows of one kind.

    Attributes:
        evaluations: Those that succeeded.
        failures: Those that failed.
    """

    evaluations: int = 0
    failures: int = 0


@dataclass
class StoreStatistics:
    """What a store holds.

    Attributes:
        bytes: Size on disk.
        total: All rows.
        groups: Rows by the values of each column of `GROUPS`.
        reasons: The most frequent reasons of failures, with how often each was given.
        first_measured_at: When the oldest row was measured; None where the store is empty.
        last_measured_at: When the newest row was.
    """

    bytes: int
    total: Count = field(default_factory=Count)
    groups: dict[str, dict[str, Count]] = field(default_factory=lambda: {name: {} for name in GROUPS})
    reasons: dict[str, int] = field(default_factory=dict)
    first_measured_at: str | None = None
    last_measured_at: str | None = None


def store_statistics(store: EvaluationStore) -> StoreStatistics:
    """Count what a store holds.

    Raises:
        StoreError: The database cannot be read.
    """
    columns = EVALUATIONS.c
    kinds = [columns[name] for name in GROUPS] + [columns.failure.is_not(None).label("failed")]
    # One query for all counts, so that they agree while others write.
    query = sql.select(
        *kinds,
        sql.func.count().label("rows"),
        sql.func.min(columns.measured_at).label("first"),
        sql.func.max(columns.measured_at).label("last"),
    ).group_by(*kinds)
    frequency = sql.func.count().label("frequency")
    reasons = (
        sql.select(columns.failure, frequency)
        .where(columns.failure.is_not(None))
        .group_by(columns.failure)
        .order_by(frequency.desc(), columns.failure)
        .limit(REASONS)
    )
    with reported("the evaluation store cannot be read"):
        groups, failures, size = persist(lambda: _read(store, query, reasons))
    found = StoreStatistics(size, reasons={row["failure"]: row["frequency"] for row in failures})
    for row in groups:
        counts = [found.groups[name].setdefault(str(row[name]), Count()) for name in GROUPS]
        for count in (found.total, *counts):
            count.failures += row["rows"] if row["failed"] else 0
            count.evaluations += 0 if row["failed"] else row["rows"]
    found.first_measured_at = min((row["first"] for row in groups), default=None)
    found.last_measured_at = max((row["last"] for row in groups), default=None)
    return found


def _read(
    store: EvaluationStore, query: sql.Select, reasons: sql.Select
) -> tuple[list[sql.RowMapping], list[sql.RowMapping], int]:
    with store.engine.connect() as connection:
        groups = list(connection.execute(query).mappings())
        failures = list(connection.execute(reasons).mappings())
        if store.engine.dialect.name == "postgresql":
            return groups, failures, connection.execute(sql.select(sql.func.pg_total_relation_size(TABLE))).scalar_one()
    file = Path(store.engine.url.database or "")
    files = [file, file.with_name(f"{file.name}-wal")]
    return groups, failures, sum(path.stat().st_size for path in files if path.exists())
