"""What each node of a composition takes and gives: its part of a request's time, and what happens without it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from gnncompose.composition.edits import Place, RemoveModel, RemoveTransform
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, Expression, Input, Node, make_node
from gnncompose.errors import CompositionError, GnncomposeError
from gnncompose.evaluation.evaluation import Evaluation, Evaluator

LEFT_OUT = "left out, to keep the run short"


@dataclass(frozen=True)
class NodeTime:
    """What a node takes where it stands.

    Attributes:
        latency_ms: Of a request that runs it.
        share: Of the timed requests that run it; less than 1 behind a cascade or router.
    """

    latency_ms: float
    share: float

    @property
    def mean_ms(self) -> float:
        """What it adds to the mean latency."""
        return self.latency_ms * self.share


@runtime_checkable
class TimesNodes(Protocol):
    """An evaluator that can say what each node of a composition takes."""

    def node_times(self, composition: Composition) -> dict[str, NodeTime]:
        """What each node takes on the validation split, by node id; a node of which nothing is known is not there.

        Raises:
            GnncomposeError: It could not be run, or is not known.
        """
        ...


@dataclass(frozen=True, eq=False)
class Contribution:
    """One node, and the composition without it.

    Attributes:
        node: Which node.
        time: What it takes; None where the evaluator cannot say.
        without: The composition without it: by the edit that removes it, or, for a combiner, with the best of its
            branches in its place. None where there is none.
        evaluation: Of `without`, on validation data.
        reward: Of `evaluation`.
        reason: Why there is no evaluation.
    """

    node: Node
    time: NodeTime | None
    without: Composition | None = None
    evaluation: Evaluation | None = None
    reward: float | None = None
    reason: str | None = None


class _Asked:
    """Evaluates what is not known yet, as long as there is time."""

    def __init__(
        self,
        evaluator: Evaluator,
        reward: Callable[[Evaluation], float],
        known: Mapping[str, Evaluation],
        seconds: float,
    ) -> None:
        self.reward = reward
        self._evaluator = evaluator
        self._known = dict(known)
        self._until = time.monotonic() + seconds

    def evaluation(self, composition: Composition) -> Evaluation:
        """Its evaluation; raises `GnncomposeError` with the reason where there is none."""
        found = self._known.get(composition.id)
        if found is None:
            if time.monotonic() > self._until:
                raise GnncomposeError(LEFT_OUT)
            try:
                found = self._known[composition.id] = self._evaluator.evaluate(composition)
            except KeyboardInterrupt:
                self._until = float("-inf")
                raise GnncomposeError(LEFT_OUT) from None
        return found


def contributions(
    composition: Composition,
    evaluator: Evaluator,
    space: Space,
    reward: Callable[[Evaluation], float],
    known: Mapping[str, Evaluation],
    seconds: float,
) -> tuple[Contribution, ...]:
    """What each node of a composition takes and gives; no budget is charged for it.

    Args:
        composition: Whose nodes.
        evaluator: Really runs compositions, or looks them up.
        space: Of its task.
        reward: Says which branch stands for a combiner.
        known: Evaluations on validation data that were made already, by composition id.
        seconds: After so long no further evaluation is begun.

    Returns:
        One for each node, in the order of `Composition.nodes`.
    """
    asked = _Asked(evaluator, reward, known, seconds)
    times = _times(composition, evaluator) if seconds > 0 else {}
    return tuple(_contribution(composition, node, times.get(node.id), space, asked) for node in composition.nodes)


def _times(composition: Composition, evaluator: Evaluator) -> dict[str, NodeTime]:
    if not isinstance(evaluator, TimesNodes):
        return {}
    try:
        return evaluator.node_times(composition)
    except (GnncomposeError, KeyboardInterrupt):
        return {}


def _contribution(
    composition: Composition, node: Node, taken: NodeTime | None, space: Space, asked: _Asked
) -> Contribution:
    try:
        candidates = _branches(composition, node) if node.operator.is_combiner else [_removed(composition, node, space)]
    except CompositionError:
        lone = node.operator.kind == "model" and node.id == composition.id
        reason = "nothing would be left to answer" if lone else "what reads it takes nothing else"
        return Contribution(node, taken, reason=reason)
    best: Contribution | None = None
    reason = ""
    for without in candidates:
        try:
            evaluation = asked.evaluation(without)
        except GnncomposeError as problem:
            reason = str(problem)
            continue
        reward = asked.reward(evaluation)
        if best is None or best.reward is None or reward > best.reward:
            best = Contribution(node, taken, without, evaluation, reward)
    return best or Contribution(node, taken, candidates[0], reason=reason)


def _removed(composition: Composition, node: Node, space: Space) -> Composition:
    """The composition after the edit that removes a node wherever it is used; raises where that is not legal."""
    place = Place(output=node.id)
    return space.apply(composition, RemoveModel(place) if node.operator.kind == "model" else RemoveTransform(place))


def _branches(composition: Composition, combiner: Node) -> list[Composition]:
    """The composition with each branch of a combiner in the combiner's place."""

    def instead(expression: Expression, branch: Expression) -> Expression:
        if expression.id == combiner.id:
            return branch
        if isinstance(expression, Input):
            return expression
        inputs = [instead(child, branch) for child in expression.inputs]
        return make_node(expression.operator, inputs, dict(expression.parameters))

    roots = [instead(composition.root, branch) for branch in combiner.branches]
    return [Composition(root, composition.catalog_sha256) for root in roots if isinstance(root, Node)]
