"""Random compositions of every shape: chains, ensembles, cascades, routers, nests of them, and random walks.

A random walk along edits rarely builds a cascade and almost never a nest, so a model fitted to walks alone would
meet in use what it never saw. Each shape gets its share here, whatever the catalog.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar, get_args

import numpy as np

from gnncompose.catalog.operator import Operator
from gnncompose.composition.chains import graft, shortest_chains
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, Expression, Input, Node, Value, make_node
from gnncompose.errors import CompositionError

Shape = Literal["chain", "ensemble", "cascade", "router", "nest", "walk"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
WALK_STEPS = 12
NEST_DEPTH = 2
SHARED_BRANCH = 0.2
ATTEMPTS = 400
Choice = TypeVar("Choice")


class ShapedSampler:
    """Draws distinct compositions of a space, an equal number of each shape that its catalog can build."""

    def __init__(self, space: Space, generator: np.random.Generator) -> None:
        """Sort the catalog by what can stand where.

        Args:
            space: Whose compositions are drawn; all lie within its limits.
            generator: Source of all randomness.
        """
        self.space = space
        self.generator = generator
        catalog, source = space.catalog, Input(space.input_type)
        chains = shortest_chains(catalog, space.input_type)
        ends = [chains[model.name] for model in catalog.models if model.name in chains]
        self._source: Expression = source
        self._models = [chain for chain in ends if space.is_answer(chain.type)]
        # what leaves the type of the task's input as it is may stand before any chain, in any number
        self._transforms = [
            chain.operator
            for name, chain in chains.items()
            if catalog.operator(name).kind == "transform" and chain.type == source.type and chain.inputs == (source,)
        ]
        self._combiners = {
            kind: [o for o in catalog.of_kind(kind) if self._fits(o)] for kind in ("ensemble", "cascade", "router")
        }

    def sample(self, count: int, shapes: Sequence[Shape] = SHAPES) -> list[tuple[Shape, Composition]]:
        """Distinct compositions, the shapes taking turns; fewer where the space has no more of any shape.

        Args:
            count: How many.
            shapes: Which shapes; those that the catalog cannot build are left out.
        """
        drawn: dict[str, tuple[Shape, Composition]] = {}
        open_shapes: list[Shape] = [shape for shape in shapes if self._combiners.get(shape, self._models)]
        while len(drawn) < count and open_shapes:
            for shape in tuple(open_shapes):
                fresh = next((c for c in self._attempts(shape) if c.id not in drawn), None)
                if fresh is None:
                    open_shapes.remove(shape)
                elif len(drawn) < count:
                    drawn[fresh.id] = shape, fresh
        return list(drawn.values())

    def _attempts(self, shape: Shape) -> Iterator[Composition]:
        """Compositions of one shape within the limits, for as long as trying makes sense."""
        for _ in range(ATTEMPTS):
            try:
                composition = self._draw(shape)
            except CompositionError:  # branches that turned out equal, or a type that no branch can give
                continue
            if self.space.allows(composition):
                yield composition

    def _draw(self, shape: Shape) -> Composition:
        if shape == "walk":
            return self.space.random(self.generator, WALK_STEPS)
        if shape == "chain":
            root = self._chain(self._data(self.space.limits.depth - 1))
        elif shape == "nest":
            root = self._combination(self._any_kind(), NEST_DEPTH, [])
        else:
            root = self._combination(shape, 1, [])
        return Composition(root, self.space.catalog.sha256)

    def _any_kind(self) -> str:
        return self._pick([kind for kind, operators in self._combiners.items() if operators])

    def _combination(self, kind: str, depth: int, seen: list[Node]) -> Node:
        """A combiner of a kind over branches that are chains, or, from depth 2 on, combinations in part."""
        operator = self._pick(self._combiners[kind])
        if kind == "router":
            count = int(operator.outputs[0].type.axes[-1])
            ports: list[Expression] = [self._data(1)]
        else:
            count, ports = int(self.generator.integers(2, min(self.space.limits.branches, 4) + 1)), []
        shared = self._data(2)
        for number in range(count):
            if seen and self.generator.random() < SHARED_BRANCH:
                branch = self._pick(seen)
            elif depth > 1 and (number == 0 or self.generator.random() < 1 / 3):
                branch = self._combination(self._any_kind(), depth - 1, seen)
            else:
                branch = self._chain(shared if self.generator.random() < 0.5 else self._data(2))
            seen.append(branch)
            ports.append(branch)
        return make_node(operator, ports, self._values(operator, count))

    def _chain(self, data: Expression) -> Node:
        chain = graft(self._pick(self._models), data)
        assert isinstance(chain, Node)
        return chain

    def _data(self, longest: int) -> Expression:
        """The task's input after up to `longest` transforms."""
        data = self._source
        for _ in range(int(self.generator.integers(0, longest + 1)) if self._transforms else 0):
            operator = self._pick(self._transforms)
            data = make_node(operator, [data], self._values(operator, 1))
        return data

    def _values(self, operator: Operator, count: int) -> dict[str, Value]:
        """Parameters drawn from their grids."""
        drawn: dict[str, Value] = {}
        for name, parameter in operator.parameters.items():
            if name == "weights":
                drawn[name] = tuple(float(self._pick(parameter.values)) for _ in range(count))
            else:
                drawn[name] = float(self._pick(parameter.values))
        return drawn

    def _fits(self, operator: Operator) -> bool:
        """Whether the combiner joins what the models of the space give, within the limits."""
        branches = int(operator.outputs[0].type.axes[-1]) if operator.kind == "router" else 2
        chosen: list[Expression] = list(self._models[:branches])
        if operator.kind == "router":
            chosen.insert(0, self._source)
        try:
            return branches <= self.space.limits.branches and bool(make_node(operator, chosen))
        except CompositionError:
            return False

    def _pick(self, choices: Sequence[Choice]) -> Choice:
        return choices[int(self.generator.integers(len(choices)))]
