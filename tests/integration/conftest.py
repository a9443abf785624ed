"""Databases for tests of the evaluation store: a SQLite file, and one of a real PostgreSQL server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import PostgresServer, postgres_programs


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with PostgresServer(durable=False) as running:
        yield running


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be made; a database of its own for each test."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/evaluations.db"
    return request.getfixturevalue("server").new_database()
