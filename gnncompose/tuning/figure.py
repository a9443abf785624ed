"""What a tuning came to, drawn: value against trial, and against each setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gnncompose.plotting import COLOURS, SETTINGS, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna.trial import FrozenTrial

    from gnncompose.tuning.space import Dial

COLUMNS = 3


def draw(trials: Sequence[FrozenTrial], space: Sequence[Dial], objective: str, path: Path) -> None:
    """Draw complete trials as filled marks, pruned ones, by what they had come to, as crosses."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    pruned = [trial for trial in trials if trial.state.name == "PRUNED" and trial.intermediate_values]
    columns = min(COLUMNS, 1 + len(space))
    lines = -(-(1 + len(space)) // columns)
    with rc_context(SETTINGS):
        figure = Figure(layout="constrained", figsize=(3.3 * columns + 0.5, 2.5 * lines))
        places = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
        _marks(places[0], complete, pruned, [t.number for t in complete], [t.number for t in pruned])
        best = np.maximum.accumulate(np.array([trial.value for trial in complete], dtype=float))
        places[0].step([t.number for t in complete], best, where="post", color="black", linewidth=1.2, label="best")
        places[0].set_xlabel("trial")
        for place, dial in zip(places[1:], space, strict=False):
            along = _along(dial)
            _marks(place, complete, pruned, *([along(t) for t in some] for some in (complete, pruned)))
            if dial.choices:
                place.set_xticks(range(len(dial.choices)), [str(choice) for choice in dial.choices])
            elif dial.log:
                place.set_xscale("log")
            place.set_xlabel(dial.name)
        for place in places[1 + len(space) :]:
            place.set_axis_off()
        for place in places[::columns]:
            place.set_ylabel(objective)
        handles, labels = places[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        save(figure, path)


def _along(dial: Dial) -> Callable[[FrozenTrial], float]:
    if dial.choices:
        return lambda trial: dial.choices.index(trial.params[dial.name])
    return lambda trial: trial.params[dial.name]


def _marks(
    place: Axes,
    complete: Sequence[FrozenTrial],
    pruned: Sequence[FrozenTrial],
    x: Sequence[float],
    x_pruned: Sequence[float],
) -> None:
    last = [trial.intermediate_values[max(trial.intermediate_values)] for trial in pruned]
    place.scatter(x_pruned, last, marker="x", color=COLOURS[1], s=16, linewidths=1, label="pruned")
    place.scatter(
        x, np.array([trial.value for trial in complete], dtype=float), color=COLOURS[0], s=14, label="complete"
    )
    place.grid(color="#e4e4e4", linewidth=0.6)
    place.set_axisbelow(True)
