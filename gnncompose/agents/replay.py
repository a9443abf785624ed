"""Replay of what happened, for learners that go over it more than once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


SMALLEST_ERROR = 1e-3


class Drawn(NamedTuple, Generic[Item]):
    """A batch.

    Attributes:
        items: The items.
        rows: int64[batch]: where they are held.
        weights: float32[batch]: how much the error of each counts, 1 at most.
    """

    items: list[Item]
    rows: Int[np.ndarray, " batch"]
    weights: Float[np.ndarray, " batch"]


class Replay(Generic[Key, Item]):
    """Items by key; the oldest leave when it is full.

    They are drawn uniformly, or by priority: the power of their last error (Schaul et al., Prioritized experience
    replay, ICLR 2016, proportional variant), weighed so that the gradient stays that of uniform draws. One key holds
    one item: a transition that is seen again replaces itself, so often walked ways do not crowd out the others.
    """

    def __init__(self, capacity: int, priority: float = 0.0) -> None:
        """Set the size.

        Args:
            capacity: Most items held.
            priority: Power of an item's last error that it is drawn by; 0 for uniform draws.
        """
        self.capacity = capacity
        self.priority = priority
        self._errors = np.zeros(capacity if priority > 0 else 0)
        self._items: list[Item] = []
        self._rows: dict[Key, int] = {}
        self._keys: list[Key] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, key: Key, item: Item) -> None:
        """Hold an item under its key."""
        row = self._rows.get(key, len(self._items) if len(self._items) < self.capacity else self._next)
        if self.priority > 0:  # nobody knows its error yet, so it is soon drawn
            self._errors[row] = self._errors.max(initial=1.0)
        if key in self._rows:
            self._items[row] = item
        elif len(self._items) < self.capacity:
            self._rows[key] = len(self._items)
            self._items.append(item)
            self._keys.append(key)
        else:
            del self._rows[self._keys[self._next]]
            self._rows[key], self._items[self._next], self._keys[self._next] = self._next, item, key
            self._next = (self._next + 1) % self.capacity

    def sample(self, size: int, generator: np.random.Generator, correction: float = 1.0) -> Drawn[Item]:
        """Draw items with replacement.

        Args:
            size: How many.
            generator: Source of randomness.
            correction: How far weights make up for the priorities, 0 to 1.
        """
        count = len(self._items)
        if self.priority == 0:
            rows, weights = generator.integers(count, size=size), np.ones(size, dtype=np.float32)
        else:
            chances = self._errors[:count] ** self.priority
            chances /= chances.sum()
            rows = generator.choice(count, size=size, p=chances)
            weights = (chances[rows].min() / chances[rows]) ** correction
        return Drawn([self._items[row] for row in rows], rows, weights.astype(np.float32))

    def tell(self, rows: Int[np.ndarray, " batch"], errors: Float[np.ndarray, " batch"]) -> None:
        """Say how large the errors of drawn items are by now."""
        if self.priority > 0:
            self._errors[rows] = np.abs(errors) + SMALLEST_ERROR
