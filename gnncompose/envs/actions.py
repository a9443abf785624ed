"""Edits as numbers: the fixed action space that Gymnasium asks for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, cast

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.edits import KINDS, Edit, Limits, OperatorEdit, Place, Reorder, SetParameter, Stop
from gnncompose.composition.legal import places
from gnncompose.composition.tree import Composition, Expression, Node


@dataclass(frozen=True, eq=False)
class ActionCodec:
    """Numbers edits by kind, place and argument; sizes follow from limits and catalog.

    A place is numbered as `places` lists it, edges of the tree first. Compositions that share much may have more
    places than there are slots; edits of the surplus places have no number.

    Attributes:
        catalog: Whose operators edits name.
        limits: Bounds of compositions.
        slots: Places that are numbered.
    """

    catalog: Catalog
    limits: Limits
    slots: int

    @classmethod
    def of(cls, catalog: Catalog, limits: Limits) -> ActionCodec:
        """The codec with a slot for every edge of a graph without sharing, and for every output."""
        return cls(catalog, limits, limits.nodes * limits.branches + limits.nodes + 2)

    @cached_property
    def size(self) -> int:
        """Number of actions, legal or not."""
        return len(KINDS) * self.slots * self.arguments

    @cached_property
    def arguments(self) -> int:
        """Arguments of a kind of edit at one place: operators, values, or pairs of stages, what is most."""
        values = max((len(self._settings(row)) for row in range(len(self.catalog.operators))), default=0)
        return max(len(self.catalog.operators), values, len(self._stages), 1)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {operator.name: row for row, operator in enumerate(self.catalog.operators)}

    @cached_property
    def _stages(self) -> list[tuple[int, int]]:
        return list(combinations(range(self.limits.branches), 2))

    def _settings(self, row: int) -> list[tuple[str, float]]:
        """What `SetParameter` may set on an operator: name and value, of weights per port."""
        found: list[tuple[str, float]] = []
        for name, parameter in sorted(self.catalog.operators[row].parameters.items()):
            names = [f"weights.{port}" for port in range(self.limits.branches)] if name == "weights" else [name]
            found += [(full, value) for full in names for value in parameter.values]
        return found

    def number(self, edits: list[Edit], composition: Composition) -> dict[int, Edit]:
        """Edits of a composition by their action number."""
        listed = places(composition)
        slots = {place: slot for slot, (place, _) in enumerate(listed[: self.slots])}
        sources = dict(listed)
        numbered: dict[int, Edit] = {}
        for edit in edits:
            slot = 0 if isinstance(edit, Stop) else slots.get(edit.place)
            if slot is not None:
                kind = KINDS.index(type(edit))
                numbered[(kind * self.slots + slot) * self.arguments + self._argument(edit, sources)] = edit
        return numbered

    def _argument(self, edit: Edit, sources: dict[Place, Expression]) -> int:
        if isinstance(edit, SetParameter):
            node = sources[edit.place]
            assert isinstance(node, Node)
            return self._settings(self._rows[node.operator.name]).index((edit.name, edit.value))
        if isinstance(edit, Reorder):
            return self._stages.index(edit.stages) if edit.stages is not None else 0
        return self._rows[edit.operator] if isinstance(edit, OperatorEdit) else 0


class LegalDiscrete(gym.spaces.Discrete):
    """Action numbers; samples are legal ones unless another mask is handed in.

    Attributes:
        legal: int8[n], 1 for the actions that are legal now.
        legal_first: int8[n], 1 for those that were legal when the episode began.
    """

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.legal = np.zeros(n, np.int8)
        self.legal_first = self.legal

    def seed(self, seed: int | None = None) -> int:
        """Seed what is drawn, and sample first actions until the next step.

        Who seeds means to begin an episode: Gymnasium's own checker seeds, samples, and only then resets.
        """
        self.legal = self.legal_first
        return super().seed(seed)

    def sample(self, mask: NDArray[np.int8] | None = None, probability: NDArray[np.float64] | None = None) -> np.int64:
        """Draw an action, uniformly among the legal ones where neither mask nor probability is given."""
        if mask is None and probability is None:
            mask = self.legal
        # Gymnasium annotates probabilities as int8, like masks, but asks for float64.
        return super().sample(mask, cast(Any, probability))
