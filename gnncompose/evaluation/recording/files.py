"""The files of a table: what stands in them, how they are read and written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import yaml

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import PortType
from gnncompose.composition.enumeration import ClosedSpace, Expressions, Way
from gnncompose.composition.tree import Expression, Input, Value, make_node
from gnncompose.errors import TableError
from gnncompose.evaluation.rows import FILE

MANIFEST, CATALOG, CLOSURE = "manifest.json", "catalog.yaml", "closure.json"
COMPOSITIONS, EXPRESSIONS = "compositions.parquet", "expressions.parquet"
TIMES, MEASURED = "times.parquet", "measured.parquet"
ID_DIGITS = 16
COMPRESSION_LEVEL = 19

Columns = dict[str, np.ndarray]


def tables_directory() -> Path:
    """Where a clone keeps its tables."""
    return Path(__file__).resolve().parents[3] / "benchmarks" / "tables"


def rows_file(condition: str) -> str:
    """Name of the file of what the rows of a table gave under a condition."""
    return f"rows/{condition}.parquet"


def write_columns(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write a Parquet file whole or not at all; texts and numbers that repeat are stored once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    table = arrow.table({name: arrow.array(values) for name, values in columns.items()})
    parquet.write_table(table, partial, compression="zstd", compression_level=COMPRESSION_LEVEL)
    os.replace(partial, path)


def read_columns(path: Path) -> Columns:
    """The columns of a Parquet file.

    Raises:
        TableError: It is missing or damaged.
    """
    try:
        table = parquet.read_table(path)
    except (OSError, arrow.ArrowException) as problem:
        first = str(problem).splitlines()[0]
        raise TableError(
            f"{path}: is no readable part of a table ({first}); record it with benchmarks/record.py"
        ) from None
    return {name: table[name].to_numpy() for name in table.column_names}


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file.

    Raises:
        TableError: It is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise TableError(f"{path}: {problem.strerror}; record the table with benchmarks/record.py") from None
    except ValueError as problem:
        raise TableError(f"{path}: is not JSON ({problem}); record the table with benchmarks/record.py") from None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_catalog(folder: Path, catalog: Catalog) -> None:
    """Write the recorded operators; their artifacts lie with the task."""
    entries = [operator.model_dump(mode="json", exclude_defaults=True) for operator in catalog.operators]
    document = {"format": 1, "name": catalog.name, "operators": entries}
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
    (folder / CATALOG).write_text(text, encoding="utf-8")


def write_space(folder: Path, space: ClosedSpace) -> None:
    """Write which compositions there are."""
    below = space.expressions
    nodes = [expression for expression in below.all if not isinstance(expression, Input)]
    routers = [next((name for name, found in below.routes.items() if n in found), "") for n in range(1, len(below.all))]
    write_columns(
        folder / EXPRESSIONS,
        {
            "reads": below.parents[1:].astype(np.uint16),
            "operator": np.array([node.operator.name for node in nodes]),
            "parameters": np.array([_text(dict(node.parameters)) for node in nodes]),
            "router": np.array(routers),
        },
    )
    ids = [int(space.composition(row).id[:ID_DIGITS], 16) for row in range(len(space))]
    if len(set(ids)) < len(ids):
        raise TableError(f"two compositions have ids with the same first {ID_DIGITS} digits; raise ID_DIGITS")
    names = np.array(["" if way is None else way.operator.name for way in space.ways])
    parameters = np.array(["{}" if way is None else _text(way.parameters) for way in space.ways])
    columns = {
        "id": np.array(ids, dtype=np.uint64),
        "combiner": names[space.way],
        "parameters": parameters[space.way],
        "route": space.route.astype(np.uint16),
    }
    for port in range(space.branches.shape[1]):
        columns[f"branch_{port}"] = space.branches[:, port].astype(np.uint16)
    write_columns(folder / COMPOSITIONS, columns)


def read_space(folder: Path, catalog: Catalog, input_type: PortType) -> tuple[ClosedSpace, np.ndarray]:
    """Which compositions there are, and uint64[rows]: the first digits of their ids.

    Raises:
        TableError: A file is missing or damaged.
    """
    below = _read_expressions(folder, catalog, input_type)
    columns = read_columns(folder / COMPOSITIONS)
    keys = np.char.add(np.char.add(columns["combiner"].astype(str), "\n"), columns["parameters"].astype(str))
    found, way = np.unique(keys, return_inverse=True)
    ways: list[Way | None] = []
    for key in found.tolist():
        name, _, parameters = key.partition("\n")
        ways.append(Way(catalog.operator(name), _parameters(parameters)) if name else None)
    branches = [values for name, values in columns.items() if name.startswith("branch_")]
    space = ClosedSpace(
        expressions=below,
        ways=tuple(ways),
        way=way,
        route=columns["route"].astype(np.int64),
        branches=np.stack(branches, axis=1).astype(np.int64),
        catalog_sha256=catalog.sha256,
    )
    return space, columns["id"]


def _read_expressions(folder: Path, catalog: Catalog, input_type: PortType) -> Expressions:
    if not (folder / EXPRESSIONS).exists() and (folder / FILE).exists():
        raise TableError(
            f"{folder}: holds evaluations of some compositions, not of a whole space, so it takes task=described and "
            f"evaluator=rows; give the name of another table here"
        )
    columns = read_columns(folder / EXPRESSIONS)
    found: list[Expression] = [Input(input_type)]
    routes: dict[str, list[int]] = {}
    entries = zip(*(columns[name].tolist() for name in ("reads", "operator", "parameters", "router")), strict=True)
    for reads, name, parameters, router in entries:
        operator = catalog.operator(name)
        if router:
            operator = operator.model_copy(update={"kind": "transform"})
            routes.setdefault(router, []).append(len(found))
        found.append(make_node(operator, [found[reads]], _parameters(parameters)))
    parents = np.concatenate([[0], columns["reads"].astype(np.int64)])
    inner = set(parents.tolist())
    deciding = {number for numbers in routes.values() for number in numbers}
    chains = tuple(number for number in range(1, len(found)) if number not in inner and number not in deciding)
    return Expressions(tuple(found), parents, chains, {name: tuple(numbers) for name, numbers in routes.items()})


def _text(parameters: Mapping[str, Value]) -> str:
    return json.dumps({name: list(v) if isinstance(v, tuple) else v for name, v in parameters.items()})


def _parameters(text: str) -> dict[str, Value]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(text).items()}
