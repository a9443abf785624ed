"""Regions: which nodes of a composition run on which rows.

The root region holds every row. Each later stage of a cascade, and each branch of a router, opens a region
inside the one that the combiner runs in: only the rows that come that far are in it. A cascade of n stages
counts as right-nested cascades of two, so its third stage lies in a region inside that of its second. A node
runs once, in the lowest region that holds all its uses: on a subset of the rows iff every path from it to the
output passes a later stage or branch.

Operators that make rows of their own give values whose rows are not those of the task: the type's first axis tells
them apart. A region picks rows of one kind, its combiner's; a node that reads another kind from outside a region does
not run in it.
"""

from __future__ import annotations

from gnncompose.composition.tree import INPUT_ID, Composition, Node

Region = tuple[tuple[str, int], ...]
ROOT: Region = ()


def use_region(consumer: Region, node: Node, port: int) -> Region:
    """The region in which a node that runs in `consumer` uses the input at `port`."""
    if node.operator.kind == "cascade":
        return consumer + tuple((node.id, stage) for stage in range(1, port + 1))
    if node.operator.kind == "router" and port > 0:
        return (*consumer, (node.id, port))
    return consumer


def find_regions(composition: Composition) -> dict[str, Region]:
    """The region of every node, by id; the task's input lies in the root region."""
    axes = {INPUT_ID: composition.input.type.axes[0]} | {node.id: node.type.axes[0] for node in composition.nodes}
    outermost: dict[str, Region] = {}
    while True:
        regions = _lowest(composition, outermost)
        moved = _readers_of_other_rows(composition, regions, axes) if len(set(axes.values())) > 1 else {}
        if not moved:
            return regions
        outermost |= moved


def _lowest(composition: Composition, outermost: dict[str, Region]) -> dict[str, Region]:
    """The lowest region that holds all uses of each node, but for those that must lie further out."""
    regions: dict[str, Region] = {composition.id: ROOT}
    for node in reversed(composition.nodes):
        if node.id in outermost:
            regions[node.id] = _common(regions[node.id], outermost[node.id])
        for port, child in enumerate(node.inputs):
            use = use_region(regions[node.id], node, port)
            known = regions.get(child.id)
            regions[child.id] = use if known is None else _common(known, use)
    regions[INPUT_ID] = ROOT
    return regions


def _readers_of_other_rows(
    composition: Composition, regions: dict[str, Region], axes: dict[str, int | str]
) -> dict[str, Region]:
    """Nodes in a region that read from outside it what has other rows than the region picks, and how far out they go.

    The rows that a region picks are those of its combiner. Lines cannot be picked by the number of a page, nor pages
    by that of a line, so whoever reads both runs where both are whole.
    """
    moved: dict[str, Region] = {}
    for node in composition.nodes:
        for port, child in enumerate(node.inputs):
            use = use_region(regions[node.id], node, port)
            for depth in range(len(regions[child.id]), len(use)):
                if axes[use[depth][0]] != axes[child.id]:
                    moved[node.id] = _common(moved.get(node.id, use), use[:depth])
                    break
    return moved


def _common(one: Region, other: Region) -> Region:
    """The lowest region that holds both."""
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def gathered(composition: Composition, regions: dict[str, Region], region: Region) -> list[str]:
    """Ids of what is computed outside a region and used in it, in order of computation."""
    depth = len(region)
    used: set[str] = set()
    for node in composition.nodes:
        for port, child in enumerate(node.inputs):
            if use_region(regions[node.id], node, port)[:depth] == region:
                used.add(child.id)
    order = [INPUT_ID, *(node.id for node in composition.nodes)]
    return [key for key in order if key in used and regions[key][:depth] != region]
