"""Every way in which a composition is run, held against an independent computation (DESIGN §6.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from independent import CLOSE, Independent, one_thread, random_compositions

from gnncompose.composition.tree import Composition, Node
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.execution.merge import merge
from gnncompose.execution.outputs import OutputCache, whole_split_output
from gnncompose.execution.plan import Plan
from gnncompose.execution.sandbox import Sandbox
from gnncompose.execution.sessions import SessionPool
from gnncompose.execution.work import answers
from gnncompose.execution.worker import Limits
from gnncompose.tasks.task import Split, Task, World

# Batch sizes, in turn.
SIZES = (1, 7, 1, 30, 1, 7, 1, 30, 1, 1000)
MOST_EXEMPT = 0.001


@dataclass
class Agreement:
    """What was compared.

    Attributes:
        compositions: How many.
        rows: Rows that were compared, by way.
        exempt: Rows near a threshold or a tie that differed, by way.
        scores: Scores that were compared.
        kinds: How many compositions hold a combiner of each kind.
        escalated: How many had none, some or all of their rows go past the first stage of a cascade on top.
        disagreements: What differed and is not exempt, in a line each.
    """

    compositions: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    exempt: Counter[str] = field(default_factory=Counter)
    scores: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    escalated: Counter[str] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)

    @property
    def share_exempt(self) -> float:
        """Largest share of exempt rows of any way."""
        return max(self.exempt[way] / rows for way, rows in self.rows.items())

    def add(self, other: Agreement) -> None:
        """Add what was compared elsewhere."""
        self.compositions += other.compositions
        self.scores += other.scores
        for mine, theirs in ((self.rows, other.rows), (self.exempt, other.exempt)):
            mine.update(theirs)
        self.kinds.update(other.kinds)
        self.escalated.update(other.escalated)
        self.disagreements += other.disagreements


def tolerance(composition: Composition) -> float:
    """1e-5, or twice the largest deviation between rows alone and together that its operators' profiles record."""
    recorded = [node.operator.profile.row_deviation or 0.0 for node in composition.nodes]
    return max(CLOSE, 2 * max(recorded))


def compare(task: Task, count: int, generator: np.random.Generator, folder: Path) -> Agreement:
    """Compare every way on random compositions.

    Args:
        task: Whose compositions; its artifacts are trusted.
        count: How many.
        generator: Draws compositions and rows.
        folder: An empty one, for the evaluation store.
    """
    found = Agreement()
    ways = Ways(task, generator, folder)
    try:
        # By size and condition, so that one pair of evaluators is open at a time, and outputs are found again.
        drawn = [
            (SIZES[number % len(SIZES)], task.conditions[number // len(SIZES) % len(task.conditions)], composition)
            for number, composition in enumerate(random_compositions(task, count, generator))
        ]
        for size, condition, composition in sorted(drawn, key=lambda entry: entry[:2]):
            ways.compare(composition, condition, size, found)
    finally:
        ways.close()
    return found


class Ways:
    """The ways, ready to run compositions of a task."""

    def __init__(self, task: Task, generator: np.random.Generator, folder: Path) -> None:
        self.task, self._generator = task, generator
        self._store = f"sqlite:///{folder}/agreement.db"
        self._sessions, self._cache = SessionPool(task.catalog), OutputCache()
        self._sandbox = Sandbox(task.catalog, Limits(cache_bytes=1 << 28))
        self._independent = Independent(task.directory)
        self._splits: dict[tuple[str, int], Split] = {}
        self._evaluators: tuple[tuple[str, int], OnnxEvaluator, OnnxEvaluator] | None = None

    def close(self) -> None:
        """End the processes."""
        self._sandbox.close()

    def _split(self, condition: str, size: int) -> Split:
        """Rows of a condition, always the same of one size."""
        if (condition, size) not in self._splits:
            splits = [self.task.split(condition, name) for name in ("validation", "test")]
            x, y = (np.concatenate([getattr(split, part) for split in splits]) for part in ("x", "y"))
            rows = self._generator.permutation(len(x))[:size]
            self._splits[condition, size] = Split(x[rows], y[rows])
        return self._splits[condition, size]

    def _pair(self, condition: str, size: int) -> tuple[OnnxEvaluator, OnnxEvaluator]:
        """Two evaluators that know each other only by the store, on those rows."""
        if self._evaluators is None or self._evaluators[0] != (condition, size):
            few = replace(self.task, _splits={(condition, "validation"): self._split(condition, size)})
            writer, reader = (
                OnnxEvaluator(
                    *(few, World(condition), load_prices()),
                    rows=1,
                    repeats=1,
                    seconds=0.0,
                    measure_memory=False,
                    store=self._store,
                )
                for _ in range(2)
            )
            self._evaluators = (condition, size), writer, reader
        return self._evaluators[1:]

    def _answers(self, composition: Composition, split: Split) -> Iterator[tuple[str, np.ndarray]]:
        yield "plan", Plan(composition, self._sessions).run(split.x)
        merged = one_thread(merge(composition, self.task.catalog).SerializeToString())
        yield "merged", merged.run(["output"], {"input": split.x})[0]
        yield "whole_split", whole_split_output(composition, split, self._sessions, self._cache)
        yield "sandbox", self._sandbox.call(answers, composition, split)

    def compare(self, composition: Composition, condition: str, size: int, found: Agreement) -> None:
        """Compare every way on one composition."""
        split = self._split(condition, size)
        expected, near = self._independent.answer(composition, split.x), self._independent.near
        most = tolerance(composition)
        found.compositions += 1
        combiners = [node.operator for node in composition.nodes if node.operator.is_combiner]
        found.kinds.update({operator.builtin or operator.kind for operator in combiners})
        for way, answer in self._answers(composition, split):
            differs = ~(np.abs(answer - expected).max(axis=1) <= most)
            found.rows[way] += len(expected)
            found.exempt[way] += int((differs & near).sum())
            if (differs & ~near).any():
                found.disagreements.append(f"{way} differs in {differs.sum()} of {len(expected)} rows: {composition}")
        top = np.sort(expected, axis=1)
        open_rows = near | (top[:, -1] - top[:, -2] < 2 * most)  # whose most probable class may be another
        expected_score = float((expected.argmax(axis=1) == split.y).mean())
        self._compare_scores(composition, condition, size, (expected_score, open_rows.mean() + 1e-12), found)
        _count_escalated(composition, self._sessions, split.x, found)

    def _compare_scores(
        self, composition: Composition, condition: str, size: int, expected: tuple[float, float], found: Agreement
    ) -> None:
        writer, reader = self._pair(condition, size)
        # The same composition may come again on the same rows, and is in the store by then.
        written, read = writer.evaluate(composition), reader.evaluate(composition)
        found.scores += 2
        if not read.cached or read.score != written.score:
            found.disagreements.append(f"the store gives {read.score} for {written.score}: {composition}")
        if abs(written.score - expected[0]) > expected[1]:
            found.disagreements.append(f"the score is {written.score}, not {expected[0]}: {composition}")


def _count_escalated(composition: Composition, sessions: SessionPool, x: np.ndarray, found: Agreement) -> None:
    root = composition.root
    if root.operator.kind != "cascade":
        return
    first = root.inputs[0]
    assert isinstance(first, Node)
    share = (Plan(Composition(first), sessions).run(x).max(axis=1) < np.float32(root.parameter("threshold"))).mean()
    found.escalated["none" if share == 0 else "all" if share == 1 else "some"] += 1
