"""Reading artifacts: the bytes that an entry of a catalog names by hash, and no others."""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.folder import open_inside
from gnncompose.catalog.operator import Operator
from gnncompose.errors import CatalogError

LARGEST_ARTIFACT_BYTES = 1 << 30


def entry_name(catalog: Catalog, operator: Operator) -> str:
    """How messages name the catalog entry of an operator."""
    number = next((i for i, o in enumerate(catalog.operators) if o.name == operator.name), None)
    return f'catalog.yaml: operators{"" if number is None else f"[{number}]"} "{operator.name}"'


def read_artifact(catalog: Catalog, operator: Operator) -> bytes:
    """The bytes of an operator's artifact, checked against the hash that the catalog states.

    Raises:
        CatalogError: The operator is builtin, or its file is outside the folder, missing, a link or one of several
            names of a file, too large, or another one than the entry names.
    """
    where = entry_name(catalog, operator)
    if operator.artifact is None:
        raise CatalogError(f"{where} is builtin or a host operator, and has no artifact")
    try:
        with open_inside(catalog.directory, operator.artifact) as file:
            content = _read_single(file, operator.artifact)
    except CatalogError as problem:
        raise CatalogError(f"{where}: {problem}") from None
    where = f"{where}: {operator.artifact}"
    found = hashlib.sha256(content).hexdigest()
    if found != operator.sha256:
        raise CatalogError(
            f"{where} has sha256 {found[:12]}…, not {str(operator.sha256)[:12]}…; "
            f"restore the file, or state its new hash if you trust it"
        )
    return content


def _read_single(file: BinaryIO, where: str) -> bytes:
    """Content of an open file that has one name only and is not too large."""
    status = os.fstat(file.fileno())
    if status.st_nlink != 1:
        raise CatalogError(f"{where} is a hard link, one of {status.st_nlink} names of a file; put a copy there")
    if status.st_size <= LARGEST_ARTIFACT_BYTES:
        content = file.read(LARGEST_ARTIFACT_BYTES + 1)
        if len(content) <= LARGEST_ARTIFACT_BYTES:
            return content
    raise CatalogError(f"{where} has {status.st_size} bytes, above {LARGEST_ARTIFACT_BYTES}; shrink it")
