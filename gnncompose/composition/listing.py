"""Lists the legal edits of a closed space.

A closed space holds everything that legal edits reach, so an edit is legal exactly where what it makes is a row of the
space; nothing has to be type-checked. What edits do below a combiner is listed once for each chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations

import numpy as np

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import Operator
from gnncompose.composition.chains import shortest_chains
from gnncompose.composition.edits import (
    KINDS,
    AddModel,
    AddTransform,
    Edit,
    Place,
    RemoveModel,
    RemoveTransform,
    Reorder,
    SetParameter,
    SwapModel,
)
from gnncompose.composition.enumeration import ClosedSpace
from gnncompose.composition.listing_kernel import (
    ALL_USES,
    GONE,
    WHOLE,
    Bases,
    Chains,
    Rows,
    list_edits,
)
from gnncompose.composition.tree import Expression, Input, Node, Parameters, Value
from gnncompose.errors import CompositionError

WEIGHTS = "weights"
LARGEST_CODE = 1 << 62
Step = tuple[str, Parameters]
Change = tuple[int, int, int, int]
Made = tuple[type[Edit], int, int, tuple[Step, ...] | None]  # kind, operator, setting, what comes out; None: nothing


class Listing:
    """Makes what the listing looks up, and lists.

    Attributes:
        space: Whose edits are listed.
        catalog: Whose operators.
        settings: Name and value of what edits set.
        stages: Stages that edits reorder.
    """

    def __init__(self, space: ClosedSpace, catalog: Catalog) -> None:
        """Number what there is.

        Args:
            space: A whole closed space.
            catalog: That it was enumerated from.

        Raises:
            CompositionError: The space has too many expressions for its rows to be numbered.
        """
        self.space, self.catalog = space, catalog
        self.ports = space.branches.shape[1]
        self._settings: dict[tuple[str, float], int] = {}
        self.stages = tuple(combinations(range(self.ports), 2))
        self._number = {operator.name: number for number, operator in enumerate(catalog.operators)}
        below = space.expressions
        routing = {number for numbers in below.routes.values() for number in numbers}
        self._sequences: dict[int, tuple[Step, ...]] = {0: ()}
        for number, node in enumerate(below.all):
            if isinstance(node, Node) and number not in routing:
                reads = self._sequences[int(below.parents[number])]
                self._sequences[number] = (*reads, (node.operator.name, node.parameters))
        self._by_sequence = {sequence: number for number, sequence in self._sequences.items()}
        self._chains = self._of_chains()
        self._bases, self._rows = self._of_combiners()
        self.settings = tuple(self._settings)

    def edits(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """List the edits of some rows.

        Args:
            rows: int64[some]: of the space.

        Returns:
            int64[some + 1]: where the edits of each row begin, and int32[edits, 6]: target, kind, port, source,
            operator and argument, as `Transitions` describes them.
        """
        cursor = np.zeros(len(rows), dtype=np.int64)
        list_edits(cursor, np.zeros((0, 6), dtype=np.int32), rows, self._rows, self._chains, self._bases)
        offsets = np.concatenate([[0], np.cumsum(cursor)])
        found = np.empty((int(offsets[-1]), 6), dtype=np.int32)
        list_edits(offsets[:-1].copy(), found, rows, self._rows, self._chains, self._bases)
        return offsets, found

    def edit(self, row: int, kind: int, port: int, source: int, operator: int, argument: int) -> Edit:
        """An edit of a row as an object; see `Transitions`."""
        place, made = self._place(row, port, source), KINDS[kind]
        if made is SetParameter:
            return SetParameter(place, *self.settings[argument])
        if made is Reorder:
            return Reorder(place, self.stages[argument] if argument >= 0 else None)
        if made is AddModel or made is SwapModel or made is AddTransform:
            return made(self.catalog.operators[operator].name, place)
        assert made is RemoveModel or made is RemoveTransform
        return made(place)

    def _place(self, row: int, port: int, source: int) -> Place:
        below, route = self.space.expressions, int(self.space.route[row])
        if port == WHOLE:
            return Place()
        if port == ALL_USES:
            return Place(output=below.all[source].id)
        tops = [int(below.parents[route])] * bool(route) + [int(chain) for chain in self.space.branches[row]]
        down = (0,) * (below.all[tops[port]].depth - below.all[source].depth)
        return Place(down if self.space.ways[self.space.way[row]] is None else (port, *down))

    def _of_chains(self) -> Chains:
        below = self.space.expressions
        depth = np.array([expression.depth for expression in below.all], dtype=np.int64)
        begin = np.zeros((len(below.all), int(depth.max()) + 2), dtype=np.int64)
        changes: list[Change] = []
        for number in range(len(below.all)):
            for level in range(begin.shape[1]):
                begin[number, level] = len(changes)
                if number in self._sequences and level <= depth[number]:
                    changes += self._changes(number, level)
        new_branch = np.full((len(below.all), len(self.catalog.models)), -1, dtype=np.int64)
        for number in self._sequences:
            for column, model in enumerate(self.catalog.models):
                new_branch[number, column] = self._grown(number, lambda source, m=model: self._chain(source, m))
        return Chains(
            depth=depth,
            parent=below.parents,
            rank=np.argsort(np.argsort(np.array([expression.id for expression in below.all]))),
            begin=begin,
            changes=np.array(changes, dtype=np.int64).reshape(-1, 4),
            models=np.array([self._number[model.name] for model in self.catalog.models], dtype=np.int64),
            new_branch=new_branch,
        )

    def _changes(self, number: int, level: int) -> list[Change]:
        """What edits make of a chain at so many levels below its top, in the order of `legal.candidate_edits`."""
        sequence = self._sequences[number]
        lower, upper = sequence[: len(sequence) - level], sequence[len(sequence) - level :]
        added: list[tuple[type[Edit], Operator]] = [(AddTransform, operator) for operator in self.catalog.transforms]
        added += [(AddModel, operator) for operator in self.catalog.models]
        made: list[Made] = [
            (kind, self._number[operator.name], -1, (*lower, _step(operator))) for kind, operator in added
        ]
        if lower:
            made += [*self._operator_changes(lower), *self._parameter_changes(lower)]
        found: list[Change] = []
        for kind, operator, argument, steps in made:
            result = GONE if steps is None else self._by_sequence.get((*steps, *upper), -1)
            if result == GONE or (result >= 0 and result != number):
                found.append((KINDS.index(kind), operator, argument, result))
        return found

    def _operator_changes(self, lower: tuple[Step, ...]) -> Iterator[Made]:
        """Edits that take away, move or swap the last of some operators."""
        below, (name, _) = lower[:-1], lower[-1]
        operator = self.catalog.operator(name)
        if operator.kind == "transform":
            yield RemoveTransform, -1, -1, below
            if below and self.catalog.operator(below[-1][0]).kind == "transform":
                yield Reorder, -1, -1, (*below[:-1], lower[-1], below[-1])
            return
        stood, reads = (self.space.expressions.all[self._by_sequence[steps]] for steps in (lower, below))
        yield RemoveModel, -1, -1, below if stood.type == reads.type else None
        for other in self.catalog.models:
            if other.name != name and other.signature == operator.signature:
                yield SwapModel, self._number[other.name], -1, (*below, _step(other))

    def _parameter_changes(self, lower: tuple[Step, ...]) -> Iterator[Made]:
        """Edits that set a parameter of the last of some operators."""
        name, parameters = lower[-1]
        for parameter, value in parameters:
            for new in self.catalog.operator(name).parameters[parameter].values:
                if new != value:
                    changed = tuple((n, new if n == parameter else v) for n, v in parameters)
                    yield SetParameter, -1, self._setting(parameter, new), (*lower[:-1], (name, changed))

    def _setting(self, name: str, value: float) -> int:
        return self._settings.setdefault((name, value), len(self._settings))

    def _grown(self, number: int, chain_from: Callable[[Expression], Expression | None]) -> int:
        """What the chain makes that begins at the nearest output, from this one down, where one does; −1 for none."""
        while True:
            chain = chain_from(self.space.expressions.all[number])
            if chain is not None:
                return self._by_sequence.get((*self._sequences[number], *_steps(chain)), -1)
            if not number:
                return -1
            number = int(self.space.expressions.parents[number])

    def _chain(self, source: Expression, model: Operator) -> Expression | None:
        return shortest_chains(self.catalog, source.type).get(model.name)

    def _data(self, source: Expression, router: Operator) -> Expression | None:
        """The shortest chain from a source to what a router reads."""
        chains = sorted(shortest_chains(self.catalog, source.type).values(), key=lambda chain: chain.depth)
        fitting = (c for c in (Input(source.type), *chains) if router.inputs[0].type.accepts(c.type, {}))
        return next(fitting, None)

    def _of_combiners(self) -> tuple[Bases, Rows]:
        combiners, space = self.catalog.combiners, self.space
        known: dict[Step | None, int] = {None: 0}
        for way in space.ways:
            if way is not None:
                known.setdefault(_base(way.operator, way.parameters), len(known))
        operators = [None if key is None else self.catalog.operator(key[0]) for key in known]
        grids = {key: _weight_grid(operator) for key, operator in zip(known, operators, strict=True)}
        radix = 1 + max(len(grid) for grid in grids.values())
        way_of = np.full((len(known), radix**self.ports), -1, dtype=np.int64)
        base, weights = np.zeros(len(space.ways), dtype=np.int64), np.zeros((len(space.ways), self.ports), np.int64)
        for number, way in enumerate(space.ways):
            key = None if way is None else _base(way.operator, way.parameters)
            base[number] = known[key]
            given = () if way is None else way.parameters.get(WEIGHTS, ())
            assert isinstance(given, tuple)
            weights[number, : len(given)] = [1 + grids[key].index(weight) for weight in given]
            at = base[number], _weights_number(weights[number], radix)
            way_of[at] = number if way_of[at] < 0 else way_of[at]
        settings, weight_settings = self._combiner_settings(known, grids)
        routers = {number: operator for number, operator in enumerate(combiners) if operator.kind == "router"}
        route = np.zeros((len(combiners), len(space.expressions.all)), dtype=np.int64)
        data = np.full_like(route, -1)
        for number, router in routers.items():
            for deciding in space.expressions.routes.get(router.name, ()):
                route[number, space.expressions.parents[deciding]] = deciding
            for source in self._sequences:
                data[number, source] = self._grown(source, lambda source, r=router: self._data(source, r))
        joining = self.catalog.first_ensemble
        bases = Bases(
            operator=np.array([-1 if o is None else self._number[o.name] for o in operators], dtype=np.int64),
            is_sorted=np.array([o is not None and o.is_sorted for o in operators]),
            is_cascade=np.array([o is not None and o.kind == "cascade" for o in operators]),
            router=np.array([next((n for n, r in routers.items() if r is o), -1) for o in operators], dtype=np.int64),
            weight=np.array([_default_weight(o) for o in operators], dtype=np.int64),
            way=way_of,
            settings=settings,
            weights=weight_settings,
            combiners=np.array([known.get(_base(o, _defaults(o)), -1) for o in combiners], dtype=np.int64),
            joined=-1 if joining is None else known.get(_base(joining, _defaults(joining)), -1),
            route=route,
            data=data,
            radix=radix,
        )
        return bases, self._numbered(bases, base[space.way], weights[space.way])

    def _combiner_settings(
        self, known: Mapping[Step | None, int], grids: Mapping[Step | None, list[float]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """`Bases.settings` and `Bases.weights`, in the order of `legal.candidate_edits`."""
        settings: list[tuple[int, int, int]] = []
        weights: list[tuple[int, int, int, int]] = []
        for key, number in known.items():
            if key is None:
                continue
            name, parameters = key
            values = dict(parameters)
            for parameter, described in sorted(self.catalog.operator(name).parameters.items()):
                if parameter == WEIGHTS:
                    settings.append((number, -1, -1))
                    for port in range(self.ports):
                        for new in described.values:
                            setting = self._setting(f"{WEIGHTS}.{port}", new)
                            weights.append((number, port, 1 + grids[key].index(new), setting))
                    continue
                for new in described.values:
                    base = known.get((name, tuple(sorted({**values, parameter: new}.items()))), -1)
                    if new != values[parameter] and base >= 0:
                        settings.append((number, base, self._setting(parameter, new)))
        return (
            np.array(settings, dtype=np.int64).reshape(-1, 3),
            np.array(weights, dtype=np.int64).reshape(-1, 4),
        )

    def _numbered(self, bases: Bases, base: np.ndarray, weights: np.ndarray) -> Rows:
        space, size = self.space, len(self.space.expressions.all)
        if len(space.ways) * size ** (self.ports + 1) > LARGEST_CODE:
            raise CompositionError(
                f"{size} expressions on {self.ports} branches are too many to number; tighten limits"
            )
        codes = bases.way[base, _weights_number(weights, bases.radix)] * size + space.route
        for port in range(self.ports):
            codes = codes * size + space.branches[:, port]
        order = np.argsort(codes)
        return Rows(base, weights, space.route, space.branches, codes[order], order, size)


def _weights_number(weights: np.ndarray, radix: int) -> np.ndarray:
    """int64[...]: weights int64[..., ports] as one number."""
    factors = np.array([radix**port for port in range(weights.shape[-1])], dtype=np.int64)
    return np.asarray(weights @ factors)


def _step(operator: Operator) -> Step:
    """An operator of a chain with its default parameters."""
    return operator.name, tuple((name, p.default) for name, p in sorted(operator.parameters.items()))


def _steps(chain: Expression) -> tuple[Step, ...]:
    if isinstance(chain, Input):
        return ()
    return (*_steps(chain.inputs[0]), (chain.operator.name, chain.parameters))


def _defaults(operator: Operator) -> dict[str, Value]:
    return {name: parameter.default for name, parameter in operator.parameters.items()}


def _base(operator: Operator, parameters: Mapping[str, Value]) -> Step:
    values = {**_defaults(operator), **parameters}
    return operator.name, tuple(sorted((name, value) for name, value in values.items() if name != WEIGHTS))


def _weight_grid(operator: Operator | None) -> list[float]:
    described = None if operator is None else operator.parameters.get(WEIGHTS)
    return [] if described is None else sorted({*described.values, described.default})


def _default_weight(operator: Operator | None) -> int:
    grid = _weight_grid(operator)
    return 1 + grid.index(operator.parameters[WEIGHTS].default) if operator is not None and grid else 0
