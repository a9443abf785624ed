"""Figures as SVG: regret curves with intervals, and critical-difference diagrams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gnncompose.plotting import SETTINGS, Band, save, step_lines
from gnncompose.stats import alike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
LINEAR_BELOW = 0.01


def regret_figure(panels: Mapping[str, Mapping[str, Band]], grid: np.ndarray, path: Path) -> None:
    """Normalised regret against evaluations, a panel for each case.

    Args:
        panels: Lines by agent, by title; each panel has the same agents.
        grid: int[point]: evaluations.
        path: Where the SVG goes.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    agents = list(next(iter(panels.values())))
    with rc_context(SETTINGS):
        figure = Figure(
            layout="constrained", figsize=(3.3 * columns + 0.5, 2.6 * lines + 0.3 * -(-len(agents) // 4) + 0.3)
        )
        grids = figure.subplots(lines, columns, squeeze=False, sharey=True)
        for place, (title, bands) in zip(grids.flat, panels.items(), strict=False):
            _curves(place, bands, grid)
            place.set_title(title, fontsize=9)
            place.set_xlabel("evaluations")
        for place in grids.flat[len(panels) :]:
            place.set_axis_off()
        for place in grids[:, 0]:
            place.set_ylabel("normalised regret")
        handles, labels = grids.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(agents)), frameon=False)
        save(figure, path)


def _curves(place: Axes, bands: Mapping[str, Band], grid: np.ndarray) -> None:
    step_lines(place, bands, grid)
    place.set_xscale("log")
    place.set_yscale("symlog", linthresh=LINEAR_BELOW)  # the optimum, 0, has its place
    place.set_ylim(0, 1.1)
    place.set_yticks([0, 0.01, 0.1, 1], ["0", "0.01", "0.1", "1"])
    place.minorticks_off()
    ticks = [tick for tick in (1, 3, 10, 30, 100, 300, 1000) if tick <= grid[-1]]
    place.set_xticks(ticks, [str(tick) for tick in ticks])
    place.grid(color="#e4e4e4", linewidth=0.6)
    place.set_axisbelow(True)


def rank_figure(
    ranks: Mapping[int, np.ndarray], agents: Sequence[str], difference: float, cases: int, path: Path
) -> None:
    """Critical-difference diagrams: mean ranks on a line, bars join what cannot be told apart.

    Source: Demšar, JMLR 2006, figure 1.

    Args:
        ranks: Mean ranks, float[agent], after so many evaluations.
        agents: Their names.
        difference: The critical difference.
        cases: How many cases were ranked.
        path: Where the SVG goes.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    half = -(-len(agents) // 2)
    with rc_context(SETTINGS):
        figure = Figure(layout="constrained", figsize=(6.4, len(ranks) * (0.24 * half + 1.15)))
        places = figure.subplots(len(ranks), 1, squeeze=False)[:, 0]
        for place, (mark, own) in zip(places, ranks.items(), strict=True):
            _diagram(place, own, agents, difference)
            place.set_title(f"after {mark} evaluations, {cases} cases", fontsize=9, loc="left")
        save(figure, path)


def _diagram(place: Axes, ranks: np.ndarray, agents: Sequence[str], difference: float) -> None:
    count, order = len(agents), np.argsort(ranks, kind="stable")
    groups, half = alike(ranks, difference), -(-len(agents) // 2)
    bottom = 1.0 + 0.45 * len(groups)
    place.plot([1, count], [0, 0], color="black", linewidth=1)
    for tick in range(1, count + 1):
        place.plot([tick, tick], [0, -0.18], color="black", linewidth=1)
        place.text(tick, -0.28, str(tick), ha="center", va="bottom")
    for position, agent in enumerate(order):
        left = position < half
        height = bottom + (position if left else count - 1 - position)
        end = 1 - 0.04 * count if left else count + 0.04 * count
        place.plot([ranks[agent], ranks[agent], end], [0, height, height], color="#555555", linewidth=0.8)
        place.text(end, height, f" {agents[agent]} ({ranks[agent]:.2f}) ", ha="right" if left else "left", va="center")
    for number, group in enumerate(groups):
        edges = [min(ranks[list(group)]) - 0.03, max(ranks[list(group)]) + 0.03]
        place.plot(edges, [0.45 * (number + 1)] * 2, color="black", linewidth=3, solid_capstyle="butt")
    place.plot([1, 1 + difference], [-1.5, -1.5], color="black", linewidth=1.4, marker="|")
    place.text(1 + difference, -1.5, f"  critical difference {difference:.2f}", va="center")
    room = 0.5 * count
    place.set_xlim(min(1 - room, 0), max(count + room, 1 + difference))
    place.set_ylim(bottom + half, -2.2)  # the best ranks' names above, the line on top
    place.set_axis_off()
