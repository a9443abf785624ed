"""Transforms of tables written as ONNX graphs, for rows `float32[N,columns]`.

A missing value, written as `MISSING`, stays missing unless a transform fills it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from gnncompose.catalog.operator import Parameter
from gnncompose.tasks.factory.artifact import Artifact, make_model
from gnncompose.tasks.table_conditions import MISSING

WRITTEN = "graph of ONNX operators, written for gnncompose"
FITTED = f"{WRITTEN}; its numbers come from the train split"
# Between the code and every value that a column can have.
_BELOW = np.array(MISSING + 1, np.float32)


def table_transform(
    name: str,
    family: str,
    nodes: Sequence[onnx.NodeProto],
    columns: int,
    constants: Mapping[str, np.ndarray],
    source: str = FITTED,
    parameters: Mapping[str, Parameter] | None = None,
    output: tuple[str, int] | None = None,
) -> Artifact:
    """A transform of a table from nodes that lead from tensor `table` to tensor `out`.

    Args:
        name: Its name.
        family: Its family.
        nodes: Its nodes in topological order; they may use `gone`, True where a value is missing.
        columns: Columns of the table.
        constants: Initializers by name; float64 ones become float32.
        source: Its provenance.
        parameters: Scalar inputs.
        output: Domain and columns of what it gives; None for a table like the one it takes.
    """
    domain, width = output or ("table", columns)
    fixed = {n: a.astype(np.float32) if a.dtype == np.float64 else a for n, a in constants.items()}
    first = []
    if any("gone" in node.input for node in nodes):
        first = [helper.make_node("Less", ["table", "below"], ["gone"])]
        fixed["below"] = _BELOW
    inputs = {"table": ("N", columns), **{parameter: () for parameter in parameters or {}}}
    model = make_model(name, [*first, *nodes], inputs, {"out": ("N", width)}, fixed)
    return Artifact(name, "transform", model, domain, family, source, "MIT", "table", parameters or {})


def drop_outliers(mean: np.ndarray, deviation: np.ndarray) -> Artifact:
    """Values further from the training mean than the parameter `limit` times their deviation become missing."""
    nodes = [
        helper.make_node("Sub", ["table", "mean"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("Mul", ["deviation", "limit"], ["farthest"]),
        helper.make_node("Greater", ["distance", "farthest"], ["strange"]),
        helper.make_node("Where", ["strange", "missing", "table"], ["out"]),
    ]
    constants = {"mean": mean, "deviation": deviation, "missing": np.array(MISSING)}
    grid = Parameter(default=3.0, low=1.0, high=6.0, values=(1.5, 2.0, 2.5, 3.0, 4.0, 5.0))
    return table_transform("drop_outliers", "clean", nodes, len(mean), constants, parameters={"limit": grid})


def clip(low: np.ndarray, high: np.ndarray) -> Artifact:
    """Values outside the range of the training rows are set to its nearer end."""
    nodes = [
        helper.make_node("Max", ["table", "low"], ["lifted"]),
        helper.make_node("Min", ["lifted", "high"], ["inside"]),
        helper.make_node("Where", ["gone", "table", "inside"], ["out"]),
    ]
    return table_transform("clip", "clean", nodes, len(low), {"low": low, "high": high})


def whole_numbers(columns: int) -> Artifact:
    """Every value rounded to the nearest whole number."""
    nodes = [helper.make_node("Round", ["table"], ["out"])]
    return table_transform("round", "clean", nodes, columns, {}, WRITTEN)


def unit(
    name: str, columns: int, changed: Sequence[int], factor: float, offset: float = 0.0, above: Parameter | None = None
) -> Artifact:
    """Some columns brought from another unit to the one of the training rows: (value - offset) / factor.

    Args:
        name: Its name.
        columns: Columns of the table.
        changed: Which ones are brought to another unit.
        factor: By what they were multiplied.
        offset: What was added then.
        above: Grid of the parameter `above`, where only larger values are changed; None changes all.
    """
    scale, shift = np.ones(columns, np.float32), np.zeros(columns, np.float32)
    scale[list(changed)], shift[list(changed)] = 1 / factor, -offset / factor
    nodes = [
        helper.make_node("Mul", ["table", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["converted"]),
    ]
    if above is None:
        nodes.append(helper.make_node("Where", ["gone", "table", "converted"], ["out"]))
    else:
        nodes.append(helper.make_node("Greater", ["table", "above"], ["larger"]))
        nodes.append(helper.make_node("Where", ["larger", "converted", "table"], ["out"]))
    parameters = None if above is None else {"above": above}
    return table_transform(name, "unit", nodes, columns, {"scale": scale, "shift": shift}, WRITTEN, parameters)


def exchange(order: Sequence[int]) -> Artifact:
    """Columns in another order: column `i` of the result is column `order[i]`."""
    nodes = [helper.make_node("Gather", ["table", "order"], ["out"], axis=1)]
    return table_transform("exchange", "order", nodes, len(order), {"order": np.array(order, np.int64)}, WRITTEN)


def standardise(mean: np.ndarray, deviation: np.ndarray) -> Artifact:
    """Features of mean 0 and deviation 1 over the training rows."""
    nodes = [
        helper.make_node("Sub", ["table", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["out"]),
    ]
    constants = {"mean": mean, "deviation": deviation}
    return table_transform("standardise", "scale", nodes, len(mean), constants, output=("features", len(mean)))


def one_hot(
    numbers: Sequence[int], mean: np.ndarray, deviation: np.ndarray, codes: Mapping[int, np.ndarray]
) -> Artifact:
    """Features: standardised numbers, then one feature for every code of every coded column.

    A code that no training row has, a missing one among them, is 0 in all features of its column.

    Args:
        numbers: Columns that hold numbers.
        mean: [columns], over the training rows.
        deviation: [columns], over the training rows.
        codes: The codes by column.
    """
    columns = len(mean)
    where = np.concatenate([np.full(len(known), column) for column, known in codes.items()])
    constants = {
        "numbers": np.array(numbers, np.int64),
        "mean": mean[list(numbers)],
        "deviation": deviation[list(numbers)],
        "where": where.astype(np.int64),
        "codes": np.concatenate([np.asarray(known, np.float32) for known in codes.values()]),
    }
    nodes = [
        helper.make_node("Gather", ["table", "numbers"], ["amounts"], axis=1),
        helper.make_node("Sub", ["amounts", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["standard"]),
        helper.make_node("Gather", ["table", "where"], ["coded"], axis=1),
        helper.make_node("Equal", ["coded", "codes"], ["equal"]),
        helper.make_node("Cast", ["equal"], ["hot"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Concat", ["standard", "hot"], ["out"], axis=1),
    ]
    width = len(numbers) + len(where)
    return table_transform("one_hot", "encode", nodes, columns, constants, output=("features", width))
