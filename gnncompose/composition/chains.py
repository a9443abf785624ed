"""Shortest typed chains of operators, and the outputs that a new branch may start from."""

from __future__ import annotations

from functools import lru_cache

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import Operator, PortType
from gnncompose.composition.tree import Expression, Input, Node, make_node
from gnncompose.errors import CompositionError

LONGEST_CHAIN = 8


@lru_cache(maxsize=4096)
def shortest_chains(catalog: Catalog, source: PortType) -> dict[str, Node]:
    """For each transform and model, the shortest expression over one input of type `source` that ends in it.

    Operators that nothing leads to are missing. Ties go by catalog order. The search is Knuth's
    generalisation of Dijkstra's algorithm to grammars (Inf. Proc. Letters 6, 1977), run in rounds.
    """
    best: dict[PortType, Expression] = {source: Input(source)}
    ends: dict[str, Node] = {}
    operators = catalog.of_kind("transform", "model")
    for _ in range(LONGEST_CHAIN):
        known, grown = dict(best), False
        for operator in operators:
            if operator.name in ends:
                continue
            node = _cheapest(operator, known)
            if node is not None:
                ends[operator.name] = node
                best.setdefault(node.type, node)
                grown = True
        if not grown:
            break
    return ends


def operator_alone(operator: Operator, catalog: Catalog, source: PortType) -> Node | None:
    """An operator with an artifact on the shortest chains that lead to it; None where nothing does.

    A router is fed by the first expression that fits it, and stands as a transform: it gives what it decides by.
    """
    chains = shortest_chains(catalog, source)
    if operator.kind != "router":
        return chains.get(operator.name)
    deciding = operator.model_copy(update={"kind": "transform"})
    for expression in (Input(source), *chains.values()):
        if operator.inputs[0].type.accepts(expression.type, {}):
            return make_node(deciding, [expression])
    return None


def _cheapest(operator: Operator, known: dict[PortType, Expression]) -> Node | None:
    """The operator on the cheapest known expressions that fit its ports."""
    inputs: list[Expression] = []
    sizes: dict[str, int | str] = {}
    for port in operator.inputs:
        fitting = [e for e in known.values() if port.type.accepts(e.type, dict(sizes))]
        if not fitting:
            return None
        chosen = min(fitting, key=lambda e: e.depth)
        port.type.accepts(chosen.type, sizes)
        inputs.append(chosen)
    try:
        return make_node(operator, inputs)
    except CompositionError:
        return None


def graft(chain: Expression, source: Expression) -> Expression:
    """The chain with its input replaced by `source`."""
    if isinstance(chain, Input):
        return source
    return make_node(chain.operator, [graft(child, source) for child in chain.inputs], dict(chain.parameters))


def sources(expression: Expression) -> list[Expression]:
    """The expression, and every output that all of it reads through, nearest first; the task's input is last."""
    if isinstance(expression, Input):
        return [expression]
    first, *others = [sources(child) for child in expression.inputs]
    shared = [{e.id for e in other} for other in others]
    return [expression, *(e for e in first if all(e.id in ids for ids in shared))]
