"""A store as one file for other programs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sql

from gnncompose.errors import StoreError
from gnncompose.evaluation.store.database import reported
from gnncompose.evaluation.store.rows import row_samples_ms
from gnncompose.evaluation.store.schema import EVALUATIONS, KEY
from gnncompose.evaluation.store.store import EvaluationStore

if TYPE_CHECKING:
    import pyarrow as arrow
    from pyarrow.csv import CSVWriter
    from pyarrow.parquet import ParquetWriter

ROWS_AT_ONCE = 1000
SAMPLES = "samples_ms"


def export_store(store: EvaluationStore, path: Path, *, samples: bool = False) -> int:
    """Write all rows, oldest first, to a Parquet or CSV file, which appears only when it is whole.

    Args:
        store: Whose rows.
        path: Ends in `.parquet` or `.csv`.
        samples: Whether to add the raw latencies as a column `samples_ms`: a list per request of its repeats, in CSV
            as JSON.

    Returns:
        How many rows were written.

    Raises:
        StoreError: The path ends otherwise, its folder is missing, or the database cannot be read.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise StoreError(f"{path}: this format is not known; give a path that ends in .parquet or .csv")
    if not path.parent.is_dir():
        raise StoreError(f"{path}: its folder does not exist; make it or give another path")
    wanted = [column for column in EVALUATIONS.c if samples or column.name != "samples"]
    query = sql.select(*wanted).order_by(EVALUATIONS.c.measured_at, *(EVALUATIONS.c[name] for name in KEY))
    temporary, count = path.with_name(f".{path.name}.{os.getpid()}"), 0
    schema = _schema(samples, nested=path.suffix == ".parquet")
    try:
        with (
            reported("the evaluation store cannot be read"),
            store.engine.connect().execution_options(yield_per=ROWS_AT_ONCE) as connection,
            _writer(temporary, path.suffix, schema) as writer,
        ):
            for part in connection.execute(query).mappings().partitions():
                writer.write_table(_table(part, schema))
                count += len(part)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _schema(samples: bool, nested: bool) -> arrow.Schema:
    import pyarrow as arrow

    kinds = [(sql.String, arrow.string()), (sql.Integer, arrow.int64()), (sql.Double, arrow.float64())]
    found = [
        arrow.field(column.name, next(type_ for kind, type_ in kinds if isinstance(column.type, kind)))
        for column in EVALUATIONS.c
        if column.name != "samples"
    ]
    if samples:
        found.append(arrow.field(SAMPLES, arrow.list_(arrow.list_(arrow.float64())) if nested else arrow.string()))
    return arrow.schema(found)


def _writer(path: Path, suffix: str, schema: arrow.Schema) -> ParquetWriter | CSVWriter:
    if suffix == ".parquet":
        from pyarrow.parquet import ParquetWriter

        return ParquetWriter(path, schema)
    from pyarrow.csv import CSVWriter

    return CSVWriter(path, schema)


def _table(rows: Sequence[sql.RowMapping], schema: arrow.Schema) -> arrow.Table:
    import pyarrow as arrow

    plain = [dict(row) for row in rows]
    if SAMPLES in schema.names:
        is_text = arrow.types.is_string(schema.field(SAMPLES).type)
        for row in plain:
            if row["samples"] is not None:  # a failure has none
                lists = row_samples_ms(row["samples"], row["repeats"]).tolist()
                row[SAMPLES] = json.dumps(lists) if is_text else lists
    return arrow.Table.from_pylist(plain, schema=schema)
