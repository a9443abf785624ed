"""What is known of one world row by row, and what follows of compositions that did not run there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gnncompose.composition.tree import Composition, Node
from gnncompose.evaluation.cost_model.behaviour import CONFIDENT, OUTCOMES, Behaviour
from gnncompose.evaluation.cost_model.escalation import EscalationModel
from gnncompose.evaluation.cost_model.latency import Usage
from gnncompose.evaluation.cost_model.outcomes import Outcomes
from gnncompose.evaluation.cost_model.replay import Replay
from gnncompose.evaluation.cost_model.scores import Member, ScoreBelief
from gnncompose.evaluation.cost_model.usage import branching_nodes, open_stages, usage_of
from gnncompose.evaluation.metrics import find_metric
from gnncompose.execution.combiners import confidence_of, threshold_of
from gnncompose.tasks.task import Split, Task


class WorldKnowledge:
    """Row-level answers of nodes that ran, replayed where they suffice, and beliefs where they do not.

    Attributes:
        outcomes: What ran.
        replay: What follows exactly.
        scores: What is believed.
    """

    def __init__(
        self,
        task: Task,
        split: Split,
        members: Sequence[Member],
        escalation: EscalationModel,
    ) -> None:
        """Begin with what was learned elsewhere.

        Args:
            task: Whose compositions are asked about.
            split: The rows of this world.
            members: Networks of the accuracy ensemble, each with the prior of every outcome.
            escalation: How shares of confident rows hang together.
        """
        self.outcomes = Outcomes()
        self.replay = Replay(self.outcomes, len(split.x))
        self.scores = ScoreBelief(members)
        self._output = task.output.type
        self._metric = find_metric(task.metric)
        self._labels = split.y
        self._escalation = escalation

    def observe(self, composition: Composition, outcomes: Outcomes) -> None:
        """Take in what the nodes of a composition answered."""
        self.outcomes.update(outcomes)
        nodes = [node for node in composition.nodes if node.id in outcomes.outputs]
        linked = np.array([self._behaviour(outcomes.outputs[node.id]) for node in nodes]).reshape(-1, OUTCOMES)
        for outcome in range(OUTCOMES):
            self.scores.observe(outcome, nodes, linked[:, outcome].tolist())

    def score(self, composition: Composition) -> float | None:
        """The score, where it follows from what ran."""
        output = self.replay.output(composition.root)
        return None if output is None else self.score_of(output)

    def score_of(self, output: np.ndarray) -> float:
        """Score of an output on every row."""
        return self._metric.score(self._metric.compute(output, self._labels))

    def usages(self, compositions: Sequence[Composition], requests: np.ndarray, threads: int) -> list[Usage]:
        """How much each node of each composition would take part.

        Args:
            compositions: Which.
            requests: int64[requests, batch]: rows of each request.
            threads: Threads of every session.
        """
        estimate, told = self._estimate(compositions), self._told(compositions)
        return [
            usage_of(composition, self.replay, requests, threads, estimate, told)[0] for composition in compositions
        ]

    def _behaviour(self, output: np.ndarray) -> np.ndarray:
        return Behaviour.of(output, self._labels, self._metric, confidence_of(self._output)).linked

    def _told(self, compositions: Sequence[Composition]) -> dict[str, tuple[float, ...]]:
        """Linked behaviour of all nodes whose operators branch."""
        nodes = {
            node.id: node
            for composition in compositions
            for node in branching_nodes(composition)
            if self._output.accepts(node.type, {})
        }
        known = self.outcomes.outputs
        found = {key: tuple(self._behaviour(known[key]).tolist()) for key in nodes if key in known}
        left = [node for key, node in nodes.items() if key not in found]
        told = zip(*(self.scores.predict(outcome, left)[0].tolist() for outcome in range(OUTCOMES)), strict=True)
        return found | dict(zip((node.id for node in left), told, strict=True))

    def _estimate(self, compositions: Sequence[Composition]) -> Callable[[Node, int], float]:
        """Shares that go on where replay does not know; asks for all stages of all compositions at once."""
        stages = {node.id: node for composition in compositions for node in open_stages(composition, self.replay)}
        told, _ = self.scores.predict(CONFIDENT, list(stages.values()))
        values = dict(zip(stages, told, strict=True))

        def estimate(node: Node, port: int) -> float:
            if node.operator.kind == "router":
                return 1.0 / len(node.branches)
            unsure = float(self._escalation.unsure(values[node.inputs[port - 1].id], float(threshold_of(node))))
            return self._escalation.handed_on(unsure, port - 1)

        return estimate
