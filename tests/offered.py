"""A package that offers host operators, installed for a test: rows of a table become parts, and parts rows again."""

from pathlib import Path

import pytest

from gnncompose.catalog.operator import Operator

PACKAGE = "Offered.Parts"
TABLE, PARTS, PROBS = "table float32[N,4]", "boxes float32[M,2]", "probs float32[N,3]"
MODULE = '''
import numpy as np
from gnncompose.catalog.host import HostOperator


def split(table, *, most):
    """Of each row one to `most` parts: its number, and a factor."""
    counts = 1 + (np.abs(table[:, 0]) * 7).astype(int) % int(most)
    factors = [1 + part - row[1] / 8 for row, count in zip(table, counts) for part in range(count)]
    return np.column_stack([np.repeat(np.arange(len(table)), counts), factors]).astype(np.float32)


def pick(table, parts):
    return table[parts[:, 0].astype(int)] * parts[:, 1:]


def gather(table, parts, probs):
    sums = np.zeros((len(table), probs.shape[1]), np.float32)
    np.add.at(sums, parts[:, 0].astype(int), probs)
    return sums / np.bincount(parts[:, 0].astype(int), minlength=len(table))[:, None].astype(np.float32)


def mix(table):
    """Breaks the rule: what a row becomes depends on the rows beside it."""
    return table - table.mean(axis=0)


SPLIT, PICK, GATHER, MIX = (HostOperator(function, version="3") for function in (split, pick, gather, mix))
NOT_ONE = split
'''
ENTRY_POINTS = """
[gnncompose.operators]
split = offered_parts:SPLIT
pick = offered_parts:PICK
gather = offered_parts:GATHER
mix = offered_parts:MIX
not_one = offered_parts:NOT_ONE
lacking = offered_lacking:ANYTHING
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the package where Python looks for packages."""
    information = folder / "Offered_Parts-2.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 2.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "offered_parts.py").write_text(MODULE)
    (folder / "offered_lacking.py").write_text("import a_module_that_nobody_has\n")
    monkeypatch.syspath_prepend(str(folder))


def hosted(name: str, inputs: dict[str, str], output: str, kind: str = "transform", **changes) -> Operator:
    entry = {
        "name": name,
        "kind": kind,
        "host": f"offered-parts:{name}",
        "version": "3",
        "inputs": [{"name": port, "type": type_} for port, type_ in inputs.items()],
        "outputs": [{"name": "out", "type": output}],
    }
    return Operator.model_validate(entry | changes)


MOST = {"most": {"default": 3, "low": 1, "high": 5, "values": [1, 3, 5]}}
SPLIT = hosted("split", {"table": TABLE}, PARTS, parameters=MOST)
PICK = hosted("pick", {"table": TABLE, "parts": PARTS}, "table float32[M,4]")
GATHER = hosted("gather", {"table": TABLE, "parts": PARTS, "probs": "probs float32[M,3]"}, PROBS, kind="model")
MIX = hosted("mix", {"table": TABLE}, TABLE)
