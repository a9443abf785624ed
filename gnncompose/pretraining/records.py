"""What every pre-training has alike: which tables it learns from, and the files that it leaves."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gnncompose.errors import GnncomposeError
from gnncompose.provenance import git_sha, hardware, versions
from gnncompose.resuming import CARD
from gnncompose.tracking.files import write_atomically
from gnncompose.tracking.tracker import Journal, Title

CURVE = "curve.csv"


def learned_from(tables: Sequence[str], left_out: Sequence[str]) -> list[str]:
    """The tables but those left out.

    Raises:
        GnncomposeError: There are none, none is left, or what is left out is none of them.
    """
    if not tables:
        raise GnncomposeError("tables=[]: names none to learn from; name some, such as '[digits,letter]'")
    strange = sorted(set(left_out) - set(tables))
    kept = [name for name in tables if name not in left_out]
    if strange or not kept:
        what = f"left_out={strange[0]}: is none of tables" if strange else "left_out: leaves no table to learn from"
        raise GnncomposeError(f"{what}; tables are {', '.join(tables)}")
    return kept


def title_of(
    folder: Path, kind: str, what: str, left_out: Sequence[str], seed: int, axis: str, config: dict[str, Any]
) -> Title:
    """What a training is called by trackers: what it trains, without which tables, by which seed."""
    more = f"_and_{len(left_out) - 1}_more" if len(left_out) > 1 else ""
    without = f"without_{left_out[0]}{more}" if left_out else "of_all_tables"
    return Title(folder, kind, f"{what}/{without}", f"seed {seed}", axis, config, what)


def note(journal: Journal, axis: str, figures: Mapping[str, float | None]) -> None:
    """Log a row of a curve; what it has no figure for is left out."""
    told = {name: value for name, value in figures.items() if name != axis and value is not None}
    journal.log(int(figures[axis] or 0), told)


def provenance() -> dict[str, Any]:
    """What a card says of the machine and the code."""
    return {"git_sha": git_sha(), "hardware": hardware(), "versions": versions()}


def write_trained(folder: Path, name: str, checkpoint: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Write a checkpoint, its card, and the curve that stands in the card; the checkpoint last.

    Args:
        folder: Where to.
        name: Of the checkpoint's file.
        checkpoint: Plain data and tensors.
        card: How it was made.
    """
    content, table = io.BytesIO(), io.StringIO(newline="")
    torch.save(dict(checkpoint), content)
    writer = csv.DictWriter(table, list(card["curve"][-1]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(card["curve"])
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / CURVE, table.getvalue().encode())
    write_atomically(folder / CARD, (json.dumps(card, indent=2) + "\n").encode())
    write_atomically(folder / name, content.getvalue())
