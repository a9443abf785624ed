"""All compositions of a space whose combiners do not nest, as integers: chains, and combiners over different chains.

A chain is a path of operators with one input port each, from the task's input to an answer. Where no operator takes
an answer in, and combiners read chains only, what legal edits reach is a chain or a combiner over two or more
different ones. So the space is written down without walking it, which would take a thousand times as long; a test
walks small ones, and `walk` any one, to hold that both are the same. A model that no other can be swapped for is the
exception: two branches that end in it may be out of reach, and then the space is walked after all.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations, product

import numpy as np

from gnncompose.catalog.operator import Operator, PortType
from gnncompose.composition.edits import Limits
from gnncompose.composition.layout import Layout, lay_out
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, Expression, Input, Node, Value, make_node
from gnncompose.errors import CompositionError

MOST_EXPRESSIONS = 1 << 15
JOINED_DOMAINS = ("probs", "values")


@dataclass(frozen=True)
class Way:
    """A combiner with its parameters, `weights` in the order of its ports."""

    operator: Operator
    parameters: dict[str, Value]


@dataclass(frozen=True, eq=False)
class Expressions:
    """Everything that compositions of a closed space consist of below their combiner.

    Attributes:
        all: The task's input, then every expression that a chain or a router reads, after its input, and every chain;
            last what routers decide by, each router standing as a transform on the data that it reads.
        parents: int64[expressions]: number of the expression that each one reads; 0 for the task's input.
        chains: Numbers of the chains.
        routes: Numbers of what routers decide by, by the name of the router.
    """

    all: tuple[Expression, ...]
    parents: np.ndarray
    chains: tuple[int, ...]
    routes: dict[str, tuple[int, ...]]

    @cached_property
    def paths(self) -> np.ndarray:
        """int64[expressions, levels]: each expression and what it reads, down to the task's input, which is 0."""
        found = [np.arange(len(self.parents))]
        while found[-1].any():
            found.append(self.parents[found[-1]])
        return np.stack(found[:-1], axis=1)

    @cached_property
    def nodes(self) -> tuple[int, ...]:
        """Of each expression the set of its operator nodes, a bit for each expression that ends in one."""
        found = [0]
        for number in range(1, len(self.all)):
            found.append(found[int(self.parents[number])] | 1 << number)
        return tuple(found)


@dataclass(frozen=True, eq=False)
class ClosedSpace:
    """A space as arrays; rows are compositions.

    Attributes:
        expressions: What stands below combiners; number 0, the task's input, means that there is none.
        ways: Combiners with parameters; the first is None: a chain alone.
        way: int64[rows]: number of the way.
        route: int64[rows]: number of what the router decides by; 0 without a router.
        branches: int64[rows, branches]: numbers of the chains in the order of the ports, 0 where there are fewer.
        catalog_sha256: Whose operators they are.
    """

    expressions: Expressions
    ways: tuple[Way | None, ...]
    way: np.ndarray
    route: np.ndarray
    branches: np.ndarray
    catalog_sha256: str

    def __len__(self) -> int:
        return len(self.way)

    @cached_property
    def joins(self) -> np.ndarray:
        """bool[ways]: whether each is a combiner."""
        return np.array([way is not None for way in self.ways])

    @cached_property
    def layout(self) -> Layout:
        """Where the nodes of every row stand."""
        below = self.expressions
        decides = np.where(self.route > 0, below.parents[self.route], 0)
        return lay_out(np.column_stack([decides, self.branches]), below.paths[:, ::-1], self.joins[self.way])

    def composition(self, row: int) -> Composition:
        """The composition of a row."""
        way, route, below = self.ways[int(self.way[row])], int(self.route[row]), self.expressions
        inputs = [below.all[int(number)] for number in self.branches[row] if number]
        if way is None:
            (root,) = inputs
            assert isinstance(root, Node)
            return Composition(root, self.catalog_sha256)
        if route:
            inputs.insert(0, below.all[int(below.parents[route])])
        return Composition(make_node(way.operator, inputs, way.parameters), self.catalog_sha256)


def enumerate_space(space: Space) -> ClosedSpace:
    """Exactly what edits reach: chains first, then by combiner, its parameters, and its branches.

    Args:
        space: With a `nesting` of 1 in its limits.

    Raises:
        CompositionError: The limits let combiners nest, or the catalog has operators that this does not provide for:
            with several input ports, or that take an answer in, or whose predictions only a further operator reads.
    """
    if space.limits.nesting != 1:
        raise CompositionError(f"limits ({space.limits}): only a nesting of 1 can be enumerated; set it")
    written = _written(space)
    alike = Counter(model.signature for model in space.catalog.models)
    if min(alike.values()) > 1:
        return written
    reached: set[str] = set()
    walk(space, lambda composition, _: reached.add(composition.id))
    rows = np.array([row for row in range(len(written)) if written.composition(row).id in reached])
    return replace(written, way=written.way[rows], route=written.route[rows], branches=written.branches[rows])


def _written(space: Space) -> ClosedSpace:
    """Every chain, and every combiner over different chains."""
    below = _expressions(space)
    ways: list[Way | None] = [None]
    rows: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, (chain,)) for chain in below.chains]
    if space.catalog.first_ensemble is not None:
        sets = _sets_of_chains(below, space.limits)
        for operator in space.catalog.combiners:
            for count in _counts(operator, space.limits):
                for parameters in _settings(operator, count):
                    ways.append(Way(operator, parameters))
                    rows += [(len(ways) - 1, *row) for row in _joined(operator, sets[count], below, space.limits)]
    branches = np.zeros((len(rows), max(len(row[2]) for row in rows)), dtype=np.int64)
    for number, (_, _, chains) in enumerate(rows):
        branches[number, : len(chains)] = chains
    return ClosedSpace(
        expressions=below,
        ways=tuple(ways),
        way=np.array([row[0] for row in rows], dtype=np.int64),
        route=np.array([row[1] for row in rows], dtype=np.int64),
        branches=branches,
        catalog_sha256=space.catalog.sha256,
    )


def walk(space: Space, visit: Callable[[Composition, list[Composition]], None]) -> int:
    """Walk a space edit by edit, breadth-first from its start.

    Args:
        space: Any.
        visit: Told of every composition and where its legal edits lead; what it raises ends the walk.

    Returns:
        How many compositions there are.
    """
    seen, queue = {space.start.id}, deque([space.start])
    while queue:
        composition = queue.popleft()
        successors = [successor for _, successor in space.successors(composition)]
        visit(composition, successors)
        for successor in successors:
            if successor.id not in seen:
                seen.add(successor.id)
                queue.append(successor)
    return len(seen)


def _expressions(space: Space) -> Expressions:
    """Chains and what they consist of, and what routers decide by."""
    end, limits = space.start.root.type, space.limits
    operators = space.catalog.of_kind("transform", "model")
    _check_form(operators, end)
    found: list[Expression] = [Input(space.input_type)]
    parents = [0]
    transforms = [0]
    for number, expression in _growing(found):
        if expression.type == end:
            continue
        for operator in operators:
            count = transforms[number] + (operator.kind == "transform")
            if not operator.inputs[0].type.accepts(expression.type, {}) or expression.depth >= limits.depth:
                continue
            if expression.depth >= limits.nodes or (limits.transforms is not None and count > limits.transforms):
                continue
            for parameters in _settings(operator, 1):
                found.append(make_node(operator, [expression], parameters))
                parents.append(number)
                transforms.append(count)
    return _kept(space, found, parents, end)


def _growing(found: list[Expression]) -> Iterator[tuple[int, Expression]]:
    """The members of a list that grows meanwhile."""
    number = 0
    while number < len(found):
        if len(found) > MOST_EXPRESSIONS:
            raise CompositionError(f"there are more than {MOST_EXPRESSIONS} chains of operators; tighten the limits")
        yield number, found[number]
        number += 1


def _kept(space: Space, found: list[Expression], parents: list[int], end: PortType) -> Expressions:
    """What leads to an answer or is read by a router, numbered anew; then what the routers decide by."""
    joins = space.catalog.first_ensemble is not None
    routers = [o for o in space.catalog.of_kind("router") if joins and _ways_out(o) <= space.limits.branches]
    needed = {0}
    for number, expression in enumerate(found):
        read = any(router.inputs[0].type.accepts(expression.type, {}) for router in routers)
        while number not in needed and (expression.type == end or read):
            needed.add(number)
            number = parents[number]
    new = {old: number for number, old in enumerate(sorted(needed))}
    kept = [found[old] for old in new]
    strange = [e for e in kept[1:] if e.type != end and e.type.domain in JOINED_DOMAINS]
    if strange:
        raise CompositionError(f"{strange[0]} gives predictions that are no answer; leave out what gives them")
    reads = [new[parents[old]] for old in new]
    chains = tuple(number for number, expression in enumerate(kept) if number and expression.type == end)
    routes: dict[str, tuple[int, ...]] = {}
    for router in routers:
        deciding, first = router.model_copy(update={"kind": "transform"}), len(kept)
        for number, expression in enumerate(kept[: len(new)]):
            if expression.depth < space.limits.depth and router.inputs[0].type.accepts(expression.type, {}):
                kept.append(make_node(deciding, [expression]))
                reads.append(number)
        routes[router.name] = tuple(range(first, len(kept)))
    return Expressions(tuple(kept), np.array(reads, dtype=np.int64), chains, routes)


def _check_form(operators: Sequence[Operator], end: PortType) -> None:
    for operator in operators:
        if len(operator.inputs) != 1:
            raise CompositionError(f'"{operator.name}" has {len(operator.inputs)} input ports; leave it out')
        if operator.inputs[0].type.accepts(end, {}):
            raise CompositionError(f'"{operator.name}" takes answers in ({end}); leave it out')


def _settings(operator: Operator, count: int) -> Iterator[dict[str, Value]]:
    """Every setting of an operator's parameters that edits reach; `weights` of so many branches."""
    names = sorted(operator.parameters)
    grids: list[list[Value]] = []
    for name in names:
        parameter = operator.parameters[name]
        values = sorted({*parameter.values, parameter.default})
        weights = [chosen for chosen in product(values, repeat=count) if sum(chosen) > 0]
        grids.append([*weights] if name == "weights" else [*values])
    for values in product(*grids):
        yield dict(zip(names, values, strict=True))


def _counts(operator: Operator, limits: Limits) -> range:
    """How many branches a combiner may have."""
    if operator.kind != "router":
        return range(2, limits.branches + 1)
    return range(_ways_out(operator), min(_ways_out(operator), limits.branches) + 1)


def _ways_out(router: Operator) -> int:
    """Branches of a router."""
    count = router.outputs[0].type.axes[-1]
    assert isinstance(count, int)
    return count


def _sets_of_chains(below: Expressions, limits: Limits) -> dict[int, list[tuple[int, ...]]]:
    """By size, the sets of chains that leave room for a combiner."""
    chains = [chain for chain in below.chains if below.all[chain].depth < limits.depth]
    sets: dict[int, list[tuple[tuple[int, ...], int]]] = {1: [((chain,), below.nodes[chain]) for chain in chains]}
    for size in range(2, limits.branches + 1):
        room = limits.nodes - 1
        sets[size] = [
            ((*members, chain), nodes | below.nodes[chain])
            for members, nodes in sets[size - 1]
            if nodes.bit_count() < room  # a further chain brings one node at least
            for chain in chains
            if chain > members[-1] and (nodes | below.nodes[chain]).bit_count() <= room
        ]
    return {size: [members for members, _ in found] for size, found in sets.items()}


def _joined(
    operator: Operator, sets: list[tuple[int, ...]], below: Expressions, limits: Limits
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Route and branches of every composition in which the combiner joins one of these sets."""
    routes = [(0, 0)]
    if operator.kind == "router":
        routes = [(route, below.nodes[int(below.parents[route])]) for route in below.routes[operator.name]]
    for members in sets:
        nodes = 0
        for chain in members:
            nodes |= below.nodes[chain]
        fitting = [route for route, data in routes if (nodes | data).bit_count() < limits.nodes]
        if operator.is_sorted:
            yield 0, tuple(sorted(members, key=lambda chain: below.all[chain].id))
            continue
        for ordered in permutations(members):
            yield from ((route, ordered) for route in fitting)
