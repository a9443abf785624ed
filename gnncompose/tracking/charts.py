"""Charts as plain SVG: best so far against evaluations, score against latency, and what becomes of a deployment."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 560.0, 330.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 16.0, 34.0, 50.0
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#8a8a8a"
TICKS = 5


@dataclass(frozen=True)
class Mark:
    """A point with a shape and colour of its own.

    Attributes:
        x: Value on the horizontal axis.
        y: Value on the vertical axis.
        label: What the legend and the hover say.
        shape: `circle`, `square`, `triangle` or `diamond`; shapes differ so that print needs no colour.
        colour: Fill.
    """

    x: float
    y: float
    label: str
    shape: str = "circle"
    colour: str = GREY


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        change: Callable[[float], float] = math.log10 if self.logarithmic else float
        share = (change(value) - change(self.low)) / (change(self.high) - change(self.low))
        return self.start + share * (self.end - self.start)


def curve(values: Sequence[float], levels: Sequence[Mark], label: str) -> str:
    """Best so far as a step line over evaluations.

    Args:
        values: Best reward after each evaluation.
        levels: Horizontal lines to compare with; only `y`, `label` and `colour` are read.
        label: Name of the vertical axis.
    """
    # A failed start may lie far below; the axis follows what was reached.
    shown = [*values, *(level.y for level in levels)]
    x = _linear([0, max(len(values), 2)], LEFT, WIDTH - RIGHT, whole=True)
    y = _linear(shown, HEIGHT - BOTTOM, TOP)
    points = [(x(1), y(values[0]))]
    for index, value in enumerate(values[1:], start=2):
        points += [(x(index), points[-1][1]), (x(index), y(value))]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    body = [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(level.y):.1f}" y2="{y(level.y):.1f}" stroke="{level.colour}" '
        f'stroke-width="1.5" stroke-dasharray="6 4"><title>{_text(level.label)}: {level.y:.4f}</title></line>'
        for level in levels
    ]
    body.append(f'<polyline points="{line}" fill="none" stroke="{BLUE}" stroke-width="2.4"/>')
    keys = [("line", BLUE, "best so far"), *(("dash", level.colour, level.label) for level in levels)]
    return _chart(x, y, "evaluations", label, "".join(body), keys)


def scatter(points: Sequence[Mark], front: Sequence[Mark], special: Sequence[Mark], labels: tuple[str, str]) -> str:
    """Points with their Pareto front; hovering a point shows its label.

    Args:
        points: All points.
        front: Those on the front, from left to right.
        special: Points to tell apart, drawn last.
        labels: Names of the two axes.
    """
    every = [*points, *special]
    x = _logarithmic([p.x for p in every], LEFT, WIDTH - RIGHT)
    y = _linear([p.y for p in every], HEIGHT - BOTTOM, TOP)
    body = []
    if front:
        path = f"M{x(front[0].x):.1f} {y(front[0].y):.1f}"
        for point in front[1:]:
            path += f"H{x(point.x):.1f}V{y(point.y):.1f}"
        path += f"H{WIDTH - RIGHT:.1f}"
        body.append(f'<path d="{path}" fill="none" stroke="{GREEN}" stroke-width="2"/>')
    body += [_mark(x(p.x), y(p.y), p, 3.4, 0.55) for p in points]
    body += [_mark(x(p.x), y(p.y), p, 6.5, 1.0) for p in special]
    keys = [("circle", GREY, "evaluated"), ("line", GREEN, "Pareto front")]
    keys += [(mark.shape, mark.colour, mark.label) for mark in special]
    return _chart(x, y, labels[0], labels[1], "".join(body), keys)


@dataclass(frozen=True)
class Line:
    """Values over time.

    Attributes:
        label: What the legend says.
        values: One for each point in time.
        colour: Of its stroke.
    """

    label: str
    values: Sequence[float]
    colour: str


def course(
    times: Sequence[float],
    lines: Sequence[Line],
    changes: Sequence[tuple[float, str]],
    swaps: Sequence[tuple[float, str]],
    labels: tuple[str, str],
) -> str:
    """Lines over time as a file of its own; hovering a change or a swap shows what it is.

    Args:
        times: Points in time.
        lines: Drawn one above the other.
        changes: When something changed, and what.
        swaps: When something else went live, and what.
        labels: Names of the two axes.
    """
    x = _linear([0, max(times)], LEFT, WIDTH - RIGHT, whole=True)
    y = _linear([0.0, *(value for line in lines for value in line.values)], HEIGHT - BOTTOM, TOP)
    body = [
        f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{GREY}" '
        f'stroke-width="1.5" stroke-dasharray="6 4"><title>{_text(what)}</title></line>'
        for at, what in changes
    ]
    for line in lines:
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in zip(times, line.values, strict=True))
        body.append(f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="2"/>')
    body += [_mark(x(at), y(0.0), Mark(at, 0.0, what, "triangle", GREEN), 5, 1.0) for at, what in swaps]
    keys = [("line", line.colour, line.label) for line in lines]
    keys += [("dash", GREY, "change"), ("triangle", GREEN, "swap")]
    svg = _chart(x, y, labels[0], labels[1], "".join(body), keys)
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def _text(text: str) -> str:
    return html.escape(text)


def _linear(values: Sequence[float], start: float, end: float, *, whole: bool = False) -> _Axis:
    low, high = min(values), max(values)
    span = high - low or max(abs(high), 1.0) * 0.1
    step = 10 ** math.floor(math.log10(span / TICKS))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= TICKS)
    if whole:
        step = max(round(step), 1)
        high_end = high
    else:
        high_end = math.ceil(high / step + 0.05) * step
    low_end = low if whole else math.floor(low / step - 0.05) * step
    count = round((high_end - low_end) / step + 1e-9) if not whole else int((high_end - low_end) // step)
    ticks = tuple(round(low_end + i * step, 10) for i in range(count + 1))
    return _Axis(low_end, high_end, start, end, ticks)


def _logarithmic(values: Sequence[float], start: float, end: float) -> _Axis:
    """A logarithmic axis with ticks at 1, 2 and 5; latencies span orders of magnitude."""
    low, high = max(min(values), 1e-9), max(*values, 1e-9)
    low, high = low / 1.15, high * 1.15
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    if len(inside) > 7:
        inside = [tick for tick in inside if math.isclose(tick, 10.0 ** round(math.log10(tick)))]
    return _Axis(low, high, start, end, tuple(inside), logarithmic=True)


def _mark(x: float, y: float, mark: Mark, size: float, opacity: float) -> str:
    tall = 1.3 * size
    shapes = {
        "circle": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}"',
        "square": f'<rect x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size}" height="{2 * size}"',
        "triangle": f'<path d="M{x - size:.1f} {y + size:.1f}h{2 * size}L{x:.1f} {y - size:.1f}z"',
        "diamond": f'<path d="M{x:.1f} {y - tall:.1f}l{size} {tall}l{-size} {tall}l{-size} {-tall}z"',
    }
    ring = ' stroke="#fff" stroke-width="1.2"' if opacity == 1.0 else ""
    return (
        f'{shapes[mark.shape]} fill="{mark.colour}" fill-opacity="{opacity}"{ring}>'
        f"<title>{_text(mark.label)}: {mark.x:.4g}, {mark.y:.4g}</title></{shapes[mark.shape][1:].split(' ')[0]}>"
    )


def _chart(x: _Axis, y: _Axis, x_label: str, y_label: str, body: str, keys: Sequence[tuple[str, str, str]]) -> str:
    """Frame, grid, ticks, names of the axes and the legend around the body."""
    parts = [
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" '
        f'font-family="{_text(FONT)}"><title>{_text(y_label)} against {_text(x_label)}</title>'
    ]
    for tick in x.ticks:
        parts.append(
            f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#eee"/>'
            f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 17}" font-size="11.5" text-anchor="middle" '
            f'fill="#444">{tick:g}</text>'
        )
    for tick in y.ticks:
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#eee"/>'
            f'<text x="{LEFT - 7}" y="{y(tick) + 4:.1f}" font-size="11.5" text-anchor="end" fill="#444">{tick:g}</text>'
        )
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    parts += [
        body,
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="#444"/>',
        f'<text x="{middle_x}" y="{HEIGHT - 10}" font-size="12.5" text-anchor="middle" fill="#111">'
        f"{_text(x_label)}</text>",
        f'<text transform="translate(15 {middle_y}) rotate(-90)" font-size="12.5" text-anchor="middle" fill="#111">'
        f"{_text(y_label)}</text>",
        _legend(keys),
        "</svg>",
    ]
    return "".join(parts)


def _legend(keys: Sequence[tuple[str, str, str]]) -> str:
    x, parts = LEFT, []
    for shape, colour, label in keys:
        if shape in ("line", "dash"):
            dash = ' stroke-dasharray="5 3"' if shape == "dash" else ""
            parts.append(
                f'<line x1="{x:.0f}" x2="{x + 18:.0f}" y1="14" y2="14" stroke="{colour}" stroke-width="2"{dash}/>'
            )
        else:
            parts.append(_mark(x + 9, 14, Mark(0, 0, label, shape, colour), 5, 1.0))
        parts.append(f'<text x="{x + 23:.0f}" y="18" font-size="11.5" fill="#111">{_text(label)}</text>')
        x += 36 + len(label) * 6.3
    return "".join(parts)
