"""What is put around third-party OCR networks, on FAKE networks that give what a test wants."""

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gnncompose.catalog.text import read_text
from gnncompose.tasks.factory.ocr_models import IMAGENET, detector, line_turner, page_turner, recogniser

CHARACTERS = ["blank", "a", "b", "c"]


def fake(nodes: list, constants: dict[str, np.ndarray], rank: int, opset: int = 11) -> bytes:
    """A network from x float32[?,3,?,?] to y of a rank."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, "h", "w"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [f"d{axis}" for axis in range(rank)])
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "fake", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7).SerializeToString()


def session(model) -> ort.InferenceSession:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def first_channel() -> list:
    return [helper.make_node("Slice", ["x", "zero", "one", "one"], ["y"])]


INDEX = {"zero": np.array([0]), "one": np.array([1])}


@pytest.mark.parametrize("opset", [11, 14, 18])
def test_detector__normalises_grey_as_colours(opset: int) -> None:
    pages = np.random.default_rng(0).random((2, 1, 32, 32), dtype=np.float32)
    found = session(detector(fake(first_channel(), INDEX, 4, opset), 32, IMAGENET)).run(None, {"image": pages})[0]
    np.testing.assert_allclose(found, (pages - 0.485) / 0.229, rtol=1e-5)


def decoded(classes: list[int]) -> str:
    """Greedy decoding of CTC, step by step."""
    text, before = "", 0
    for one in classes:
        if one not in (0, before):
            text += CHARACTERS[one]
        before = one
    return text


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=3))
def test_recogniser__decodes_as_ctc_does(classes: list[list[int]]) -> None:
    """The fake reads the class of a step off the brightness of a column."""
    centres = np.arange(4, dtype=np.float32) * 0.25
    nodes = [
        helper.make_node("Slice", ["x", "zero", "one", "channel"], ["grey"]),
        helper.make_node("Slice", ["grey", "zero", "one", "rows"], ["row"]),
        helper.make_node("Reshape", ["row", "steps"], ["values"]),
        helper.make_node("Sub", ["values", "centres"], ["away"]),
        helper.make_node("Abs", ["away"], ["distance"]),
        helper.make_node("Neg", ["distance"], ["y"]),
    ]
    constants = {"channel": np.array([1]), "rows": np.array([2]), "steps": np.array([0, 6, 1])}
    content = fake(nodes, INDEX | constants | {"centres": (2 * centres - 1).reshape(1, 1, 4)}, 3)
    lines = np.repeat((np.array(classes, np.float32) * 0.25).reshape(-1, 1, 1, 6), 2, axis=2)
    text = session(recogniser(content, CHARACTERS, 2, 6, 6)).run(None, {"line": lines})[0]
    assert text.shape == (len(classes), 6, 2)
    assert read_text(text) == [decoded(row) for row in classes]
    assert (text[:, :, 1][text[:, :, 0] == 0] == 0).all()


@pytest.mark.parametrize("turned", range(4))
def test_page_turner__sets_a_page_upright(turned: int) -> None:
    """The fake tells by the brightest corner how the page is turned: class k, k quarters clockwise."""
    corners = np.zeros((4, 1, 32, 32), np.float32)
    for number, (y, x) in enumerate([(0, 0), (0, -1), (-1, -1), (-1, 0)]):
        corners[number, 0, y, x] = 1
    nodes = [
        helper.make_node("Slice", ["x", "zero", "one", "one"], ["grey"]),
        helper.make_node("Conv", ["grey", "corners"], ["scores"]),
        helper.make_node("Flatten", ["scores"], ["y"]),
    ]
    page = np.full((1, 1, 32, 32), 0.4, np.float32)
    page[0, 0, :3, :5] = 1
    model = page_turner(fake(nodes, INDEX | {"corners": corners}, 2), 32, turns=(0, 1, 2, 3), seen=32, crop=1.0)
    pages = np.concatenate([np.rot90(page, -turned, axes=(2, 3)), page])
    found = session(model).run(None, {"image": np.ascontiguousarray(pages)})[0]
    np.testing.assert_array_equal(found, np.concatenate([page, page]))


def test_line_turner__turns_lines_that_stand_upside_down() -> None:
    """The fake takes a line for upright where its upper half is the brighter."""
    halves = np.ones((2, 1, 4, 8), np.float32)
    halves[0, :, 2:] = halves[1, :, :2] = -1
    nodes = [
        helper.make_node("Slice", ["x", "zero", "one", "one"], ["grey"]),
        helper.make_node("Conv", ["grey", "halves"], ["scores"]),
        helper.make_node("Flatten", ["scores"], ["y"]),
    ]
    line = np.zeros((1, 1, 8, 32), np.float32)
    line[..., :4, :] = 1
    line[..., 0, 0] = 0.5
    lines = np.concatenate([line[:, :, ::-1, ::-1], line])
    model = line_turner(fake(nodes, INDEX | {"halves": halves}, 2), 8, 32, seen=(4, 8))
    found = session(model).run(None, {"line": np.ascontiguousarray(lines)})[0]
    np.testing.assert_array_equal(found, np.concatenate([line, line]))
