"""How new a composition would be: what of it was seldom evaluated before.

Where most compositions answer no better than chance, rewards say nothing until a few right operators stand in the
right order. Counting what was tried leads there sooner than chance does (count-based exploration: Strehl and
Littman, J. Computer and System Sciences 74, 2008). Counted are the operators of a composition and its ordered pairs
of neighbouring transforms, since what is done to the data first decides what everything after it can do.
"""

from __future__ import annotations

from collections import Counter
from math import fsum

from gnncompose.composition.tree import Composition, Node

Trait = str | tuple[str, str]


class Novelty:
    """Counts the traits of evaluated compositions."""

    def __init__(self) -> None:
        self._counts: Counter[Trait] = Counter()
        self._traits: dict[str, frozenset[Trait]] = {}

    def add(self, composition: Composition) -> None:
        """Count a composition as evaluated."""
        self._counts.update(self._of(composition))

    def __call__(self, composition: Composition) -> float:
        """Mean over its traits of 1 / √(1 + count), 0 to 1; with a sum, large compositions would always be newer."""
        traits = self._of(composition)
        return fsum((1 + self._counts[trait]) ** -0.5 for trait in traits) / len(traits)  # exact, in whatever order

    def _of(self, composition: Composition) -> frozenset[Trait]:
        found = self._traits.get(composition.id)
        if found is None:
            found = self._traits[composition.id] = frozenset(traits(composition))
        return found


def traits(composition: Composition) -> list[Trait]:
    """The names of its operators, and its pairs of transforms of which the second reads the first."""
    names: list[Trait] = [node.operator.name for node in composition.nodes]
    pairs: list[Trait] = [
        (child.operator.name, node.operator.name)
        for node in composition.nodes
        for child in node.inputs
        if isinstance(child, Node) and node.operator.kind == child.operator.kind == "transform"
    ]
    return names + pairs
