"""What was deployed, what became of it, and what is live: on disk, so that no crash loses it.

One SQLite file in write-ahead mode. Whether a deployment is live is one row, written in one transaction, so a process
that is killed at any moment leaves either the one before or the one after.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from gnncompose.errors import GnncomposeError

FILE = "deployments.sqlite"
KEPT = 1000  # deployments
PATIENCE_S = 1.0
What = Literal["refused", "shadow", "canary", "aborted", "live", "rolled_back"]
_SCHEMA = """
CREATE TABLE IF NOT EXISTS deployments (
    version INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, composition TEXT NOT NULL, reason TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, version INTEGER NOT NULL, what TEXT NOT NULL,
    detail TEXT NOT NULL
);
"""


class DeploymentError(GnncomposeError):
    """A composition is not deployed; what was live before still is."""


@dataclass(frozen=True)
class Deployment:
    """A composition that was to be deployed.

    Attributes:
        version: Counts up; clients see it as the model's version.
        composition: As a composition file has it.
        reason: Why it was to be deployed.
        at: When, in UTC, ISO 8601.
    """

    version: int
    composition: dict[str, Any]
    reason: str
    at: str


@dataclass(frozen=True)
class Event:
    """What became of a deployment.

    Attributes:
        version: Which.
        what: The new state.
        detail: Why, or what was measured.
        at: When, in UTC, ISO 8601.
    """

    version: int
    what: str
    detail: str
    at: str


class History:
    """The deployments of one server; may be used from several threads."""

    def __init__(self, folder: Path | None) -> None:
        """Open the history of a folder, which is made where there is none; None to keep it in memory.

        Raises:
            DeploymentError: It cannot be opened, or another server has it.
        """
        self._lock = threading.Lock()
        self._path = ":memory:" if folder is None else folder / FILE
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self._path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as problem:
            raise DeploymentError(
                f"{self._path}: {problem}; give each server a folder of its own that it may write to, by --state"
            ) from None

    def close(self) -> None:
        """Let others open it."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as problem:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise DeploymentError(f"{self._path}: {problem}; see that there is room on the disk") from None

    def add(self, composition: dict[str, Any], reason: str) -> Deployment:
        """Note that a composition is to be deployed."""
        at = _now()
        with self._transaction() as connection:
            row = (at, json.dumps(composition), reason)
            added = connection.execute("INSERT INTO deployments (at, composition, reason) VALUES (?, ?, ?)", row)
            version = int(added.lastrowid or 0)
            connection.execute("DELETE FROM deployments WHERE version <= ?", (version - KEPT,))
            connection.execute("DELETE FROM events WHERE version <= ?", (version - KEPT,))
        return Deployment(version, composition, reason, at)

    def note(self, version: int, what: What, detail: str = "") -> None:
        """Note what became of a deployment."""
        with self._transaction() as connection:
            row = (_now(), version, what, detail)
            connection.execute("INSERT INTO events (at, version, what, detail) VALUES (?, ?, ?, ?)", row)

    def good(self) -> list[Deployment]:
        """Deployments that were live and were not rolled back since, the one that became live last first."""
        query = """
            SELECT d.version, d.composition, d.reason, d.at FROM deployments d JOIN events e ON e.number = (
                SELECT MAX(number) FROM events WHERE version = d.version AND what IN ('live', 'rolled_back')
            ) WHERE e.what = 'live' ORDER BY e.number DESC
        """
        return [_deployment(row) for row in self._rows(query)]

    def deployments(self, limit: int = 50) -> list[Deployment]:
        """The latest, the newest first."""
        query = "SELECT version, composition, reason, at FROM deployments ORDER BY version DESC LIMIT ?"
        return [_deployment(row) for row in self._rows(query, limit)]

    def events(self, limit: int = 50) -> list[Event]:
        """The latest, the newest first."""
        query = "SELECT version, what, detail, at FROM events ORDER BY number DESC LIMIT ?"
        return [Event(*row) for row in self._rows(query, limit)]

    def _rows(self, query: str, *values: int) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()


def _deployment(row: tuple[int, str, str, str]) -> Deployment:
    version, composition, reason, at = row
    return Deployment(version, json.loads(composition), reason, at)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
