"""The flagship as the benchmarks pre-train it: its surrogate never saw the task at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from suite import HERE

if TYPE_CHECKING:
    from gnncompose.agents.gnn_ts import GNNThompson


def surrogate_without(task: str) -> str:
    """The file of the surrogate that was trained on the tables of all tasks but one."""
    return str(HERE / "surrogates" / f"without_{task}" / "surrogate.pt")


def flagship_without(task: str) -> GNNThompson:
    """A fresh agent with that surrogate."""
    from gnncompose.agents.gnn_ts import GNNThompson
    from gnncompose.policies.relational import Relational

    return GNNThompson(Relational(), surrogate_without(task))
