"""What figures by matplotlib share: lines with intervals, and files that are alike wherever they are made.

Colours are those that colour-blind readers tell apart (Okabe and Ito, Color Universal Design, 2008); markers and dashes
tell the lines apart in print.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00")
DASHES = ("-", "--", ":", "-.")
MARKERS = "osD^vP*X<>"
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and files stay small
    "svg.hashsalt": "gnncompose",  # the same figure gives the same file
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


@dataclass(frozen=True, eq=False)
class Band:
    """A line with its interval.

    Attributes:
        middle: float[point].
        low: float[point].
        high: float[point].
    """

    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def step_lines(place: Axes, bands: Mapping[str, Band], grid: np.ndarray, names: Sequence[str] = ()) -> None:
    """Draw lines that rise and fall in steps, each with its interval.

    Args:
        place: Where to draw.
        bands: Lines by what the legend calls them.
        grid: float[point]: where each point stands.
        names: All lines of a figure of several panels, so that each looks alike in all of them.
    """
    order = list(names or bands)
    for name, band in bands.items():
        number = order.index(name)
        colour = COLOURS[number % len(COLOURS)]
        place.fill_between(grid, band.low, band.high, step="post", color=colour, alpha=0.12, linewidth=0)
        place.step(
            grid,
            band.middle,
            where="post",
            color=colour,
            linestyle=DASHES[number // len(COLOURS) % len(DASHES)],
            linewidth=1.4,
            marker=MARKERS[number % len(MARKERS)],
            markevery=(number % 5, 9),  # not one above the other
            markersize=4,
            label=name,
        )


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": "gnncompose"})
