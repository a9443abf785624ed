"""Evaluations, and failures, in a database that several processes may write to at once.

Resource use is stored, money is not: prices are applied when an evaluation is read.
"""

from __future__ import annotations

import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from gnncompose.errors import EvaluationError, StoreError
from gnncompose.evaluation.store.database import (
    first_line_of,
    is_empty,
    make_engine,
    migrate,
    persist,
    reported,
    shown,
    unopened,
)
from gnncompose.evaluation.store.rows import evaluation_row, failure_row, moment, row_evaluation
from gnncompose.evaluation.store.schema import EVALUATIONS, KEY

if TYPE_CHECKING:
    from gnncompose.evaluation.cost import Prices
    from gnncompose.evaluation.evaluation import Evaluation
    from gnncompose.evaluation.store.key import Key
    from gnncompose.tasks.task import World


class EvaluationStore:
    """Evaluations by their key: what was measured, on which data, where and how.

    The first evaluation of a key stays, so that every process sees the same numbers. A failure stays until an
    evaluation that succeeded takes its place (the artifact can run, so what failed was the moment), or until it is
    pruned; it never takes the place of anything.

    Attributes:
        url: Where the store is.
        engine: Its connections.
    """

    def __init__(self, url: str, create: bool = True) -> None:
        """Open a store, and bring an older one to the newest revision with all its rows.

        Args:
            url: As SQLAlchemy writes it: `sqlite:///evaluations.db` or `postgresql://user@host/database`.
            create: Whether to make one where there is none.

        Raises:
            StoreError: There is none and none is to be made, the database cannot be opened, its driver is not
                installed, or a newer gnncompose wrote it.
        """
        self.url = url
        self.engine = make_engine(url)
        try:
            if not create and persist(lambda: is_empty(self.engine), connecting=True):
                raise StoreError(f"there is no evaluation store at {shown(url)}; correct its path or URL")
            persist(lambda: migrate(self.engine), connecting=True)
        except SQLAlchemyError as problem:
            raise unopened(url, first_line_of(problem)) from None

    def __enter__(self) -> EvaluationStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Rows: evaluations and failures.

        Raises:
            StoreError: The database cannot be read.
        """
        with reported("the evaluation store cannot be read"):
            return persist(self._count)

    def put(self, key: Key, evaluation: Evaluation) -> None:
        """Store an evaluation; where its key has one already, the first one stays.

        Once this returns, the evaluation survives the end of the process, however it ends.

        Args:
            key: What it is found by.
            evaluation: What to store; it must carry its measurement.

        Raises:
            EvaluationError: The evaluation was not measured, or a figure of it is no number.
            StoreError: The database refuses.
        """
        if key.composition_id != evaluation.composition_id:
            raise ValueError(f"the key is of composition {key.composition_id}, not of {evaluation.composition_id}")
        insert = self._insert(evaluation_row(key, evaluation))
        others = {column.name: insert.excluded[column.name] for column in EVALUATIONS.c if column.name not in KEY}
        self._write(
            insert.on_conflict_do_update(
                index_elements=list(KEY), set_=others, where=EVALUATIONS.c.failure.is_not(None)
            )
        )

    def put_failure(self, key: Key, reason: str, *, evaluator: str, wall_s: float) -> None:
        """Store that an evaluation failed; what its key has already stays.

        Args:
            key: What it is found by.
            reason: Why it failed, in one line.
            evaluator: Name of the evaluator that tried.
            wall_s: Seconds that the attempt took.

        Raises:
            StoreError: The database refuses.
        """
        insert = self._insert(failure_row(key, reason, evaluator, wall_s))
        self._write(insert.on_conflict_do_nothing(index_elements=list(KEY)))

    def get(self, key: Key, world: World, split: str, prices: Prices) -> Evaluation | None:
        """The stored evaluation, at today's prices; None where there is none.

        Args:
            key: What it is found by.
            world: The world that it is asked for in.
            split: The split that it is asked for on.
            prices: Turn its resource use into money.

        Raises:
            EvaluationError: The stored evaluation failed; the message gives the reason and how to try again.
            StoreError: The database cannot be read.
        """
        query = sql.select(EVALUATIONS).where(*(EVALUATIONS.c[name] == value for name, value in key.columns.items()))
        with reported("the evaluation store cannot be read"):
            row = persist(lambda: self._first(query))
        if row is None:
            return None
        if row["failure"] is not None:
            raise EvaluationError(
                f"{row['failure']} (failed on {row['measured_at'][:10]}, says the evaluation store; to try again: "
                f"gnncompose store prune {shown(self.url)} --failed)"
            )
        return row_evaluation(row, world, split, prices)

    def prune(
        self,
        *,
        failed: bool = False,
        protocol: str | None = None,
        before: datetime.datetime | None = None,
        dry_run: bool = False,
    ) -> int:
        """Forget the rows that meet every criterion given; at least one must be.

        Args:
            failed: Only failures.
            protocol: Only what was measured by this protocol.
            before: Only what was measured before this moment.
            dry_run: Count them and forget none.

        Returns:
            How many rows went, or would go.

        Raises:
            StoreError: No criterion was given, or the database refuses.
        """
        criteria = []
        if failed:
            criteria.append(EVALUATIONS.c.failure.is_not(None))
        if protocol is not None:
            criteria.append(EVALUATIONS.c.protocol == protocol)
        if before is not None:
            criteria.append(EVALUATIONS.c.measured_at < moment(before))
        if not criteria:
            raise StoreError("what to prune? give --failed, --protocol or --older-than; several must all be met")
        with reported("the evaluation store forgot nothing"):
            if dry_run:
                return persist(lambda: self._count(*criteria))
            return persist(lambda: self._execute(EVALUATIONS.delete().where(*criteria)))

    def close(self) -> None:
        """Give back the connections."""
        self.engine.dispose()

    def _insert(self, row: dict[str, Any]) -> postgresql.Insert | sqlite.Insert:
        # One method per dialect, of the same name and meaning.
        dialect = postgresql if self.engine.dialect.name == "postgresql" else sqlite
        return dialect.insert(EVALUATIONS).values(row)

    def _write(self, statement: sql.Executable) -> None:
        with reported("the evaluation store did not take an evaluation"):
            persist(lambda: self._execute(statement))

    def _execute(self, statement: sql.Executable) -> int:
        with self.engine.begin() as connection:
            return connection.execute(statement).rowcount

    def _first(self, query: sql.Select) -> sql.RowMapping | None:
        with self.engine.connect() as connection:
            return connection.execute(query).mappings().first()

    def _count(self, *criteria: sql.ColumnElement[bool]) -> int:
        with self.engine.connect() as connection:
            return connection.execute(
                sql.select(sql.func.count()).select_from(EVALUATIONS).where(*criteria)
            ).scalar_one()
