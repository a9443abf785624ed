"""Replay of what happened, for learners that go over it more than once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class Replay(Generic[Key, Item]):
    """Items by key, drawn uniformly; the oldest leave when it is full.

    One key holds one item: a transition that is seen again replaces itself, so often walked ways do not crowd
    out the others.
    """

    def __init__(self, capacity: int) -> None:
        """Set the size.

        Args:
            capacity: Most items held.
        """
        self.capacity = capacity
        self._items: list[Item] = []
        self._rows: dict[Key, int] = {}
        self._keys: list[Key] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, key: Key, item: Item) -> None:
        """Hold an item under its key."""
        row = self._rows.get(key)
        if row is not None:
            self._items[row] = item
        elif len(self._items) < self.capacity:
            self._rows[key] = len(self._items)
            self._items.append(item)
            self._keys.append(key)
        else:
            del self._rows[self._keys[self._next]]
            self._rows[key], self._items[self._next], self._keys[self._next] = self._next, item, key
            self._next = (self._next + 1) % self.capacity

    def sample(self, size: int, generator: np.random.Generator) -> list[Item]:
        """Draw items with replacement."""
        return [self._items[i] for i in generator.integers(len(self._items), size=size)]
