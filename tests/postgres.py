"""A real PostgreSQL server on loopback, of a folder of its own, started and ended by whoever needs one."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg import sql

DEBIAN = Path("/usr/lib/postgresql")
SERVER_ACCOUNT = "postgres"  # Debian's package makes it; the server refuses to run as root
START_TIMEOUT_S = 60
USER, DATABASE = "gnncompose", "postgres"


def postgres_programs() -> Path | None:
    """The folder of the newest installed server's programs; None where there is none."""
    folders = sorted(DEBIAN.glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
    found = next((folder for folder in folders if (folder / "initdb").exists()), None)
    on_path = shutil.which("initdb")
    return found or (Path(on_path).resolve().parent if on_path else None)


class PostgresServer:
    """A server with an empty database; use it in a `with` statement."""

    def __init__(self, durable: bool = True) -> None:
        """Find its programs; nothing is started yet.

        Args:
            durable: Whether a commit waits for the disk, as by default. Without, only a power cut would lose it.

        Raises:
            FileNotFoundError: PostgreSQL is not installed.
        """
        programs = postgres_programs()
        if programs is None:
            raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
        self._programs = programs
        self._durable = durable
        self._process: subprocess.Popen | None = None
        # Not in pytest's folders: those are closed to the server's account.
        self._folder = Path(tempfile.mkdtemp(prefix="gnncompose-postgres-"))
        self._account = SERVER_ACCOUNT if os.geteuid() == 0 else None
        if self._account is not None:
            shutil.chown(self._folder, self._account, self._account)
        self._password = secrets.token_hex(16)
        self._port = 0

    def __enter__(self) -> "PostgresServer":
        try:
            self._make_cluster()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Of its database, with user and password."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self._port}/{DATABASE}"

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"d{secrets.token_hex(6)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url.removesuffix(DATABASE) + name

    def start(self) -> None:
        """Start it; once it has a port it keeps it."""
        for _ in range(5):
            port = self._port or free_port()
            process = self._spawn(port)
            if self._is_ready(process, port):
                self._process, self._port = process, port
                return
            process.kill()
            process.wait()
        raise RuntimeError(f"PostgreSQL does not start: {self._log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Stop it as an administrator would: sessions are ended, what was committed is kept."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(START_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _make_cluster(self) -> None:
        secret = self._folder / "password"
        secret.write_text(self._password)
        if self._account is not None:
            shutil.chown(secret, self._account)
        command = [self._programs / "initdb", "-D", "data", "-U", USER, "--pwfile", secret]
        quick = [] if self._durable else ["--no-sync"]
        done = subprocess.run(
            [*map(str, command), "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", *quick],
            cwd=self._folder,
            user=self._account,
            group=self._account,
            extra_groups=[] if self._account else None,
            capture_output=True,
            text=True,
            check=False,
        )
        secret.unlink()
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed: {done.stderr}")

    def _spawn(self, port: int) -> subprocess.Popen:
        command = [self._programs / "postgres", "-D", "data", "-h", "127.0.0.1", "-p", port, "-k", self._folder]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*map(str, command), *([] if self._durable else ["-c", "fsync=off"])],
                cwd=self._folder,
                user=self._account,
                group=self._account,
                extra_groups=[] if self._account else None,
                stdout=log,
                stderr=log,
            )

    def _is_ready(self, process: subprocess.Popen, port: int) -> bool:
        # By the socket in its own folder: on the port, another server might answer.
        asks = [str(self._programs / "pg_isready"), "-q", "-h", str(self._folder), "-p", str(port)]
        end = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < end:
            if subprocess.run(asks, check=False).returncode == 0:
                return True
            time.sleep(0.05)
        return False


def free_port() -> int:
    """A port of loopback that nothing listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
