"""Plans: a composition made ready to run, every distinct node once and on no more rows than need it.

A plan is a flat list of prepared steps over numbered slots; a cascade or router is one step that gathers the
rows of a region, runs the region's own steps, and scatters the results. Where all rows go the same way, which
is always so at batch 1, nothing is gathered or copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import methodcaller

import numpy as np

from gnncompose.composition.tree import INPUT_ID, Composition, Node
from gnncompose.errors import CatalogError, EvaluationError
from gnncompose.execution.combiners import combiner, confidence_of, largest_value, threshold_of
from gnncompose.execution.outputs import operator_function
from gnncompose.execution.regions import ROOT, Region, find_regions, gathered, use_region
from gnncompose.execution.sessions import SessionPool, first_line, run_of

Values = list[np.ndarray]
Step = Callable[[Values], None]
_EMPTY = np.empty(0)


@dataclass(frozen=True, slots=True)
class _Block:
    """The steps of a region.

    Attributes:
        gathers: Slot outside and slot inside of each value that comes from outside.
        steps: What runs, in order.
        result: Slot of what the region gives.
    """

    gathers: tuple[tuple[int, int], ...]
    steps: tuple[Step, ...]
    result: int

    def run_all(self, values: Values) -> np.ndarray:
        """Run on every row of the outer region."""
        for outside, inside in self.gathers:
            values[inside] = values[outside]
        for step in self.steps:
            step(values)
        return values[self.result]

    def run_rows(self, values: Values, rows: np.ndarray) -> np.ndarray:
        """Run on some rows of the outer region, at least one."""
        for outside, inside in self.gathers:
            values[inside] = values[outside][rows]
        for step in self.steps:
            step(values)
        return values[self.result]


class Plan:
    """A composition ready to run; may be run from several threads at once.

    Attributes:
        composition: What it computes.
    """

    def __init__(self, composition: Composition, sessions: SessionPool) -> None:
        """Prepare the steps and open the sessions.

        Raises:
            EvaluationError: An artifact is missing, altered, or does not load.
        """
        self.composition = composition
        compiler = _Compiler(composition, sessions)
        try:
            self._steps = compiler.steps(ROOT)
        except CatalogError as problem:
            raise EvaluationError(str(problem)) from problem
        self._output = compiler.slot(composition.id, ROOT)
        # An operator that makes rows counts by those it takes.
        self._slots = {n.id: compiler.slot(n.inputs[0].id, compiler.regions[n.id]) for n in composition.nodes}
        self._blank: Values = [_EMPTY] * compiler.count

    def run(self, x: np.ndarray) -> np.ndarray:
        """Answer rows.

        Args:
            x: [rows, ...] of the task's input type, at least one row.

        Returns:
            [rows, ...] of the task's output type.

        Raises:
            EvaluationError: An operator failed on these rows.
        """
        return self._execute(x)[self._output]

    def row_counts(self, x: np.ndarray) -> dict[str, int]:
        """On how many rows each node runs to answer these, by node id; of several inputs the first one counts."""
        values = self._execute(x)
        return {key: len(values[slot]) for key, slot in self._slots.items()}

    def _execute(self, x: np.ndarray) -> Values:
        if not len(x):  # recurrent operators abort the whole process on 0 rows
            raise EvaluationError("there are no rows to run on; give at least one")
        values = self._blank.copy()
        values[0] = x
        try:
            for step in self._steps:
                step(values)
        except Exception as problem:  # ONNX Runtime raises a dozen own types
            raise EvaluationError(f"{self.composition} failed: {first_line(problem)}") from None
        return values


class _Compiler:
    """Turns nodes into steps; a slot holds one node's output in one region."""

    def __init__(self, composition: Composition, sessions: SessionPool) -> None:
        self.composition = composition
        self.sessions = sessions
        self.regions = find_regions(composition)
        self._slots: dict[tuple[str, Region], int] = {(INPUT_ID, ROOT): 0}

    @property
    def count(self) -> int:
        """Slots given out so far."""
        return len(self._slots)

    def slot(self, key: str, region: Region) -> int:
        """The slot of a value in a region."""
        return self._slots.setdefault((key, region), len(self._slots))

    def steps(self, region: Region) -> tuple[Step, ...]:
        """The steps of the nodes that run in a region, in order."""
        return tuple(self._step(node, region) for node in self.composition.nodes if self.regions[node.id] == region)

    def _step(self, node: Node, region: Region) -> Step:
        if node.operator.kind == "cascade":
            return self._cascade(node, region, 0, self.slot(node.id, region))
        if node.operator.kind == "router":
            return self._router(node, region)
        sources = tuple(self.slot(child.id, region) for child in node.inputs)
        target = self.slot(node.id, region)
        if node.operator.builtin:
            combine = combiner(node)

            def ensemble(values: Values) -> None:
                values[target] = combine([values[source] for source in sources])

            return ensemble
        return self._operator(node, sources, target)

    def _operator(self, node: Node, sources: tuple[int, ...], target: int) -> Step:
        if node.operator.host is not None:
            function = operator_function(node, self.sessions)

            def hosted(values: Values) -> None:
                values[target] = function([values[source] for source in sources])

            return hosted
        run = run_of(self.sessions.session(node.operator))
        names = [node.operator.outputs[0].name]
        inputs = tuple(port.name for port in node.operator.inputs)
        constants = {name: np.array(value, dtype=np.float32) for name, value in node.parameters}
        if len(sources) == 1:
            name, source = inputs[0], sources[0]
            if not constants:

                def plain(values: Values) -> None:
                    values[target] = run(names, {name: values[source]})[0]

                return plain

        def general(values: Values) -> None:
            feed = {name: values[source] for name, source in zip(inputs, sources, strict=True)}
            values[target] = run(names, feed | constants)[0]

        return general

    def _block(self, region: Region, result: int, last: Step | None = None) -> _Block:
        outer = region[:-1]
        keys = gathered(self.composition, self.regions, region)
        pairs = tuple((self.slot(key, outer), self.slot(key, region)) for key in keys)
        steps = self.steps(region)
        return _Block(pairs, steps if last is None else (*steps, last), result)

    def _cascade(self, node: Node, region: Region, stage: int, target: int) -> Step:
        """The cascade from `stage` on, which runs in `region`."""
        first = self.slot(node.inputs[stage].id, region)
        inner = (*region, (node.id, stage + 1))
        if stage + 2 == len(node.inputs):
            rest = self._block(inner, self.slot(node.inputs[stage + 1].id, inner))
        else:
            result = self.slot(f"{node.id}/{stage + 1}", inner)
            rest = self._block(inner, result, self._cascade(node, inner, stage + 1, result))
        threshold, confidence = threshold_of(node), confidence_of(node.type)
        # the maximum of one row is had faster
        single = methodcaller("max") if confidence is largest_value else confidence

        def cascade(values: Values) -> None:
            answers = values[first]
            if len(answers) == 1:
                values[target] = answers if single(answers) >= threshold else rest.run_all(values)
                return
            rows = np.flatnonzero(~(confidence(answers) >= threshold))
            if not len(rows):
                values[target] = answers
            elif len(rows) == len(answers):
                values[target] = rest.run_all(values)
            else:
                escalated = rest.run_rows(values, rows)
                values[target] = answers = answers.copy()
                answers[rows] = escalated

        return cascade

    def _router(self, node: Node, region: Region) -> Step:
        route = self.slot(f"{node.id}/route", region)
        decide = self._operator(node, (self.slot(node.inputs[0].id, region),), route)
        branches: list[_Block] = []
        for port in range(1, len(node.inputs)):
            inner = use_region(region, node, port)
            branches.append(self._block(inner, self.slot(node.inputs[port].id, inner)))
        target = self.slot(node.id, region)

        def router(values: Values) -> None:
            decide(values)
            choice = values[route].argmax(axis=1)
            first = choice[0]
            if len(choice) == 1 or (choice == first).all():
                values[target] = branches[first].run_all(values)
                return
            output: np.ndarray | None = None
            for number, branch in enumerate(branches):
                rows = np.flatnonzero(choice == number)
                if len(rows):
                    part = branch.run_rows(values, rows)
                    if output is None:
                        output = np.empty((len(choice), *part.shape[1:]), dtype=part.dtype)
                    output[rows] = part
            assert output is not None
            values[target] = output

        return router
