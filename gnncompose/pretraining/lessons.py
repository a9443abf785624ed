"""Lessons: what compositions of recorded tables are worth, across tasks, states of the data and catalogs.

A lesson is a set of compositions of one task in one state of its data. States are the recorded conditions and mixtures
of two; catalogs are the recorded ones and those that lack some operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch_geometric.data import Data

from gnncompose.composition.transitions import Transitions
from gnncompose.encoding import CatalogFeatures, encode
from gnncompose.evaluation.recording.table import open_table
from gnncompose.evaluation.table import table_folder
from gnncompose.features import GROUPS, CompositionFeatures
from gnncompose.policies.surrogate import group_numbers, score_scale
from gnncompose.ranges import counts, shares

WALK_EDITS = 8
NEAR_EDITS = 4
TOP_SHARE = 0.01


@dataclass(frozen=True)
class Plan:
    """What lessons are like.

    Attributes:
        size: Compositions of a lesson.
        compositions: Of each table, how many are drawn to learn from, about: near its start, near its best, anywhere.
        mixed: Share of the lessons in a mixture of two conditions.
        thinned: Share of the lessons on a catalog that lacks one to `lacking` operators.
        lacking: Operators that it lacks, at most.
        forgetful: Share of the lessons in which families are not told.
    """

    size: int = 64
    compositions: int = 6000
    mixed: float = 0.4
    thinned: float = 0.4
    lacking: int = 2
    forgetful: float = 0.15

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where a number is out of its range."""
        counts("plan", 2, size=self.size, compositions=self.compositions)
        counts("plan", 1, lacking=self.lacking)
        shares("plan", mixed=self.mixed, thinned=self.thinned, forgetful=self.forgetful)


class Lessons:
    """Compositions of one table with their scores, encoded once.

    Attributes:
        name: Of the table.
        catalog_sha256: Of its catalog.
        values: float[conditions, compositions]: scores as shares of the best model's clean score.
        graphs: The encoded compositions.
        features: float[compositions, feature]: of the catalog's own operators.
        has_strange: Whether the catalog has operators of families that nothing is learned of.
        group: Of each feature, its number in `GROUPS`.
        families: Of its operators.
    """

    def __init__(self, name: str, count: int, families: Sequence[str], generator: np.random.Generator) -> None:
        """Draw and encode.

        Args:
            name: Of the table.
            count: Compositions, about.
            families: Of operators that nothing is learned of.
            generator: Source of all randomness.

        Raises:
            TableError: There is no such table.
        """
        table = open_table(table_folder(name))
        catalog = table.task.catalog
        conditions = table.task.conditions
        scores = np.stack([table.figures(condition, "validation").score for condition in conditions])
        self.name, self.catalog_sha256 = name, catalog.sha256
        start = table.row(table.task.space.start)
        rows, near = drawn_rows(Transitions.of(table.space, catalog), start, scores, count, generator)
        compositions = [table.space.composition(row) for row in rows.tolist()]
        traits, features = CatalogFeatures.traits_of(catalog), CompositionFeatures(catalog)
        self.values = scores[:, rows] / score_scale(catalog)
        self.graphs: list[Data] = [encode(composition, [], traits) for composition in compositions]
        self.features = features(compositions)
        self.group = group_numbers(features.groups)
        self._near = np.isin(rows, near)
        self._uses = self.features[:, self.group.numpy() == GROUPS.index("operator")] > 0
        self.families = frozenset(operator.family for operator in catalog.operators if operator.family)
        strange = [operator.family in families for operator in catalog.operators]
        self._known = ~self._uses[:, strange].any(axis=1)

    def draw(self, plan: Plan, generator: np.random.Generator, *, strange: bool = False) -> Lesson:
        """One lesson.

        Args:
            plan: What it is like.
            generator: Source of all randomness.
            strange: Whether operators of families that nothing is learned of may be in it.
        """
        values = self.values[generator.integers(len(self.values))]
        if generator.random() < plan.mixed:
            share = generator.random()
            values = share * values + (1.0 - share) * self.values[generator.integers(len(self.values))]
        allowed = np.ones(len(values), dtype=bool) if strange else self._known
        if generator.random() < plan.thinned:
            lacking = generator.permutation(self._uses.shape[1])[: generator.integers(1, plan.lacking + 1)]
            thinned = allowed & ~self._uses[:, lacking].any(axis=1)
            allowed = thinned if thinned.sum() >= 2 * plan.size else allowed
        # A search begins near the start and ends near the best, so lessons are mostly of these.
        parts = [allowed & self._near, allowed & (values >= np.quantile(values[allowed], 0.9)), allowed]
        sizes = [plan.size // 2, 3 * plan.size // 8, plan.size]
        chosen: dict[int, None] = {}
        for part, size in zip(parts, sizes, strict=True):
            chosen |= dict.fromkeys(generator.permutation(np.flatnonzero(part))[:size].tolist())
        numbers = np.array(list(chosen)[: plan.size])
        forgetful = bool(generator.random() < plan.forgetful)
        return Lesson(self, numbers, torch.from_numpy(values[numbers]).float(), forgetful)


@dataclass(frozen=True, eq=False)
class Lesson:
    """Compositions with their values in some state of the data.

    Attributes:
        of: Where they are from.
        numbers: Which ones.
        values: Their scores as shares of the best model's clean score.
        forgetful: Whether families are not told.
    """

    of: Lessons
    numbers: np.ndarray
    values: torch.Tensor
    forgetful: bool


def drawn_rows(
    transitions: Transitions, start: int, scores: np.ndarray, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from, sorted, and which of them are near the start.

    Args:
        transitions: Edits of the table.
        start: Row of its start.
        scores: float[conditions, rows].
        count: How many, about.
        generator: Source of all randomness.
    """
    third, best = max(count // 3, 1), max(int(TOP_SHARE * scores.shape[1]), 1)
    near = walked(transitions, np.full(third, start), WALK_EDITS, generator)
    top = np.unique(np.argpartition(-scores, best - 1, axis=1)[:, :best])
    top = walked(transitions, generator.choice(top, third), NEAR_EDITS, generator)
    near = np.unique([start, *near])
    return np.unique(np.concatenate([near, top, generator.integers(scores.shape[1], size=third)])), near


def walked(transitions: Transitions, rows: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
    """Where random walks of 0 to `most` edits lead."""
    lengths = generator.integers(most + 1, size=len(rows))
    for step in range(most):
        first = transitions.offsets[rows]
        counts = transitions.offsets[rows + 1] - first
        number = np.minimum((generator.random(len(rows)) * counts).astype(np.int64), np.maximum(counts - 1, 0))
        moves = (step < lengths) & (counts > 0)
        rows = np.where(moves, transitions.target[np.minimum(first + number, len(transitions.target) - 1)], rows)
    return rows
