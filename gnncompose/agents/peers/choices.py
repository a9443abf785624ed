"""A composition as a fixed list of categorical choices, for optimisers that know nothing of graphs.

The choices are: a combiner or none, how many branches it has, of each branch its transforms and its model, of a
weighted ensemble the weights, and one value for each parameter of each operator. Not every composition can be said
so: combiners do not nest, all uses of an operator share its parameters, and a branch has at most so many transforms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from gnncompose.agents.agent import Proposals
from gnncompose.catalog.operator import Operator
from gnncompose.composition.chains import graft, shortest_chains
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, Expression, Input, Node, Value, make_node
from gnncompose.errors import CompositionError
from gnncompose.evaluation.evaluation import FAILED_REWARD

NONE = "none"
PATIENCE = 4  # draws in vain after which the optimiser is handed a composition that was not tried
LONGEST_VAIN = 100  # draws in vain after which the search ends
WALKS = 20  # walks among whose ends such a composition is sought
Pick = Callable[[str], int]
Asked = TypeVar("Asked")


class Choices:
    """The choices of a space.

    Attributes:
        options: By the name of each choice, what there is to choose from.
    """

    def __init__(self, space: Space, transforms: int = 3) -> None:
        """List the choices.

        Args:
            space: Whose compositions are described.
            transforms: Transforms of a branch, at most.
        """
        self.space = space
        self.branches = space.limits.branches
        bounds = (transforms, space.limits.depth - 1, space.limits.transforms)
        self.transforms = min(bound for bound in bounds if bound is not None)
        catalog = space.catalog
        models = tuple(composition.root.operator.name for composition in space.single_models())
        steps = (NONE, *(o.name for o in catalog.transforms if len(o.inputs) == 1))
        combiners = (NONE, *(o.name for o in catalog.combiners if self._joins(o)))
        options: dict[str, tuple[str | float, ...]] = {
            "combiner": combiners,
            "branches": tuple(range(2, self.branches + 1)) or (1,),
        }
        for branch in range(self.branches if len(combiners) > 1 else 1):
            options |= {f"branch{branch}.transform{slot}": steps for slot in range(self.transforms)}
            options[f"branch{branch}.model"] = models
        for operator in catalog.operators:
            for name, parameter in operator.parameters.items():
                count = self.branches if name == "weights" else 1
                for port in range(count):
                    options[_setting(operator, name, port)] = parameter.values
        self.options = options

    def compose(self, pick: Pick) -> Composition:
        """The composition that choices describe; only those that it depends on are asked for.

        Args:
            pick: From the name of a choice to the number of the chosen option.

        Raises:
            CompositionError: The choices describe no composition of the space.
        """
        combiner, branches = self._combiner(pick)
        plans = [self._plan(branch, pick) for branch in range(branches)]
        used = {operator for transforms, model in plans for operator in (*transforms, model)}
        operators = [self.space.catalog.operator(name) for name in sorted(used)]
        values = {operator.name: self._values(operator, 1, pick) for operator in operators}
        settings = {} if combiner is None else self._values(combiner, branches, pick)
        roots = [self._branch(transforms, model, values) for transforms, model in plans]
        if combiner is None:
            root = roots[0]
        else:
            data = [Input(self.space.input_type)] if combiner.kind == "router" else []
            root = make_node(combiner, [*data, *roots], settings)
        composition = Composition(root, self.space.catalog.sha256)
        if root.type != self.space.start.root.type or not self.space.allows(composition):
            raise CompositionError(f"{composition}: gives another type than the task's output, or is none of the space")
        return composition

    def picks(self, composition: Composition) -> dict[str, int] | None:
        """The choices that describe a composition, those that it depends on; None where none do."""
        root = composition.root
        branches = root.branches if root.operator.is_combiner else (root,)
        named: dict[str, str | float] = {"combiner": root.operator.name if root.operator.is_combiner else NONE}
        if len(branches) > 1:
            named["branches"] = len(branches)
        for number, branch in enumerate(branches):
            *transforms, model = _chain(branch)
            transforms += [NONE] * (self.transforms - len(transforms))
            named |= {f"branch{number}.transform{slot}": name for slot, name in enumerate(transforms)}
            named[f"branch{number}.model"] = model
        for node in composition.nodes:
            for name, value in node.parameters:
                for port, number in enumerate(value if isinstance(value, tuple) else (value,)):
                    named[_setting(node.operator, name, port)] = number
        try:
            found = {name: self.options[name].index(option) for name, option in named.items()}
            return found if self.compose(found.__getitem__) == composition else None
        except (KeyError, ValueError, CompositionError):
            return None

    def _combiner(self, pick: Pick) -> tuple[Operator | None, int]:
        """The combiner, or None, and the number of branches."""
        name = self.options["combiner"][pick("combiner")]
        if name == NONE:
            return None, 1
        combiner = self.space.catalog.operator(str(name))
        if combiner.kind == "router":
            return combiner, int(combiner.outputs[0].type.axes[-1])
        return combiner, int(self.options["branches"][pick("branches")])

    def _plan(self, branch: int, pick: Pick) -> tuple[list[str], str]:
        """Names of a branch's transforms, the input's side first, and of its model."""
        names = [f"branch{branch}.transform{slot}" for slot in range(self.transforms)]
        transforms = [str(self.options[name][pick(name)]) for name in names]
        name = f"branch{branch}.model"
        return [step for step in transforms if step != NONE], str(self.options[name][pick(name)])

    def _values(self, operator: Operator, count: int, pick: Pick) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for name in operator.parameters:
            keys = [_setting(operator, name, port) for port in range(count if name == "weights" else 1)]
            numbers = tuple(float(self.options[key][pick(key)]) for key in keys)
            values[name] = numbers if name == "weights" else numbers[0]
        return values

    def _branch(self, transforms: Sequence[str], model: str, values: Mapping[str, dict[str, Value]]) -> Node:
        """The transforms on the task's input, and the shortest typed chain from there to the model."""
        data: Expression = Input(self.space.input_type)
        for name in transforms:
            data = make_node(self.space.catalog.operator(name), [data], values[name])
        chain = shortest_chains(self.space.catalog, data.type).get(model)
        if chain is None:
            raise CompositionError(f'no chain of operators leads from {data.type} to "{model}"')
        grafted = graft(chain, data)
        assert isinstance(grafted, Node)
        return make_node(grafted.operator, grafted.inputs, values[model])

    def _joins(self, combiner: Operator) -> bool:
        """Whether a combiner fits the limits; a router has to read the task's input as it is."""
        if combiner.kind != "router":
            return self.branches >= 2
        branches = int(combiner.outputs[0].type.axes[-1])
        return branches <= self.branches and combiner.inputs[0].type.accepts(self.space.input_type, {})


def _setting(operator: Operator, name: str, port: int) -> str:
    return f"{operator.name}.{name}.{port}" if name == "weights" else f"{operator.name}.{name}"


def _chain(expression: Expression) -> list[str]:
    """Names of the operators on the first way to an expression, the input's side first."""
    names: list[str] = []
    while isinstance(expression, Node):
        names.insert(0, expression.operator.name)
        expression = expression.inputs[0]
    return names


class Asker(Protocol[Asked]):
    """An optimiser behind ask and tell."""

    def suggest(self, picks: Mapping[str, int]) -> None:
        """Make the next `ask` give these options, for the choices that it makes."""
        ...

    def ask(self) -> tuple[Asked, Pick]:
        """What is to be told about, and how it chooses."""
        ...

    def tell(self, asked: Asked, reward: float, *, known: bool = False) -> None:
        """Say what a choice was worth, and whether that was told before."""
        ...


def ask_and_tell(choices: Choices, asker: Asker[Asked], generator: np.random.Generator) -> Proposals:
    """Yield what an optimiser asks for, the start first.

    Choices that describe no composition are told as failures and not charged. An optimiser that keeps asking for what
    is illegal or known is handed, now and then, an untried composition a few edits from its last legal one, and the
    search ends where nothing helps.
    """
    latest = choices.space.start
    start = choices.picks(latest)
    if start is not None:
        asker.suggest(start)
    tried: set[str] = set()
    vain = 0
    while vain < LONGEST_VAIN:
        if vain % PATIENCE == PATIENCE - 1 and (other := _untried(choices, latest, tried, generator)) is not None:
            asker.suggest(other)
        asked, pick = asker.ask()
        vain += 1
        try:
            composition = choices.compose(pick)
        except CompositionError:
            asker.tell(asked, FAILED_REWARD)
            continue
        latest, known = composition, composition.id in tried
        asker.tell(asked, (yield composition).reward, known=known)
        if not known:
            tried.add(composition.id)
            vain = 0


def _untried(
    choices: Choices, near: Composition, tried: set[str], generator: np.random.Generator
) -> dict[str, int] | None:
    """Choices for where a walk from a composition leads that was not tried; longer walks where short ones do not."""
    for walk in range(WALKS):
        composition = choices.space.walk(near, 1 + walk // 4, generator)
        if composition.id not in tried and (picks := choices.picks(composition)) is not None:
            return picks
    return None
