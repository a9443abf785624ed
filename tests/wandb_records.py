"""Reads back what W&B wrote offline."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7
FULL, FIRST, LAST = 1, 2, 4
WRITTEN_S = 60.0


def offline_records(folder: Path, runs: int = 1) -> list[Any]:
    """All records of the last of the offline runs below a run folder.

    A busy machine writes the last of them after its end.
    """
    paths = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_ctime)
    assert len(paths) == runs
    path = paths[-1]
    deadline = time.monotonic() + WRITTEN_S
    while not of_type(records := list(read_records(path)), "exit") and time.monotonic() < deadline:
        time.sleep(0.1)
    return records


def read_records(path: Path) -> Iterator[Any]:
    """Records of a .wandb file: LevelDB's log format behind a seven-byte header."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, content = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        chunk = data[at + HEADER : at + HEADER + length]
        if len(chunk) < length:  # it is being written
            return
        at += HEADER + length
        content = chunk if kind in (FULL, FIRST) else content + chunk
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(content)
            yield record


def of_type(records: list[Any], kind: str) -> list[Any]:
    """Those of one type."""
    return [getattr(r, kind) for r in records if r.WhichOneof("record_type") == kind]


def history(records: list[Any]) -> list[dict[str, Any]]:
    """What was logged, entry by entry."""
    return [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in entry.item}
        for entry in of_type(records, "history")
    ]
