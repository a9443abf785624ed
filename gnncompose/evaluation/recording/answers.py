"""What every composition of a closed space really answers: its metric, and the rows that reach its branches.

Chains are run on every row of a split. Rows are independent of each other and combiners are plain arithmetic, so
what a combiner answers follows from its branches by the very functions that the executor calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gnncompose.composition.enumeration import ClosedSpace
from gnncompose.composition.tree import Composition, Node
from gnncompose.evaluation.metrics import find_metric
from gnncompose.execution.combiners import cascaded, combiner, confidence_of, threshold_of
from gnncompose.execution.isolation import Isolation
from gnncompose.execution.latency import Effort
from gnncompose.execution.load import parse_load
from gnncompose.execution.outputs import check_answers
from gnncompose.execution.work import answers
from gnncompose.tasks.task import Split, Task

Join = Callable[[list[np.ndarray]], np.ndarray]
TELL_EVERY = 500


@dataclass(frozen=True, eq=False)
class Answered:
    """What the compositions of a space gave on a split.

    Attributes:
        metric: float64[rows]: value of the task's metric.
        reached: uint8[rows, branches - 1]: of the rows that the timing protocol times, how many reach the second and
            each later branch: all of them in an ensemble, those that go on in a cascade, those sent there by a router.
    """

    metric: np.ndarray
    reached: np.ndarray


def timed_rows(load: str, count: int, effort: Effort) -> np.ndarray:
    """int64[timed]: which of `count` rows are timed, one in each request."""
    return parse_load(load).requests(count, effort).ravel()


def answer(
    task: Task, space: ClosedSpace, split: Split, load: str, isolation: Isolation, tell: Callable[[int], None]
) -> Answered:
    """Run every chain on a split, and work out what combiners make of them.

    Args:
        task: Whose metric counts.
        space: Which compositions.
        split: On which rows.
        load: Under which load they would be timed, with one row in a request.
        isolation: Where they run.
        tell: Told of rows that are done, some at a time.

    Raises:
        EvaluationError: A chain could not be run.
    """
    outputs = _outputs(space, split, isolation)
    compute, metric = find_metric(task.metric).compute, np.empty(len(space))
    order = np.lexsort((np.count_nonzero(space.branches, axis=1), space.way))
    key: tuple[int, int] = (-1, -1)
    join: Join = _alone
    for done, row in enumerate(order.tolist(), start=1):
        way, route = int(space.way[row]), int(space.route[row])
        chosen = [number for number in space.branches[row].tolist() if number]
        if key != (way, len(chosen)):
            key, join = (way, len(chosen)), _join(space, row)
        inputs = [outputs[number] for number in ([route, *chosen] if route else chosen)]
        metric[row] = compute(join(inputs), split.y)
        if done % TELL_EVERY == 0:
            tell(TELL_EVERY)
    tell(len(space) % TELL_EVERY)
    timed = timed_rows(load, len(split.x), Effort())
    return Answered(metric, _reached(space, {number: output[timed] for number, output in outputs.items()}))


def _outputs(space: ClosedSpace, split: Split, isolation: Isolation) -> dict[int, np.ndarray]:
    """What every chain gives, and what every router decides by, on all rows."""
    below, found = space.expressions, {}
    wanted = (*below.chains, *(number for numbers in below.routes.values() for number in numbers))
    for number in wanted:
        node = below.all[number]
        assert isinstance(node, Node)
        composition = Composition(node)
        found[number] = isolation.runner(composition).call(answers, composition, split)
        check_answers(found[number], composition, len(split.x))
    return found


def _alone(inputs: list[np.ndarray]) -> np.ndarray:
    return inputs[0]


def _join(space: ClosedSpace, row: int) -> Join:
    """What the combiner of a row makes of its inputs; the same for all rows of its way with as many branches."""
    if space.ways[space.way[row]] is None:
        return _alone
    node = space.composition(row).root
    if node.operator.kind == "cascade":
        return lambda inputs: cascaded(node, inputs)
    if node.operator.kind == "router":
        return _routed
    return combiner(node)


def _routed(inputs: list[np.ndarray]) -> np.ndarray:
    """What a router answers, from what it decides by and what each branch would answer."""
    choice = inputs[0].argmax(axis=1)
    return np.stack(inputs[1:])[choice, np.arange(len(choice))]


def _reached(space: ClosedSpace, timed: dict[int, np.ndarray]) -> np.ndarray:
    """uint8[rows, branches - 1], as in `Answered`, from the outputs on the timed rows."""
    count = len(next(iter(timed.values())))
    certain = np.zeros((len(space.expressions.all), count), dtype=np.float32)
    for number in space.expressions.chains:
        certain[number] = confidence_of(space.expressions.all[number].type)(timed[number])
    reached = np.zeros((len(space), space.branches.shape[1] - 1), dtype=np.uint8)
    for number, way in enumerate(space.ways):
        rows = np.flatnonzero(space.way == number)
        if way is None or not len(rows):
            continue
        branches = space.branches[rows]
        if way.operator.kind == "cascade":
            threshold = threshold_of(space.composition(int(rows[0])).root)
            going = np.ones((len(rows), count), dtype=bool)
            for port in range(reached.shape[1]):
                going &= ~(certain[branches[:, port]] >= threshold)
                reached[rows, port] = going.sum(axis=1) * (branches[:, port + 1] > 0)
        elif way.operator.kind == "router":
            chosen = {route: timed[route].argmax(axis=1) for route in np.unique(space.route[rows]).tolist()}
            choice = np.stack([chosen[route] for route in space.route[rows].tolist()])
            for port in range(reached.shape[1]):
                reached[rows, port] = (choice == port + 1).sum(axis=1)
        else:
            reached[rows] = count * (branches[:, 1:] > 0)
    return reached
