"""Opening a database: its URL, its connections, its revision, and what to do when it is busy or away for a moment."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from gnncompose.errors import StoreError
from gnncompose.evaluation.store.schema import FIRST, FIRST_COLUMNS, HEAD, TABLE, VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

Answer = TypeVar("Answer")

MIGRATIONS = Path(__file__).with_name("migrations")
BUSY_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 10
RETRY_AFTER_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
SQLITE_BUSY, SQLITE_LOCKED, SQLITE_PROTOCOL = 5, 6, 15  # https://sqlite.org/rescode.html
# Serialization failure, deadlock, shutdown (three kinds), too many connections; class 08 is a lost connection.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
PASSING_SQLSTATES = {"40001", "40P01", "57P01", "57P02", "57P03", "53300"}
MIGRATION_LOCK = 7_170_317_042_001  # any number, the same in every process
ALEMBIC = threading.Lock()  # Alembic keeps the migration that it runs in a global


def make_engine(url: str) -> sql.Engine:
    """An engine for SQLite or PostgreSQL; nothing is opened yet.

    Raises:
        StoreError: The URL cannot be read, names another database, or its driver is not installed.
    """
    try:
        address = sql.make_url(url)
        if address.drivername in ("postgresql", "postgres"):
            address = address.set(drivername="postgresql+psycopg")
        backend = address.get_backend_name()
        if backend == "sqlite":
            engine = sql.create_engine(address, connect_args={"timeout": BUSY_TIMEOUT_S})
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        if backend == "postgresql":
            return sql.create_engine(address, connect_args={"connect_timeout": CONNECT_TIMEOUT_S})
    except ImportError as problem:
        if "psycopg" in str(problem):
            raise StoreError(
                f"the evaluation store {shown(url)} needs psycopg; pip install 'gnncompose[postgres]'"
            ) from None
        raise unopened(url, str(problem)) from None
    except SQLAlchemyError as problem:
        raise unopened(url, first_line_of(problem)) from None
    raise unopened(url, f"{backend} is neither SQLite nor PostgreSQL")


def url_of(text: str) -> str:
    """The URL that a person means: their own, or that of the SQLite file at a plain path."""
    return text if "://" in text else sql.URL.create("sqlite", database=text).render_as_string()


def unopened(url: str, reason: str) -> StoreError:
    """The error of a store that does not open."""
    return StoreError(
        f"the evaluation store {shown(url)} does not open: {reason}; give a URL such as sqlite:///evaluations.db in "
        f"a folder that exists, or postgresql://user@host/database"
    )


def shown(url: str) -> str:
    """The URL without user and password, to stand in a message."""
    return re.sub(r"(?<!sqlite)://.*@", "://***@", url)


def revision(connection: sql.Connection) -> str | None:
    """The revision of the store in a database; None where it keeps none."""
    if not sql.inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(sql.select(sql.column("version_num")).select_from(sql.table(VERSION_TABLE))).scalar()


def is_empty(engine: sql.Engine) -> bool:
    """Whether a database has no table of evaluations; a SQLite file that does not exist is not made."""
    file = engine.url.database
    if engine.dialect.name == "sqlite" and not (file and Path(file).is_file()):
        return True
    with engine.connect() as connection:
        return not sql.inspect(connection).has_table(TABLE)


def migrate(engine: sql.Engine) -> None:
    """Bring a database to the newest revision, however many processes try at once; without one it gets the table.

    Raises:
        StoreError: A newer gnncompose wrote it, or its table `evaluations` is another program's.
        SQLAlchemyError: The database refuses.
    """
    with engine.connect() as connection:
        if revision(connection) == HEAD:
            return  # nearly always; Alembic need not even be imported
    if engine.dialect.name == "sqlite":
        _use_write_ahead_log(engine)
    with ALEMBIC, engine.connect().execution_options(sqlite_begin="BEGIN IMMEDIATE") as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        _upgrade(connection, revision(connection))


def persist(work: Callable[[], Answer], *, connecting: bool = False) -> Answer:
    """Do work on a database, again after a pause where it is busy, lost a race, or went away: 9 times in 13 s.

    The work must be one transaction that may be repeated, since a connection may break after the commit.

    Args:
        work: What to do.
        connecting: Whether this is the first contact; then a server that does not answer is no passing trouble.

    Raises:
        SQLAlchemyError: The database refuses for good, or for too long.
    """
    for pause_s in RETRY_AFTER_S:
        try:
            return work()
        except DBAPIError as problem:
            if not _is_passing(problem, connecting):
                raise
        time.sleep(pause_s)
    return work()


def first_line_of(problem: SQLAlchemyError) -> str:
    """What the database said, in one line, without the statement."""
    text = str(getattr(problem, "orig", None) or problem)
    return (text.splitlines() or [type(problem).__name__])[0][:300]


@contextmanager
def reported(doing: str) -> Iterator[None]:
    """Turn the database's refusals into one line.

    Raises:
        StoreError: The database refused.
    """
    try:
        yield
    except SQLAlchemyError as problem:
        raise StoreError(f"{doing}: {first_line_of(problem)}; see that the database is up and not full") from None


def _upgrade(connection: sql.Connection, found: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    if found is None and sql.inspect(connection).has_table(TABLE):
        if {column["name"] for column in sql.inspect(connection).get_columns(TABLE)} != set(FIRST_COLUMNS):
            raise StoreError(
                f"the database {shown(str(connection.engine.url))} has a table {TABLE} that is not gnncompose's; "
                f"give the store a database of its own"
            )
        command.stamp(config, FIRST)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StoreError(
            f"the evaluation store {shown(str(connection.engine.url))} has revision {found}, written by a newer "
            f"gnncompose; upgrade gnncompose, or give another store"
        )
    if found != HEAD:
        command.upgrade(config, "head")


def _is_passing(problem: DBAPIError, connecting: bool) -> bool:
    code = getattr(problem.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in (SQLITE_BUSY, SQLITE_LOCKED, SQLITE_PROTOCOL)  # the low byte is the kind
    state = getattr(problem.orig, "sqlstate", None)
    if state is not None:
        return state in PASSING_SQLSTATES or state.startswith("08")
    # Without a code it came from the client: the connection broke, or none could be made.
    return problem.connection_invalidated or (isinstance(problem, OperationalError) and not connecting)


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # The driver would begin transactions by itself, but not before DDL, and never an immediate one.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _begin_sqlite(connection: sql.Connection) -> None:
    statement = connection.get_execution_options().get("sqlite_begin", "BEGIN")
    if statement is not None:
        connection.exec_driver_sql(statement)


def _use_write_ahead_log(engine: sql.Engine) -> None:
    """Let readers and a writer work at once. The file remembers it; it cannot be set within a transaction."""
    with engine.connect().execution_options(sqlite_begin=None) as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
