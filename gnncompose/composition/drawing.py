"""Drawing a composition as SVG: layers from left to right, boxes coloured by the kind of the operator.

The layout is Sugiyama's: a layer for each depth, edges over several layers routed through invisible points,
crossings lessened by barycentres. Colours are Okabe and Ito's, which colour-blind readers tell apart.
"""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gnncompose.composition.tree import INPUT_ID, Composition, Node, Value

COLOURS = {
    "input": "#7a7a7a",
    "transform": "#56b4e9",
    "model": "#e69f00",
    "ensemble": "#009e73",
    "cascade": "#cc79a7",
    "router": "#d55e00",
}
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
CHARACTER = 7.4
LINE = 15.0
LAYER_GAP = 58.0
NODE_GAP = 20.0
MARGIN = 14.0
LEGEND = 30.0
SWEEPS = 6
LONGEST_LINE = 34


@dataclass(eq=False)
class _Box:
    """A node, or an invisible point (`lines` empty) that a long edge runs through.

    `x` is the left, `y` the middle, `span` where the layer begins and ends.
    """

    key: str
    layer: int
    kind: str = ""
    lines: list[str] = field(default_factory=list[str])
    is_ordered: bool = False
    before: list[_Box] = field(default_factory=lambda: list[_Box]())
    after: list[_Box] = field(default_factory=lambda: list[_Box]())
    x: float = 0.0
    y: float = 0.0
    span: tuple[float, float] = (0.0, 0.0)

    @property
    def width(self) -> float:
        return max((len(line) for line in self.lines), default=0) * CHARACTER + 30 if self.lines else 0.0

    @property
    def height(self) -> float:
        return len(self.lines) * LINE + 16 if self.lines else 8.0


def draw(composition: Composition, annotations: Mapping[str, str] | None = None, title: str | None = None) -> str:
    """Draw a composition.

    Args:
        composition: What to draw.
        annotations: A short text of a line or more for a node, by node id (or `input`), such as its latency.
        title: What a screen reader says of the drawing; by default the composition as one line.

    Returns:
        A self-contained `<svg>` element; all texts are escaped.
    """
    boxes = _boxes(composition, annotations or {})
    layers = _order(boxes)
    width, height = _place(layers)
    legend = _legend({box.kind for box in boxes.values() if box.kind})
    width = max(width, legend[1])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height + LEGEND:.0f}" '
        f'width="{width:.0f}" height="{height + LEGEND:.0f}" role="img" font-family="{html.escape(FONT)}">',
        f"<title>{_text(title or str(composition))}</title>",
        f'<rect width="{width:.0f}" height="{height + LEGEND:.0f}" fill="#ffffff"/>',
    ]
    for source, target, port in composition.edges():
        parts.append(_edge(boxes, source, target, port))
    root = boxes[composition.id]
    parts.append(_exit(root))
    parts += [_box(box) for box in boxes.values() if box.lines]
    parts += [_ports(node, boxes) for node in composition.nodes]
    parts.append(f'<g transform="translate(0 {height:.0f})">{legend[0]}</g></svg>')
    return "".join(parts)


def _text(text: str) -> str:
    """Escaped text without the control characters that XML does not allow."""
    return html.escape("".join(c if c >= " " and c not in "\x7f\ufffe\uffff" else " " for c in text))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_LINE else text[: LONGEST_LINE - 1] + "…"


def _number(value: Value) -> str:
    return ", ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}"


def _boxes(composition: Composition, annotations: Mapping[str, str]) -> dict[str, _Box]:
    """A box for the input and each node, and points where an edge passes a layer."""
    boxes = {INPUT_ID: _Box(INPUT_ID, 0, "input", ["input", _short(str(composition.input.type))])}
    for node in composition.nodes:
        kind = node.operator.kind
        detail = f"{kind} · {node.operator.family}" if node.operator.family else kind
        lines = [_short(node.operator.name), _short(detail)]
        lines += [_short(f"{name} = {_number(value)}") for name, value in node.parameters]
        boxes[node.id] = _Box(node.id, node.depth, kind, lines, _is_ordered(node))
    for key, note in annotations.items():
        if key in boxes:
            boxes[key].lines += [_short(line) for line in note.splitlines()]
    for source, target, _ in composition.edges():
        previous = boxes[source]
        for layer in range(previous.layer + 1, boxes[target].layer):
            # All long edges of one output share their points, so they run as one line until they part.
            point = boxes.setdefault(_point(source, layer), _Box(_point(source, layer), layer))
            if previous not in point.before:
                point.before.append(previous)
                previous.after.append(point)
            previous = point
        boxes[target].before.append(previous)
        previous.after.append(boxes[target])
    return boxes


def _is_ordered(node: Node) -> bool:
    """Whether the ports' order can be read off: stages, branches, ties, and the weights that go with ports."""
    return len(node.inputs) > 1 and (not node.operator.is_sorted or node.operator.builtin == "weighted_mean")


def _point(source: str, layer: int) -> str:
    return f"{source}@{layer}"


def _order(boxes: dict[str, _Box]) -> list[list[_Box]]:
    """Layers of boxes, ordered so that few edges cross."""
    grouped: defaultdict[int, list[_Box]] = defaultdict(list)
    for box in boxes.values():
        grouped[box.layer].append(box)
    layers = [grouped[layer] for layer in sorted(grouped)]
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        for index in range(len(layers)) if forward else reversed(range(len(layers))):
            beside = layers[index - 1] if forward else layers[(index + 1) % len(layers)]
            rank = {id(box): position for position, box in enumerate(beside)}
            layers[index].sort(key=_barycentre(rank, forward))
    return layers


def _barycentre(rank: dict[int, int], forward: bool) -> Callable[[_Box], float]:
    def key(box: _Box) -> float:
        near = [rank[id(n)] for n in (box.before if forward else box.after) if id(n) in rank]
        return sum(near) / len(near) if near else 0.0

    return key


def _place(layers: list[list[_Box]]) -> tuple[float, float]:
    """Set the positions of all boxes. Returns width and height of the whole."""
    x = MARGIN
    for layer in layers:
        width = max(box.width for box in layer)
        y = 0.0
        for box in layer:
            box.x = x + (width - box.width) / 2
            box.span = x, x + width
            box.y = y + box.height / 2
            y += box.height + NODE_GAP
        x += width + LAYER_GAP
    for sweep in range(2 * SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            _relax(layer, before=sweep % 2 == 0)
    boxes = [box for layer in layers for box in layer]
    top = min(box.y - box.height / 2 for box in boxes) - MARGIN
    for box in boxes:
        box.y -= top
    return x - LAYER_GAP + 26 + MARGIN, max(box.y + box.height / 2 for box in boxes) + MARGIN


def _relax(layer: list[_Box], *, before: bool) -> None:
    """Move the boxes of a layer towards their neighbours, order and gaps kept."""
    wishes: list[float] = []
    for box in layer:
        near = [n.y for n in (box.before if before else box.after)]
        wishes.append(sum(near) / len(near) if near else box.y)
    lowest = float("-inf")
    for box, wish in zip(layer, wishes, strict=True):
        box.y = max(wish, lowest + box.height / 2)
        lowest = box.y + box.height / 2 + NODE_GAP
    shift = sum(wish - box.y for box, wish in zip(layer, wishes, strict=True)) / len(layer)
    for box in layer:
        box.y += shift


def _port_y(box: _Box, port: int, comes_from: _Box | None = None) -> float:
    """Height of a port; where the order of ports means nothing, they stand in the order of what they read."""
    count = len(box.before) or 1
    if comes_from is not None and not box.is_ordered:
        port = sorted(box.before, key=lambda before: before.y).index(comes_from)
    return box.y + (port - (count - 1) / 2) * min(18.0, (box.height - 10) / count)


def _edge(boxes: dict[str, _Box], source: str, target: str, port: int) -> str:
    """A smooth line from a source through its points to a port."""
    start, end = boxes[source], boxes[target]
    x, y = start.x + start.width, start.y
    path = f"M{x:.1f} {y:.1f}"
    for layer in range(start.layer + 1, end.layer):
        point = boxes[_point(source, layer)]
        left, right = point.span
        path += _curve(x, y, left, point.y) + f"L{right:.1f} {point.y:.1f}"
        x, y = right, point.y
    last = boxes[_point(source, end.layer - 1)] if end.layer - 1 > start.layer else start
    port_y = _port_y(end, port, last)
    path += _curve(x, y, end.x - 7, port_y)
    return f'<path d="{path}" fill="none" stroke="#555" stroke-width="1.6"/>' + _arrow(end.x, port_y)


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    middle = (x + to_x) / 2
    return f"C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"


def _arrow(x: float, y: float) -> str:
    return f'<path d="M{x - 9:.1f} {y - 4:.1f}L{x:.1f} {y:.1f}L{x - 9:.1f} {y + 4:.1f}z" fill="#555"/>'


def _exit(root: _Box) -> str:
    """The arrow by which the answer leaves."""
    x, y = root.x + root.width, root.y
    return f'<path d="M{x:.1f} {y:.1f}h18" stroke="#555" stroke-width="1.6"/>' + _arrow(x + 26, y)


def _box(box: _Box) -> str:
    colour, top = COLOURS[box.kind], box.y - box.height / 2
    tall, wide = f"{box.height:.1f}", f"{box.width:.1f}"
    lines = "".join(
        f'<text x="{box.x + 16:.1f}" y="{top + 19 + index * LINE:.1f}" font-size="{13 if index == 0 else 11}" '
        f'fill="{"#111" if index == 0 else "#444"}"{" font-weight=" + chr(34) + "600" + chr(34) if index == 0 else ""}>'
        f"{_text(line)}</text>"
        for index, line in enumerate(box.lines)
    )
    return (
        f'<g><rect x="{box.x:.1f}" y="{top:.1f}" width="{wide}" height="{tall}" rx="6" fill="#fff"/>'
        f'<rect x="{box.x:.1f}" y="{top:.1f}" width="{wide}" height="{tall}" rx="6" fill="{colour}" '
        f'fill-opacity="0.14" stroke="{colour}" stroke-width="1.4"/>'
        f'<rect x="{box.x:.1f}" y="{top:.1f}" width="6" height="{tall}" rx="3" fill="{colour}"/>{lines}</g>'
    )


def _ports(node: Node, boxes: dict[str, _Box]) -> str:
    """Numbers on the ports of a node whose order has a meaning."""
    box = boxes[node.id]
    if not box.is_ordered:
        return ""
    return "".join(
        f'<circle cx="{box.x - 15:.1f}" cy="{_port_y(box, port):.1f}" r="7.5" fill="#fff" stroke="#555"/>'
        f'<text x="{box.x - 15:.1f}" y="{_port_y(box, port) + 3.6:.1f}" font-size="10" text-anchor="middle" '
        f'fill="#111">{port if node.operator.kind == "router" else port + 1}</text>'
        for port in range(len(node.inputs))
    )


def _legend(kinds: set[str]) -> tuple[str, float]:
    """The kinds that occur with their colours, and how wide that is."""
    x = MARGIN
    parts: list[str] = []
    for kind in (kind for kind in COLOURS if kind in kinds):
        parts.append(
            f'<rect x="{x:.0f}" y="6" width="12" height="12" rx="3" fill="{COLOURS[kind]}"/>'
            f'<text x="{x + 17:.0f}" y="16" font-size="11" fill="#444">{kind}</text>'
        )
        x += 34 + len(kind) * 6.6
    return "".join(parts), x + MARGIN
