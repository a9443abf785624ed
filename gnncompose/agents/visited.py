"""What a run has visited: evaluated compositions, encoded once, and the transitions known between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from gnncompose.composition.edits import Stop
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition
from gnncompose.encoding import CatalogFeatures, encode
from gnncompose.evaluation.evaluation import Trial
from gnncompose.packing import Packer


@dataclass(frozen=True, eq=False)
class Visit:
    """An evaluated composition with its legal edits.

    Attributes:
        composition: What was evaluated.
        reward: Its reward.
        successors: Where each edit leads; `Stop`, the last edit, leads nowhere and has no entry.
        number: Of its graph in `Visited.graphs`, which has all its edits, `Stop` last.
        known: Numbers of the edits that lead to visited compositions, `Stop` among them.
    """

    composition: Composition
    reward: float
    successors: tuple[Composition, ...]
    number: int
    known: list[int]

    @property
    def stop(self) -> int:
        """Number of the edit `Stop`."""
        return len(self.successors)


class Step(NamedTuple):
    """An edit that leads from one visited composition to another; its reward is the improvement."""

    before: Visit
    edit: int
    after: Visit

    @property
    def reward(self) -> float:
        """r(c′) − r(c)."""
        return self.after.reward - self.before.reward


class Visited:
    """All visits of a run.

    Edits are deterministic and a re-visit is free, so any edit between two visited compositions is as good as
    walked: its transition is known without a step.

    Attributes:
        graphs: The encoded compositions.
    """

    def __init__(self, space: Space, uses_traits: bool = False) -> None:
        """Begin with nothing.

        Args:
            space: Where the run searches.
            uses_traits: Whether graphs hold the traits of operators, not their features.
        """
        self.space = space
        self.catalog = (CatalogFeatures.traits_of if uses_traits else CatalogFeatures.of)(space.catalog)
        self.graphs = Packer()
        self.by_id: dict[str, Visit] = {}
        self._leading_to: dict[str, list[tuple[Visit, int]]] = {}

    def __contains__(self, composition: Composition) -> bool:
        return composition.id in self.by_id

    def add(self, trial: Trial) -> tuple[Visit, list[Step]]:
        """Take in a trial.

        Returns:
            Its visit, and the steps to and from it that became known; none on a re-visit.
        """
        key = trial.composition.id
        if key in self.by_id:
            return self.by_id[key], []
        reachable = self.space.successors(trial.composition)
        graph = encode(trial.composition, [*(edit for edit, _ in reachable), Stop()], self.catalog)
        successors = tuple(composition for _, composition in reachable)
        visit = Visit(trial.composition, trial.reward, successors, self.graphs.add(graph), [len(successors)])
        self.by_id[key] = visit
        known = [Step(before, edit, visit) for before, edit in self._leading_to.pop(key, [])]
        for edit, successor in enumerate(successors):
            if successor.id in self.by_id:
                known.append(Step(visit, edit, self.by_id[successor.id]))
            else:
                self._leading_to.setdefault(successor.id, []).append((visit, edit))
        for step in known:
            step.before.known.append(step.edit)
        return visit, known

    @property
    def best(self) -> Visit:
        """The visit with the highest reward; the earliest of equals."""
        return max(self.by_id.values(), key=lambda visit: visit.reward)

    @property
    def frontier(self) -> Visit:
        """The visit with the highest reward that has an unvisited successor; the best where none has."""
        able = [visit for visit in self.by_id.values() if len(visit.known) <= visit.stop]
        return max(able, key=lambda visit: visit.reward, default=self.best)

    def unvisited(self, visit: Visit) -> list[int]:
        """Numbers of the edits that lead to compositions not evaluated yet."""
        return [edit for edit, successor in enumerate(visit.successors) if successor.id not in self.by_id]
