"""Which share of the requests, and how many rows, reach each node of a composition that did not run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from gnncompose.composition.tree import Composition, Node
from gnncompose.evaluation.cost_model.features import has_branches
from gnncompose.evaluation.cost_model.latency import Usage
from gnncompose.evaluation.cost_model.replay import Escalation, Reach, Replay

GATES = ("cascade", "router")


def has_gates(composition: Composition) -> bool:
    """Whether anything of it runs on some rows only."""
    return any(node.operator.kind in GATES for node in composition.nodes)


def open_stages(composition: Composition, replay: Replay) -> Iterator[Node]:
    """Stages whose confidence decides what goes on, and whose outputs are not known."""
    for node in composition.nodes:
        if node.operator.kind == "cascade":
            for stage in node.inputs[:-1]:
                if isinstance(stage, Node) and replay.output(stage) is None:
                    yield stage


def branching_nodes(composition: Composition) -> Iterator[Node]:
    """Nodes whose time depends on what the data make of them."""
    return (node for node in composition.nodes if has_branches(node.operator))


def rows_taken(composition: Composition) -> list[float]:
    """How many rows each node takes for one of the task; more than 1 behind operators that make rows."""
    made: dict[int | str, float] = {}
    taken: list[float] = []
    for node in composition.nodes:
        taken.append(made.get(node.inputs[0].type.axes[0], 1.0))
        if node.operator.makes_rows:
            made[node.type.axes[0]] = taken[-1] * (node.operator.profile.rows_made or 1.0)
    return taken


def usage_of(
    composition: Composition,
    replay: Replay,
    requests: np.ndarray,
    threads: int,
    estimate: Escalation,
    told: Mapping[str, tuple[float, ...]],
) -> tuple[Usage, bool]:
    """How a composition would be used, and whether all of that is known.

    Args:
        composition: Which.
        replay: Knows which rows go where, as far as that ran.
        requests: int64[requests, batch]: rows of each request.
        threads: Threads of every session.
        estimate: See `Replay.reach`.
        told: See `Usage`.
    """
    batch, count = requests.shape[1], len(composition.nodes)
    taken = rows_taken(composition)
    if not has_gates(composition):
        return Usage(batch, threads, (1.0,) * count, tuple(batch * share for share in taken), told), True
    reached = replay.reach(composition, estimate)
    known: dict[int, tuple[float, float]] = {}
    runs: list[float] = []
    rows: list[float] = []
    for node, share in zip(composition.nodes, taken, strict=True):
        reach = reached[node.id]
        if id(reach) not in known:
            known[id(reach)] = _taken(reach, requests)
        part, mean = known[id(reach)]
        runs.append(part)
        rows.append(mean * share)
    return Usage(batch, threads, tuple(runs), tuple(rows), told), all(reach.exact for reach in reached.values())


def _taken(reach: Reach, requests: np.ndarray) -> tuple[float, float]:
    """Share of the requests that hold a row of these, and how many they hold on average."""
    counts = reach.rows[requests].sum(axis=1)
    if reach.factor >= 1.0:
        return float((counts > 0).mean()), float(counts.mean())
    return float((1.0 - (1.0 - reach.factor) ** counts).mean()), float(counts.mean()) * reach.factor
