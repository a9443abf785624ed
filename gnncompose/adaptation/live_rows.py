"""The latest rows of a server: what was asked, what was answered, and the labels that came later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Int

from gnncompose.adaptation.controller import Seen
from gnncompose.adaptation.drift import Reference, errors_of
from gnncompose.composition.tree import Composition
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.execution.isolation import Isolation
from gnncompose.execution.work import answers as answers_of
from gnncompose.execution.worker import Limits
from gnncompose.tasks.task import Split, Task, World

LIVE = "live"  # the condition that the latest rows are in, whatever it is


class LiveRows(Seen):
    """The latest rows of a server, by the numbers that the controller has for them."""

    def __init__(self, task: Task, prices: Prices, resource: str, load: str, most: int) -> None:
        self.task = task
        self.prices = prices
        self._resource = resource
        self._load = load
        self._most = most
        self._x: dict[int, np.ndarray] = {}
        self._answers: dict[int, np.ndarray] = {}
        self._y: dict[int, Any] = {}
        self._isolation = Isolation(task.catalog, Limits())

    def tell(self, first: int, x: np.ndarray, answers: np.ndarray) -> None:
        """Keep rows."""
        numbers = range(first, first + len(x))
        self._x.update(zip(numbers, x, strict=True))
        self._answers.update(zip(numbers, answers, strict=True))
        for number in range(next(iter(self._x)), first + len(x) - self._most):
            for kept in (self._x, self._answers, self._y):
                kept.pop(number, None)

    def label(self, rows: Sequence[int], labels: Sequence[Any]) -> tuple[np.ndarray, np.ndarray | None]:
        """Keep labels; the rows that are still known, and the errors of what was answered."""
        known = {row: label for row, label in zip(rows, labels, strict=True) if row in self._x}
        self._y.update(known)
        if not known:
            return np.zeros(0, dtype=np.int64), None
        answers = np.stack([self._answers[row] for row in known])
        return np.array(list(known)), errors_of(answers, np.array(list(known.values())))

    def split(self, rows: Int[np.ndarray, " row"]) -> Split:
        """Labelled rows as data."""
        return Split(np.stack([self._x[row] for row in rows]), np.array([self._y[row] for row in rows]))

    def evaluator(self, rows: Int[np.ndarray, " row"]) -> OnnxEvaluator:
        """See `Seen.evaluator`: compositions really run."""
        task = replace(self.task, conditions=(LIVE,), _splits={(LIVE, "validation"): self.split(rows)})
        return OnnxEvaluator(task, World(LIVE, self._resource, self._load), self.prices)

    def reference(self, composition: Composition, rows: Int[np.ndarray, " row"]) -> Reference:
        """See `Seen.reference`."""
        return self.usual(composition, self.split(rows))

    def usual(self, composition: Composition, split: Split) -> Reference:
        """What is usual on some data."""
        found = self._isolation.runner(composition).call(answers_of, composition, split)
        return Reference.of(split.x, found, split.y)

    def take(self, task: Task, prices: Prices) -> None:
        """Go on with a changed catalog, or changed prices."""
        self.task, self.prices = task, prices
        self._isolation.close()
        self._isolation = Isolation(task.catalog, Limits())
