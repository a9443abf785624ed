from xml.etree import ElementTree

import pytest
from synthetic import IMAGE, model, transform

from gnncompose.catalog.operator import Operator, PortType
from gnncompose.composition.drawing import draw
from gnncompose.composition.tree import Composition, Input, make_node

SVG = "{http://www.w3.org/2000/svg}"
X = Input(PortType.parse(IMAGE))


def cascade_of(*stages) -> Composition:
    operator = Operator(name="cascade", kind="cascade", builtin="confidence")
    return Composition(make_node(operator, stages))


@pytest.fixture
def composition() -> Composition:
    cleaned = make_node(transform("median"), [X])
    return cascade_of(make_node(model("small"), [cleaned]), make_node(model("large"), [X]))


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_draw__names_every_operator_and_parameter(composition: Composition) -> None:
    shown = texts(draw(composition))
    assert {"input", "median", "small", "large", "cascade", "threshold = 0.8"} <= set(shown)


def test_draw__shows_a_shared_node_once() -> None:
    shared = make_node(transform("median"), [X])
    composition = cascade_of(make_node(model("small"), [shared]), make_node(model("large"), [shared]))
    assert texts(draw(composition)).count("median") == 1


def test_draw__numbers_the_stages_of_a_cascade_from_top_to_bottom(composition: Composition) -> None:
    numbers = [e for e in ElementTree.fromstring(draw(composition)).iter(f"{SVG}text") if e.text in ("1", "2")]
    assert [e.text for e in sorted(numbers, key=lambda e: float(e.attrib["y"]))] == ["1", "2"]


def test_draw__escapes_texts(composition: Composition) -> None:
    hostile = "</text><script>alert('&')</script>\x00"
    svg = draw(composition, {composition.id: hostile}, title=hostile)
    assert "<script" not in svg
    root = ElementTree.fromstring(svg)  # well-formed in spite of it
    assert root.find(f"{SVG}title").text == hostile.replace("\x00", " ")


def test_draw__keeps_boxes_apart(composition: Composition) -> None:
    root = ElementTree.fromstring(draw(composition))
    boxes = [
        e.attrib for group in root.iter(f"{SVG}g") for e in list(group)[:1] if e.tag == f"{SVG}rect" and "x" in e.attrib
    ]
    spans = [tuple(float(b[k]) for k in ("x", "y", "width", "height")) for b in boxes if float(b["height"]) > 12]
    assert len(spans) == 5
    for i, (x, y, w, h) in enumerate(spans):
        for u, v, s, t in spans[i + 1 :]:
            assert x + w <= u or u + s <= x or y + h <= v or v + t <= y
