"""A task with its recorded table: what every composition really is worth in each world, and what it really answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from gnncompose.adaptation.circumstances import USUAL, Circumstances
from gnncompose.adaptation.drift import Reference
from gnncompose.adaptation.restricted import does_without, restricted
from gnncompose.adaptation.waiting import Waiting
from gnncompose.agents.agent import Agent, search
from gnncompose.composition.files import composition_from_json, composition_to_json
from gnncompose.composition.space import Space
from gnncompose.composition.transitions import ClosedSearchSpace
from gnncompose.composition.tree import Composition
from gnncompose.errors import EvaluationError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.evaluation import FAILED_REWARD, Budget, Evaluation, Trial
from gnncompose.evaluation.table import TableEvaluator
from gnncompose.execution.isolation import Isolation
from gnncompose.execution.work import answers as answers_of
from gnncompose.execution.worker import Limits
from gnncompose.reward import Reward
from gnncompose.tasks.task import Split, Task, World

SPLIT = "validation"
CACHE_BYTES = 1 << 30
Rewards = Float[np.ndarray, " row"]


class RecordedWorld:
    """The recorded table as it reads in one world; an evaluator.

    Attributes:
        name: What evaluations say they came from.
        world: In which world.
        task: The recorded part of the task.
        table: What is looked up.
    """

    name = "table"

    def __init__(
        self,
        task: Task,
        condition: str,
        around: Circumstances,
        prices: Prices,
        reward: Callable[[Evaluation], float],
    ) -> None:
        """Open the table.

        Args:
            task: Built, with a recorded table.
            condition: State of the data.
            around: The rest of the world.
            prices: What resources usually cost.
            reward: Says how good an evaluation is.

        Raises:
            TableError: There is no table, or it lacks the condition or the load.
        """
        paid = around.prices(prices)
        self._recorded = TableEvaluator(task, World(condition), paid)
        self.task, self.table = self._recorded.task, self._recorded.table
        self.world = World(condition, load=around.load)
        self._reward = reward
        self._under: Callable[[Evaluation], Evaluation] = lambda evaluation: evaluation
        if around.load != USUAL.load:
            self._under = Waiting(self.table, condition, around.load, paid)
        self._rewards: dict[str, Rewards] = {}

    @property
    def real(self) -> RecordedWorld:
        """Itself."""
        return self

    def charge(self, composition: Composition) -> int:
        """One."""
        return 1

    def evaluate(self, composition: Composition, split: str = SPLIT) -> Evaluation:
        """See `Evaluator.evaluate`."""
        return self._under(self._recorded.evaluate(composition, split))

    def rewards(self, split: str) -> Rewards:
        """The reward of every composition of the table, as a budget counts it; withheld operators are no matter."""
        if split not in self._rewards:
            self._rewards[split] = self._recorded.rewards(self._judged, split)
        return self._rewards[split]

    def _judged(self, evaluation: Evaluation) -> float:
        try:
            return self._reward(self._under(evaluation))
        except EvaluationError:
            return FAILED_REWARD


class Recorded:
    """A task with its recorded table, and real answers of its compositions.

    Attributes:
        built: The task with its data and artifacts.
        task: The recorded part of it.
    """

    def __init__(self, task: Task, prices: Prices, reward: Reward, conditions: Sequence[str]) -> None:
        """Open the tables.

        Args:
            task: Built, with a recorded table.
            prices: What resources cost.
            reward: Says how good an evaluation is.
            conditions: The states.

        Raises:
            TableError: There is no table, or it lacks a condition.
        """
        self.conditions = tuple(conditions)
        self.built = task
        self._prices = prices
        self._worlds: dict[tuple[str, Circumstances], RecordedWorld] = {}
        worlds = [self.world(condition) for condition in self.conditions]
        self.task, self._table = worlds[0].task, worlds[0].table
        self._bound = reward.bind(self.task.catalog, prices, worlds[0].world)
        self._spaces: dict[tuple[str, ...], Space] = {(): self.task.space}
        self._isolation = Isolation(task.catalog, Limits(cache_bytes=CACHE_BYTES))
        self._answers: dict[tuple[str, str], np.ndarray] = {}
        self._truths: dict[Circumstances, np.ndarray] = {}
        self._left: dict[tuple[str, ...], np.ndarray] = {}

    def close(self) -> None:
        """End the process in which compositions run."""
        self._isolation.close()

    def reward(self, evaluation: Evaluation) -> float:
        """How good an evaluation is, in every world on the same scale: that of the whole catalog at usual prices."""
        return self._bound(evaluation)

    def world(self, condition: str, around: Circumstances = USUAL) -> RecordedWorld:
        """The table in a world; what is withheld it tells all the same.

        Raises:
            TableError: There is no table, or it lacks the condition or the load.
        """
        key = condition, replace(around, withheld=())
        if key not in self._worlds:
            self._worlds[key] = RecordedWorld(self.built, *key, self._prices, self.reward)
        return self._worlds[key]

    def space(self, around: Circumstances = USUAL) -> Space:
        """Where to search: the table's compositions without what is withheld."""
        if around.withheld not in self._spaces:
            whole = self.task.space
            assert isinstance(whole, ClosedSearchSpace)
            self._spaces[around.withheld] = restricted(whole, around.catalog(self.task.catalog))
        return self._spaces[around.withheld]

    def split(self, condition: str) -> Split:
        """The data of a condition that streams are drawn from."""
        return self.built.split(condition, SPLIT)

    def answers(self, composition: Composition, condition: str) -> np.ndarray:
        """[rows, ...]: what a composition really answers on the data of a condition.

        Artifacts that were trained on another machine than the table's may differ from the recorded ones; then it is
        the composition of operators of these names that answers.
        """
        key = composition.id, condition
        if key not in self._answers:
            document = composition_to_json(composition) | {"catalog": None}
            built = composition_from_json(document, self.built.catalog, self.built.input.type, name=str(composition))
            runner = self._isolation.runner(built)
            self._answers[key] = runner.call(answers_of, built, self.split(condition))
        return self._answers[key]

    def usual(self, composition: Composition, condition: str) -> Reference:
        """What is usual in a condition: inputs, what a composition answers, and its errors."""
        split, answers = self.split(condition), self.answers(composition, condition)
        return Reference.of(split.x, answers, split.y)

    def truth(self, composition: Composition, around: Circumstances = USUAL) -> Float[np.ndarray, " state"]:
        """The rewards of a composition in each state, on test data."""
        return self._all_truths(around)[:, self._table.row(composition)]

    def best(self, shares: Float[np.ndarray, " state"], around: Circumstances = USUAL) -> float:
        """The largest reward that any composition has on test data, where states are mixed like this."""
        return float((shares @ self._all_truths(around))[self._offered(around)].max())

    def best_on_validation(self, condition: str, around: Circumstances = USUAL) -> Composition:
        """The composition that is best on validation data of a condition, as the table tells."""
        rewards = self.world(condition, around).rewards(SPLIT)
        row = int(np.where(self._offered(around), rewards, -np.inf).argmax())
        return self._table.space.composition(row)

    def searched(
        self, agent: Agent, condition: str, budget: int, generator: np.random.Generator, around: Circumstances = USUAL
    ) -> list[Trial]:
        """What an agent finds in a world by the table."""
        spent = Budget(self.world(condition, around), self.reward, budget)
        search(agent, self.space(around), spent, generator)
        return spent.trials

    def _offered(self, around: Circumstances) -> Bool[np.ndarray, " row"]:
        """Which compositions of the table there are."""
        if around.withheld not in self._left:
            self._left[around.withheld] = does_without(self._table.space, around.withheld)
        return self._left[around.withheld]

    def _all_truths(self, around: Circumstances) -> Float[np.ndarray, "state row"]:
        key = replace(around, withheld=())
        if key not in self._truths:
            worlds = [self.world(condition, around) for condition in self.conditions]
            self._truths[key] = np.stack([world.rewards("test") for world in worlds])
        return self._truths[key]
