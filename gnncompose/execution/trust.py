"""The user's trust file: SHA-256 of artifacts that may run in this process, without the sandbox.

`gnncompose task build` writes down what it built here, `gnncompose trust add` what the user vouches for. Nothing that
comes with a bundle is ever read for this.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_config_path

from gnncompose.catalog.catalog import Catalog
from gnncompose.errors import CatalogError, one_line

_LINE = re.compile(r"^(?P<sha256>[0-9a-f]{64})(?:  (?P<why>.*))?$")


@dataclass(frozen=True)
class Trusted:
    """One line of the file.

    Attributes:
        sha256: Of the artifact.
        why: What the user sees of it: name, where from, when.
    """

    sha256: str
    why: str


def trust_file() -> Path:
    """Where it lies: `GNNCOMPOSE_TRUST`, or `trusted.txt` in the user's configuration folder."""
    chosen = os.environ.get("GNNCOMPOSE_TRUST")
    return Path(chosen).expanduser() if chosen else user_config_path("gnncompose") / "trusted.txt"


def read_trusted() -> dict[str, Trusted]:
    """The lines of the file by SHA-256; empty where there is none.

    Raises:
        CatalogError: A line is no hash.
    """
    path = trust_file()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    found: dict[str, Trusted] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise CatalogError(f"{path}: line {number} does not start with a SHA-256; remove it")
        found[match["sha256"]] = Trusted(match["sha256"], match["why"] or "")
    return found


def trust_catalog(catalog: Catalog, reason: str) -> int:
    """Trust every artifact that a catalog names, by its stated hash; how many were not trusted before."""
    known, today = read_trusted(), datetime.datetime.now(datetime.UTC).date().isoformat()
    new = {
        # The name is a stranger's: a line break in it must not begin a line, which would be another hash.
        operator.sha256: Trusted(operator.sha256, one_line(f"{catalog.name}/{operator.name}, {reason}, {today}"))
        for operator in catalog.operators
        if operator.sha256 is not None and operator.sha256 not in known
    }
    if new:
        path = trust_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:  # one short write in append mode, whole beside others' writes
            file.write("".join(f"{line.sha256}  {line.why}\n" for line in new.values()))
    return len(new)


def forget(hashes: Iterable[str]) -> int:
    """Take artifacts out of the file; how many were in it."""
    gone, known = set(hashes), read_trusted()
    kept = [line for line in known.values() if line.sha256 not in gone]
    if len(kept) < len(known):
        path = trust_file()
        new = path.with_name(f".{path.name}.partial")
        new.write_text("".join(f"{line.sha256}  {line.why}\n" for line in kept), encoding="utf-8")
        new.replace(path)
    return len(known) - len(kept)
