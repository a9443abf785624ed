"""The only door from a catalog's entries to files.

It opens nothing but a single regular file inside the catalog's folder, and gives nothing but the bytes that the entry
names by hash.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import PurePosixPath
from typing import BinaryIO

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import Operator
from gnncompose.errors import CatalogError

LARGEST_ARTIFACT_BYTES = 1 << 30


def entry_name(catalog: Catalog, operator: Operator) -> str:
    """How messages name the catalog entry of an operator."""
    number = next((i for i, o in enumerate(catalog.operators) if o.name == operator.name), None)
    return f'catalog.yaml: operators{"" if number is None else f"[{number}]"} "{operator.name}"'


def read_artifact(catalog: Catalog, operator: Operator) -> bytes:
    """The bytes of an operator's artifact, checked against the hash that the catalog states.

    Every part of the path is opened without following links, so what is read lies inside the catalog's folder even
    while somebody changes it.

    Raises:
        CatalogError: The operator is builtin, or its file is outside the folder, missing, a link or one of several
            names of a file, too large, or another one than the entry names.
    """
    where = f"{entry_name(catalog, operator)}: {operator.artifact}"
    try:
        content = _read_inside(catalog, operator, where)
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            raise CatalogError(f"{where} is a link; put the file itself there") from None
        raise CatalogError(f"{where}: {problem.strerror}; add the file or drop the entry") from None
    found = hashlib.sha256(content).hexdigest()
    if found != operator.sha256:
        raise CatalogError(
            f"{where} has sha256 {found[:12]}…, not {str(operator.sha256)[:12]}…; "
            f"restore the file, or state its new hash if you trust it"
        )
    return content


def _read_inside(catalog: Catalog, operator: Operator, where: str) -> bytes:
    if operator.artifact is None:
        raise CatalogError(f'operator "{operator.name}" is builtin and has no artifact')
    parts = PurePosixPath(operator.artifact.replace(os.sep, "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in operator.artifact:
        raise CatalogError(f"{where} leaves the folder of the catalog; put the file inside it")
    folders = [os.open(catalog.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        for part in parts[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            folders.append(os.open(part, flags, dir_fd=folders[-1]))
        # Without O_NONBLOCK a named pipe would hold us until somebody writes to it.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(parts[-1], flags, dir_fd=folders[-1]), "rb") as file:
            return _read_single(file, where)
    finally:
        for folder in folders:
            os.close(folder)


def _read_single(file: BinaryIO, where: str) -> bytes:
    """Content of an open file that is regular, has one name only, and is not too large."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise CatalogError(f"{where} is no regular file; put the model there")
    if status.st_nlink != 1:
        raise CatalogError(f"{where} is a hard link, one of {status.st_nlink} names of a file; put a copy there")
    if status.st_size <= LARGEST_ARTIFACT_BYTES:
        content = file.read(LARGEST_ARTIFACT_BYTES + 1)
        if len(content) <= LARGEST_ARTIFACT_BYTES:
            return content
    raise CatalogError(f"{where} has {status.st_size} bytes, above {LARGEST_ARTIFACT_BYTES}; shrink it")
