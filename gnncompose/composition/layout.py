"""Where the nodes of compositions of a closed space stand: what graphs, features and edits of its rows come from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


class Layout(NamedTuple):
    """Where the nodes of some rows stand in their graphs: 0 is the input's, then come the others, the output's last.

    The chains of a row are laid side by side, each from its bottom up to its top; what a router decides by comes first,
    as the chain that it reads.

    Attributes:
        chains: int64[row, chain]: the expression that each ends in, 0 where there is none.
        entries: int64[row, chain · level]: expressions, 0 where a chain is shorter.
        first: Whether an entry stands for the first time in its row.
        node: int64[row, chain · level]: the node of each entry.
        combiner: int64[row]: node of the combiner, or of the top of a chain alone.
        output: int64[row]: node of the output.
    """

    chains: Int[np.ndarray, "row chain"]
    entries: Int[np.ndarray, "row entry"]
    first: Bool[np.ndarray, "row entry"]
    node: Int[np.ndarray, "row entry"]
    combiner: Int[np.ndarray, " row"]
    output: Int[np.ndarray, " row"]

    def at(self, rows: Int[np.ndarray, " row"]) -> Layout:
        """Some of the rows."""
        return Layout(*(part.take(rows, axis=0) for part in self))


def lay_out(
    chains: Int[np.ndarray, "row chain"], paths: Int[np.ndarray, "expression level"], joins: Bool[np.ndarray, " row"]
) -> Layout:
    """Number the nodes of each row in the order in which they run.

    Args:
        chains: The expression that each chain ends in, 0 where there is none.
        paths: Of each expression what it reads, from the task's input up to itself; 0 before that.
        joins: Whether a combiner joins the chains.
    """
    entries = paths[chains].reshape(len(chains), -1)
    first = entries > 0
    count = entries.shape[1]
    same = {(a, b): (entries[:, a] == entries[:, b]) & first[:, a] for b in range(count) for a in range(b)}
    for (_, later), found in same.items():
        first[:, later] &= ~found
    node = np.where(first, first.cumsum(axis=1), 0)
    for (earlier, later), found in same.items():
        node[:, later] = np.where(found & (node[:, later] == 0), node[:, earlier], node[:, later])
    total = first.sum(axis=1)
    top = node.reshape(len(chains), -1, paths.shape[1])[:, 1, -1]
    return Layout(chains, entries, first, node, np.where(joins, total + 1, top), total + joins + 1)
