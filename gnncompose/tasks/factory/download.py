"""Fetching data files: from a Debian package where apt is, else from upstream; resumable, checked, kept."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from gnncompose.errors import TaskError

_CHUNK = 1 << 16
_TIMEOUT_S = 30
_ATTEMPTS = 4
_NOTHING_LEFT = 416


@dataclass(frozen=True)
class Dataset:
    """Files that a Debian package offers, and where there is one, an upstream address, too.

    Attributes:
        package: Name of the Debian package.
        package_bytes: About how large it is, for the progress bar.
        folder: Where in the package the files lie.
        sha256: SHA-256 by file name, of the *decoded* content: the package and upstream compress differently.
        url: Folder at upstream.
        decode: From a file to its content; raises OSError, EOFError or ValueError where the file is no such one.
    """

    package: str
    package_bytes: int
    folder: str
    sha256: Mapping[str, str]
    url: str | None = None
    decode: Callable[[bytes], bytes] = gzip.decompress

    def fetch(self, cache: Path) -> dict[str, bytes]:
        """Decoded content of each file, from the cache where it is there and whole.

        Raises:
            TaskError: Neither source gives the files.
        """
        cache.mkdir(parents=True, exist_ok=True)
        names = list(self.sha256)
        found = self._whole(cache, names)
        if len(found) < len(names):
            problems: list[str] = []
            sources = {"apt": self._from_package} | ({self.url: self._from_upstream} if self.url else {})
            for name, source in sources.items():
                problem = source(cache, [file for file in names if file not in found])
                found = self._whole(cache, names)
                if len(found) == len(names):
                    break
                problems.append(f"{name}: {problem or 'it gave files with other content'}")
            else:
                raise TaskError(
                    f"{self.package}: cannot be fetched: {'; '.join(problems)}; check the network and run again, "
                    f"or put {', '.join(names)} into {cache} (what came so far is kept)"
                )
        return found

    def _whole(self, cache: Path, names: Sequence[str]) -> dict[str, bytes]:
        """Decoded files whose hash is right; a wrong one is deleted."""
        found = {}
        for name in names:
            path = cache / name
            if not path.is_file():
                continue
            try:
                content = self.decode(path.read_bytes())
            except (OSError, EOFError, ValueError):
                content = b""
            if hashlib.sha256(content).hexdigest() == self.sha256[name]:
                found[name] = content
            else:
                path.unlink()
        return found

    def _from_package(self, cache: Path, names: Sequence[str]) -> str | None:
        """Put the files into the cache by `apt-get download`, which resumes and checks by itself; else say why not."""
        apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
        if apt is None or dpkg is None:
            return "is not on this machine"
        command = [apt, "--quiet", "download", self.package]
        process = subprocess.Popen(command, cwd=cache, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        with tqdm(total=self.package_bytes, unit="B", unit_scale=True, desc=self.package, leave=False) as bar:
            while process.poll() is None:
                bar.update(sum(p.stat().st_size for p in cache.glob(f"{self.package}_*")) - bar.n)
                time.sleep(0.2)
        packages = sorted(cache.glob(f"{self.package}_*.deb"))
        if process.returncode != 0 or not packages:
            errors = process.stderr.read() if process.stderr else ""
            return next((line for line in errors.splitlines() if line.startswith("E:")), "gave nothing")
        unpacked = subprocess.run([dpkg, "--fsys-tarfile", str(packages[-1])], capture_output=True)
        if unpacked.returncode == 0:
            _extract(unpacked.stdout, self.folder, names, cache)
        for package in packages:
            package.unlink()
        return None

    def _from_upstream(self, cache: Path, names: Sequence[str]) -> str | None:
        try:
            for name in names:
                download(f"{self.url}/{name}", cache / name)
        except OSError as problem:
            return str(problem)
        return None


def _extract(archive: bytes, folder: str, names: Sequence[str], target: Path) -> None:
    """Take the named files of one folder out of a tar archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for name in names:
            with suppress(KeyError):  # another version of the package: the other source has the files
                source = members.extractfile(f"./{folder}/{name}")
                if source is not None:
                    (target / name).write_bytes(source.read())


def download(url: str, path: Path) -> None:
    """Fetch a file; a download that was cut off goes on where it stopped.

    Raises:
        OSError: It cannot be had; what came so far stays beside `path`, named `.part`.
    """
    part = path.with_name(f"{path.name}.part")
    for attempt in range(_ATTEMPTS):
        try:
            _download_rest(url, part)
            break
        except urllib.error.HTTPError as problem:
            if problem.code != _NOTHING_LEFT:
                raise
            break
        except OSError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(2**attempt)
    part.rename(path)


def _download_rest(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        resumed = answer.status == 206
        have = have if resumed else 0
        total = have + int(answer.headers.get("Content-Length", 0))
        bar = tqdm(total=total or None, initial=have, unit="B", unit_scale=True, desc=part.stem, leave=False)
        with part.open("ab" if resumed else "wb") as target, bar:
            while chunk := answer.read(_CHUNK):
                target.write(chunk)
                bar.update(len(chunk))
    if total and part.stat().st_size < total:
        raise ConnectionError(f"{url} ended after {part.stat().st_size} of {total} bytes")
