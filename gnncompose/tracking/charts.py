"""Charts as plain SVG: best so far against evaluations, score against what it takes, and what becomes of a deployment.

Colours are Okabe and Ito's, which colour-blind readers tell apart; lines also differ by their dashes, marks by their
shapes, so that print needs no colour.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 480.0, 310.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 16.0, 34.0, 50.0
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
BLUE, ORANGE, GREEN, GREY, INK = "#0072b2", "#d55e00", "#009e73", "#8a8a8a", "#333333"
TICKS = 5
MOST_TOLD = 1500  # points that say what they are; of more, those that nobody looks for are one path
LEGEND_LINE, MARGIN = 18.0, 10.0


@dataclass(frozen=True)
class Mark:
    """A point with a shape and colour of its own.

    Attributes:
        x: Value on the horizontal axis.
        y: Value on the vertical axis.
        label: What the legend and the hover say.
        shape: `circle`, `square`, `triangle` or `diamond`; shapes differ so that print needs no colour.
        colour: Fill.
        told: What the hover says where it is not the label and the values.
        key: What points of the same thing in several charts share.
    """

    x: float
    y: float
    label: str
    shape: str = "circle"
    colour: str = GREY
    told: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Line:
    """Values one after the other.

    Attributes:
        label: What the legend says.
        values: One for each point in time, or for each evaluation.
        colour: Of its stroke.
        dash: Pattern of its stroke, as in `6 4`; none for a whole line.
    """

    label: str
    values: Sequence[float]
    colour: str
    dash: str = ""


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


def curves(lines: Sequence[Line], levels: Sequence[Mark], label: str, budget: int = 0) -> str:
    """Best so far as step lines over evaluations.

    Args:
        lines: The best reward after each evaluation.
        levels: Horizontal lines to compare with; only `y`, `label` and `colour` are read.
        label: Name of the vertical axis.
        budget: How far the horizontal axis goes at least.
    """
    longest = max(len(line.values) for line in lines)
    x = _linear([0, max(longest, budget, 2)], LEFT, WIDTH - RIGHT, whole=True)
    shown = [*(value for line in lines for value in line.values), *(level.y for level in levels)]
    y = _linear(shown, HEIGHT - BOTTOM, TOP)
    body = [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(level.y):.1f}" y2="{y(level.y):.1f}" stroke="{level.colour}" '
        f'stroke-width="1.5" stroke-dasharray="6 4"><title>{_text(level.label)}: {level.y:.4f}</title></line>'
        for level in levels
    ]
    body += [_steps([(x(i), y(v)) for i, v in enumerate(line.values, start=1)], line) for line in lines]
    keys = [_key(line) for line in lines] + [("6 4", level.colour, level.label) for level in levels]
    return _chart(x, y, "evaluations", label, "".join(body), keys)


def _steps(points: Sequence[tuple[float, float]], line: Line) -> str:
    """A line that stays where it is until it jumps; the hover says which it is."""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in points[1:])
    dash = f' stroke-dasharray="{line.dash}"' if line.dash else ""
    title = f"<title>{_text(line.label)}</title>"
    return f'<path d="{path}" fill="none" stroke="{line.colour}" stroke-width="2.2"{dash}>{title}</path>'


def _key(line: Line) -> tuple[str, str, str]:
    return line.dash or "line", line.colour, line.label


@dataclass(frozen=True)
class Front:
    """Points that no other beats, joined by a line.

    Attributes:
        marks: The points.
        label: What the legend says.
        colour: Of points and line.
        dash: Pattern of the line.
    """

    marks: Sequence[Mark]
    label: str = "Pareto front"
    colour: str = GREEN
    dash: str = ""


def scatter(points: Sequence[Mark], fronts: Sequence[Front], special: Sequence[Mark], labels: tuple[str, str]) -> str:
    """Points with their fronts; hovering a point shows what it is.

    Args:
        points: Those that are on no front.
        fronts: Each is joined by the best that is had for so much, from left to right.
        special: Points to tell apart, drawn last.
        labels: Names of the two axes; the horizontal one is logarithmic where all lies above 0.
    """
    every = [*points, *(mark for front in fronts for mark in front.marks), *special]
    scale = _logarithmic if all(p.x > 0 for p in every) else _linear
    x = scale([p.x for p in every], LEFT, WIDTH - RIGHT)
    y = _linear([p.y for p in every], HEIGHT - BOTTOM, TOP)
    if len(points) > MOST_TOLD:
        dots = "".join(f"M{x(p.x):.1f} {y(p.y):.1f}h0" for p in points)
        body = [f'<path d="{dots}" stroke="{GREY}" stroke-opacity="0.5" stroke-width="5" stroke-linecap="round"/>']
    else:
        body = [_mark(x(p.x), y(p.y), p, 3.4, 0.5) for p in points]
    for front in fronts:
        if front.marks:
            best = _best_for_so_much(front.marks)
            line = Line(front.label, (), front.colour, front.dash)
            body.append(_steps([(x(p.x), y(p.y)) for p in best] + [(WIDTH - RIGHT, y(best[-1].y))], line))
            body += [_mark(x(p.x), y(p.y), p, 4.2, 1.0) for p in front.marks]
    body += [_mark(x(p.x), y(p.y), p, 6.5, 1.0) for p in special]
    keys = [("circle", GREY, "evaluated")] if points else []
    keys += [_key(Line(front.label, (), front.colour, front.dash)) for front in fronts if front.marks]
    keys += [(mark.shape, mark.colour, mark.label) for mark in special]
    return _chart(x, y, labels[0], labels[1], "".join(body), keys)


def _best_for_so_much(marks: Sequence[Mark]) -> list[Mark]:
    """From left to right, the marks that lie higher than all to their left."""
    best: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.x, -mark.y)):
        if not best or mark.y > best[-1].y:
            best.append(mark)
    return best


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
    keys = [_key(line) for line in lines]
    keys += [("6 4", GREY, "change"), ("triangle", GREEN, "swap")]
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
    if low >= 0:  # nothing lies below
        low_end = max(low_end, 0.0)
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
    key = f' data-key="{_text(mark.key)}"' if mark.key is not None else ""
    told = _text(mark.told or f"{mark.label}: {mark.x:.4g}, {mark.y:.4g}")
    return (
        f'{shapes[mark.shape]} fill="{mark.colour}" fill-opacity="{opacity}"{ring}{key}>'
        f"<title>{told}</title></{shapes[mark.shape][1:].split(' ')[0]}>"
    )


def _chart(x: _Axis, y: _Axis, x_label: str, y_label: str, body: str, keys: Sequence[tuple[str, str, str]]) -> str:
    """Frame, grid, ticks, names of the axes and the legend around the body."""
    legend, rows = _legend(keys)
    shift = LEGEND_LINE * (rows - 1)
    parts = [
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT + shift:.0f}" role="img" '
        f'font-family="{_text(FONT)}"><title>{_text(y_label)} against {_text(x_label)}</title>'
        f'{legend}<g class="plot" transform="translate(0 {shift:.0f})">'
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
        "</g></svg>",
    ]
    return "".join(parts)


def _legend(keys: Sequence[tuple[str, str, str]]) -> tuple[str, int]:
    """What each shape, or line with its dashes, stands for; and over how many rows that goes."""
    x, row, parts = MARGIN, 0, list[str]()
    for shape, colour, label in keys:
        wide = 34 + len(label) * 6.0
        if x > MARGIN and x + wide > WIDTH:
            x, row = MARGIN, row + 1
        y = 14 + LEGEND_LINE * row
        if shape in ("circle", "square", "triangle", "diamond"):
            parts.append(_mark(x + 9, y, Mark(0, 0, label, shape, colour, told=label), 5, 1.0))
        else:
            dash = "" if shape == "line" else f' stroke-dasharray="{shape}"'
            parts.append(f'<path d="M{x:.0f} {y:.0f}h20" stroke="{colour}" stroke-width="2.2"{dash}/>')
        parts.append(f'<text x="{x + 24:.0f}" y="{y + 4:.0f}" font-size="11.5" fill="#111">{_text(label)}</text>')
        x += wide
    return "".join(parts), row + 1
