"""The space of compositions: what legal edits reach from the task's start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import PortType
from gnncompose.composition.chains import shortest_chains
from gnncompose.composition.edits import Edit, Limits, Stop, apply
from gnncompose.composition.legal import candidate_edits, successors
from gnncompose.composition.tree import Composition
from gnncompose.errors import CompositionError

REMEMBERED = 512
Remembered = TypeVar("Remembered")


def _nothing() -> dict[str, Any]:
    return {}


def _remembered(
    known: dict[str, list[Remembered]], composition: Composition, make: Callable[[], list[Remembered]]
) -> list[Remembered]:
    """What is known of a composition, made where it is not; the latest ones are kept."""
    found = known.pop(composition.id, None)
    if found is None:
        found = make()
        if len(known) >= REMEMBERED:
            del known[next(iter(known))]
    known[composition.id] = found
    return found


@dataclass(eq=False)
class Space:
    """A catalog under limits, between the task's input and output.

    Attributes:
        catalog: The operators at hand.
        limits: Bounds of a composition.
        input_type: Type of the task's input.
        output_type: Type of the task's output.
        initial: Where episodes begin; None for the shortest typed chain from input to output.
    """

    catalog: Catalog
    limits: Limits
    input_type: PortType
    output_type: PortType
    initial: Composition | None = None
    _successors: dict[str, list[tuple[Edit, Composition]]] = field(default_factory=_nothing, repr=False)
    _listed: dict[str, list[Edit]] = field(default_factory=_nothing, repr=False)

    @cached_property
    def start(self) -> Composition:
        """Where episodes begin; by default the shortest typed chain, ties go by catalog order.

        Raises:
            CompositionError: The catalog offers no such chain.
        """
        if self.initial is not None:
            return self.initial
        chains = shortest_chains(self.catalog, self.input_type)
        fitting = [chain for chain in chains.values() if self.is_answer(chain.type)]
        if not fitting:
            raise CompositionError(
                f'catalog "{self.catalog.name}" leads from {self.input_type} to {self.output_type} by no chain of '
                f"operators; add a model with that output"
            )
        return Composition(min(fitting, key=lambda chain: chain.depth), self.catalog.sha256)

    def is_answer(self, kind: PortType) -> bool:
        """Whether it is the task's output type, for the task's own rows and not for rows that were made on the way."""
        return self.output_type.accepts(kind, {}) and kind.axes[0] == self.input_type.axes[0]

    def allows(self, composition: Composition) -> bool:
        """Whether a composition of the catalog's operators may be built here, which is within the limits."""
        return self.limits.allow(composition)

    def single_models(self) -> list[Composition]:
        """Every model alone, on the shortest chain that leads to it."""
        chains = shortest_chains(self.catalog, self.input_type)
        ends = (chains[model.name] for model in self.catalog.models if model.name in chains)
        return [Composition(e, self.catalog.sha256) for e in ends if self.is_answer(e.type)]

    def legal_edits(self, composition: Composition) -> list[Edit]:
        """Exactly the edits whose result type-checks within the limits, `Stop` last."""
        return [edit for edit, _ in self.successors(composition)] + [Stop()]

    def successors(self, composition: Composition) -> list[tuple[Edit, Composition]]:
        """Every legal edit but `Stop`, with the composition it leads to; the latest ones are remembered."""
        return _remembered(self._successors, composition, lambda: self._reachable(composition))

    def _reachable(self, composition: Composition) -> list[tuple[Edit, Composition]]:
        return successors(composition, self.catalog, self.limits)

    def apply(self, composition: Composition, edit: Edit) -> Composition:
        """Apply an edit; raises `CompositionError` where it is not legal."""
        return apply(composition, edit, self.catalog, self.limits)

    def walk(self, composition: Composition, edits: int, generator: np.random.Generator) -> Composition:
        """Where so many legal edits lead from a composition, each drawn uniformly.

        Edits are drawn until one is legal, which is much cheaper than to list all that are.
        """
        for _ in range(edits):
            listed = list(self._candidates(composition))
            while listed:
                number = int(generator.integers(len(listed)))
                try:
                    composition = self.apply(composition, listed[number])
                    break
                except CompositionError:
                    listed[number] = listed[-1]
                    listed.pop()
        return composition

    def _candidates(self, composition: Composition) -> list[Edit]:
        """Edits that may be legal; the latest ones are remembered."""
        return _remembered(self._listed, composition, lambda: list(candidate_edits(composition, self.catalog)))

    def random(self, generator: np.random.Generator, steps: int = 8) -> Composition:
        """A random composition: a random walk of up to `steps` edits from the start."""
        composition = self.start
        for _ in range(int(generator.integers(0, steps + 1))):
            reachable = self.successors(composition)
            if not reachable:
                break
            composition = reachable[int(generator.integers(len(reachable)))][1]
        return composition
