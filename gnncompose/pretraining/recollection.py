"""What the episodes of a rehearsal know of its task, as a search would: some evaluations, and where they have been."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnncompose.encoding import Graphs
from gnncompose.packing import History
from gnncompose.policies.policy import averaged
from gnncompose.pretraining.lessons import walked
from gnncompose.pretraining.rehearsal import FAR_EDITS, Rehearsal

EARLIER = 256  # compositions of a rehearsal, some of which each episode knows beforehand


class Recollection:
    """Evaluations that each episode knows."""

    def __init__(self, rehearsal: Rehearsal, most: int, generator: np.random.Generator) -> None:
        """Draw how many, and which, each episode knows beforehand: some edits from the start.

        Args:
            rehearsal: Whose episodes.
            most: Evaluations that an episode knows, at most; leaves room for a rehearsal's own edits.
            generator: Source of all randomness.
        """
        self._rehearsal = rehearsal
        env, table = rehearsal.env, rehearsal.table
        episodes = len(env.rows)
        rows = walked(env.transitions, np.full(EARLIER, table.start), FAR_EDITS, generator)
        self._bags, self._figures = [_bags(*table.encode(rows))], [rehearsal.figures(rows)]
        self._count = generator.integers(max(most - env.horizon, 1), size=episodes)
        self._at = generator.integers(EARLIER, size=(episodes, most))
        self._evaluations = EARLIER
        self.add(*table.encode(env.rows.astype(np.int64)), np.ones(episodes, dtype=bool))

    def add(self, graphs: Graphs, which: Int[Tensor, " episode"], is_new: Bool[np.ndarray, " episode"]) -> None:
        """Take in where episodes stand.

        Args:
            graphs: Their rows, encoded.
            which: Of each episode its graph.
            is_new: Which of them came there by an edit, or begin there for the first time.
        """
        rows = self._rehearsal.env.rows.astype(np.int64)
        self._bags.append(_bags(graphs, which))
        self._figures.append(self._rehearsal.figures(rows))
        new = np.flatnonzero(is_new & (self._count < self._at.shape[1]))
        self._at[new, self._count[new]] = self._evaluations + new
        self._count[new] += 1
        self._evaluations += len(rows)

    def told(self) -> History:
        """What each episode knows by now."""
        there = np.arange(self._at.shape[1]) < self._count[:, None]
        at = torch.from_numpy(np.where(there, self._at, 0))
        return History(torch.cat(self._bags), torch.cat(self._figures), at, torch.from_numpy(there))


def _bags(graphs: Graphs, which: Int[Tensor, " row"]) -> Float[Tensor, "row node_dim"]:
    return averaged(graphs.x, graphs.graph, len(graphs.output)).index_select(0, which)
