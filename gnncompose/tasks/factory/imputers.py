"""Transforms that fill missing values of tables, from the plain to the costly."""

from __future__ import annotations

import numpy as np
from onnx import helper

from gnncompose.tasks.factory.artifact import Artifact
from gnncompose.tasks.factory.columns import WRITTEN, table_transform

RIDGE = 0.1
ROUNDS = 3


def imputers(rows: np.ndarray, donors: int, neighbours: int, seed: int) -> list[Artifact]:
    """All of them, fitted on complete training rows.

    Args:
        rows: [rows, columns], training rows without missing values.
        donors: How many of them `fill_neighbours` carries.
        neighbours: How many of these it takes the mean of.
        seed: Decides which rows are donors.
    """
    drawn = np.random.default_rng(seed).choice(len(rows), donors, replace=False)
    return [
        fill_zero(rows.shape[1]),
        fill_median(rows),
        fill_linear(rows),
        fill_neighbours(rows, rows[np.sort(drawn)], neighbours),
    ]


def fill_zero(columns: int) -> Artifact:
    """Zero for what is missing."""
    nodes = [helper.make_node("Where", ["gone", "zero", "table"], ["out"])]
    return table_transform("fill_zero", "impute", nodes, columns, {"zero": np.array(0, np.float32)}, WRITTEN)


def fill_median(rows: np.ndarray) -> Artifact:
    """The median of the column's training rows."""
    nodes = [helper.make_node("Where", ["gone", "medians", "table"], ["out"])]
    return table_transform("fill_median", "impute", nodes, rows.shape[1], {"medians": np.median(rows, axis=0)})


def fill_linear(rows: np.ndarray, ridge: float = RIDGE, rounds: int = ROUNDS) -> Artifact:
    """What a linear regression on the row's other columns says, begun with means and repeated a few times.

    As in chained equations (van Buuren & Groothuis-Oudshoorn, J. Stat. Softw. 45, 2011), but all columns are
    renewed at once. The coefficients of all regressions come from one inverse of the correlation matrix.

    Args:
        rows: [rows, columns], training rows without missing values.
        ridge: Added to the correlation matrix's diagonal.
        rounds: How often the missing values are renewed.
    """
    wide = rows.astype(np.float64)
    mean, deviation = wide.mean(axis=0), wide.std(axis=0)
    standard = (wide - mean) / deviation
    precision = np.linalg.inv(standard.T @ standard / len(rows) + ridge * np.eye(rows.shape[1]))
    coefficients = -precision / np.diag(precision)  # [from, to]: each column divides by its own precision
    np.fill_diagonal(coefficients, 0)
    weights = coefficients * deviation / deviation[:, None]
    constants = {"mean": mean, "weights": weights, "bias": mean - mean @ weights}
    nodes = [helper.make_node("Where", ["gone", "mean", "table"], ["filled0"])]
    for number in range(rounds):
        renewed = "out" if number == rounds - 1 else f"filled{number + 1}"
        nodes.append(helper.make_node("Gemm", [f"filled{number}", "weights", "bias"], [f"told{number}"]))
        nodes.append(helper.make_node("Where", ["gone", f"told{number}", "table"], [renewed]))
    return table_transform("fill_linear", "impute", nodes, rows.shape[1], constants)


def fill_neighbours(rows: np.ndarray, donors: np.ndarray, neighbours: int) -> Artifact:
    """The mean of the nearest training rows, as told by the columns that are not missing.

    Nearest-neighbour imputation as in Troyanskaya et al. (Bioinformatics 17, 2001). The distances of a row to all
    donors are two matrix products; its own square changes no order and is left out.

    Args:
        rows: [rows, columns], training rows, which say how columns are scaled.
        donors: [donors, columns], those that values are taken from.
        neighbours: How many are taken the mean of.
    """
    mean, deviation = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    scaled = (donors - mean) / deviation
    constants = {
        "mean": mean,
        "deviation": deviation,
        "none": np.array(0, np.float32),
        "cross": -2 * scaled.T,
        "squares": (scaled**2).T,
        "donors": donors.astype(np.float32),
        "k": np.array([neighbours], np.int64),
        "axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Sub", ["table", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["scaled"]),
        helper.make_node("Where", ["gone", "none", "scaled"], ["known"]),
        helper.make_node("Not", ["gone"], ["here"]),
        helper.make_node("Cast", ["here"], ["seen"], to=1),
        helper.make_node("MatMul", ["seen", "squares"], ["lengths"]),
        helper.make_node("Gemm", ["known", "cross", "lengths"], ["distances"]),
        helper.make_node("TopK", ["distances", "k"], ["nearest", "which"], largest=0, axis=1),
        helper.make_node("Gather", ["donors", "which"], ["given"], axis=0),
        helper.make_node("ReduceMean", ["given", "axis"], ["told"], keepdims=0),
        helper.make_node("Where", ["gone", "told", "table"], ["out"]),
    ]
    return table_transform("fill_neighbours", "impute", nodes, rows.shape[1], constants)
