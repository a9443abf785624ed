"""Third-party OCR networks as operators: what their authors do in Python around them becomes part of the graph.

Each takes grey pictures float32[N,1,height,width] with values in [0, 1]; its own versions of opset and format stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# What the networks were trained with: the statistics of ImageNet, or values from -1 to 1.
IMAGENET = (np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32))
CENTRED = (np.full(3, 0.5, np.float32), np.full(3, 0.5, np.float32))
Axes = Sequence[int | str]
Statistics = tuple[np.ndarray, np.ndarray]


def detector(content: bytes, side: int, statistics: Statistics) -> onnx.ModelProto:
    """A network that gives the probability of each pixel to lie in the core of a line of text.

    Args:
        content: The network: float32[N,3,height,width] to float32[N,1,height,width].
        side: Height and width of the pages, a multiple of 32.
        statistics: Mean and deviation of each colour that it was trained with.
    """
    outer = _Wrapper(content, "image", ["N", 1, side, side])
    outer.normalise("image", outer.feed, statistics)
    outer.after("Identity", [outer.answer], "heatmap")
    return outer.model("heatmap", ["N", 1, side, side])


def recogniser(content: bytes, characters: Sequence[str], height: int, length: int, steps: int) -> onnx.ModelProto:
    """A network that reads a line, and the greedy decoding of its answer.

    It is that of CTC (Graves et al., ICML 2006): of each step the best class, but nothing where that is the blank or
    the same as in the step before.

    Args:
        content: The network: float32[N,3,height,length] to probabilities float32[N,steps,classes].
        characters: What each class stands for; the first one is the blank. Of several symbols, the first counts.
        height: Height of lines.
        length: Their length.
        steps: Steps that the network makes of that length.
    """
    outer = _Wrapper(content, "line", ["N", 1, height, length])
    outer.normalise("line", outer.feed, CENTRED)
    codes = np.array([0, *(ord(character[0]) for character in characters[1:])], np.float32)
    value, place = outer.best(outer.answer, axis=2)
    code = outer.after("Gather", [outer.constant("codes", codes), place])
    pads = outer.constant("pads", np.array([0, 1, 0, 0, 0, 0], np.int64))
    later = outer.after("Pad", [code, pads, outer.constant("never", np.array(-1, np.float32))])
    ends = (("first", 0), ("last", steps), ("axis", 1))
    bounds = [outer.constant(name, np.array([at], np.int64)) for name, at in ends]
    before = outer.after("Slice", [later, *bounds])
    nothing = outer.constant("nothing", np.array(0, np.float32))
    symbol = outer.after("Where", [outer.after("Equal", [code, before]), nothing, code])
    sure = outer.after("Where", [outer.after("Equal", [symbol, nothing]), nothing, value])
    outer.after("Concat", [symbol, sure], "text", axis=2)
    return outer.model("text", ["N", steps, 2])


def page_turner(
    content: bytes, side: int, turns: Sequence[int] = (0, 1, 2, 3), seen: int = 224, crop: float = 0.875
) -> onnx.ModelProto:
    """A network that tells how a page is turned, and the page turned back.

    Args:
        content: The network: float32[N,3,seen,seen] to probabilities float32[N,4].
        side: Height and width of the pages.
        turns: By class of the network, the quarter turns counter-clockwise that set a page upright.
        seen: Pixels that the network sees.
        crop: Part of the page's side that it sees, from its middle.
    """
    outer = _Wrapper(content, "image", ["N", 1, side, side])
    edge = round(side * (1 - crop) / 2)
    ends = (("from", [edge, edge]), ("to", [side - edge, side - edge]), ("sides", [2, 3]))
    middle = outer.before("Slice", ["image", *(outer.constant(name, np.array(at, np.int64)) for name, at in ends)])
    outer.normalise(outer.resized(middle, (seen, seen), (side - 2 * edge, side - 2 * edge)), outer.feed, IMAGENET)
    turned = [outer.turned("image", turn, (side, side)) for turn in range(4)]
    outer.pick([turned[turn] for turn in turns], (side, side), "image_out")
    return outer.model("image_out", ["N", 1, side, side])


def line_turner(content: bytes, height: int, length: int, seen: tuple[int, int]) -> onnx.ModelProto:
    """A network that tells whether a line is upside down, and the line turned back.

    Args:
        content: The network: float32[N,3,*seen] to probabilities float32[N,2], upright first.
        height: Height of lines.
        length: Their length.
        seen: Height and width that the network sees.
    """
    outer = _Wrapper(content, "line", ["N", 1, height, length])
    outer.normalise(outer.resized("line", seen, (height, length)), outer.feed, CENTRED)
    outer.pick(["line", outer.turned("line", 2, (height, length))], (height, length), "line_out")
    return outer.model("line_out", ["N", 1, height, length])


class _Wrapper:
    """A network in the middle of a graph in the making.

    Attributes:
        feed: Name of the tensor that the network reads.
        answer: Name of the tensor that it gives.
    """

    def __init__(self, content: bytes, name: str, axes: Axes) -> None:
        self._model = onnx.load_model_from_string(content)
        graph = self._model.graph
        known = {tensor.name for tensor in graph.initializer}
        (self.feed,) = (value.name for value in graph.input if value.name not in known)
        (self.answer,) = (value.name for value in graph.output)
        self._input = helper.make_tensor_value_info(name, TensorProto.FLOAT, list(axes))
        self._before: list[onnx.NodeProto] = []
        self._after: list[onnx.NodeProto] = []
        self._constants: dict[str, np.ndarray] = {}

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add a constant; returns its tensor's name."""
        self._constants[f"outer/{name}"] = value
        return f"outer/{name}"

    def before(
        self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: int | str | list[int]
    ) -> str:
        """Add a node ahead of the network; returns its output's name."""
        return self._add(self._before, kind, inputs, output, attributes)

    def after(
        self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: int | str | list[int]
    ) -> str:
        """Add a node behind the network; returns its output's name."""
        return self._add(self._after, kind, inputs, output, attributes)

    def _add(
        self,
        nodes: list[onnx.NodeProto],
        kind: str,
        inputs: Sequence[str],
        output: str | None,
        attributes: Mapping[str, int | str | list[int]],
    ) -> str:
        output = output or f"outer/{kind}{len(self._before) + len(self._after)}"
        node = helper.make_node(kind, list(inputs), [output], name=output)
        node.attribute.extend(helper.make_attribute(name, value) for name, value in sorted(attributes.items()))
        nodes.append(node)
        return output

    def normalise(self, source: str, target: str, statistics: Statistics) -> None:
        """Grey to three normalised channels."""
        mean, deviation = (value.reshape(1, 3, 1, 1) for value in statistics)
        centred = self.before("Sub", [source, self.constant("mean", mean)])
        self.before("Div", [centred, self.constant("deviation", deviation)], target)

    def resized(self, source: str, to: tuple[int, int], given: tuple[int, int]) -> str:
        """A picture of another height and width."""
        scales = np.array([1, 1, to[0] / given[0], to[1] / given[1]], np.float32)
        unused = self.constant("unused", np.zeros(0, np.float32))
        return self.before("Resize", [source, unused, self.constant("scales", scales)], mode="linear")

    def best(self, source: str, axis: int) -> tuple[str, str]:
        """Largest value along the last axis and its place, both with that axis kept."""
        names = ["outer/value", "outer/place"]
        inputs = [source, self.constant("one", np.array([1], np.int64))]
        self._after.append(helper.make_node("TopK", inputs, names, name=names[0], axis=axis))
        return names[0], names[1]

    def turned(self, source: str, turns: int, shape: tuple[int, int]) -> str:
        """A picture turned counter-clockwise by quarters; by odd ones, it has to be a square."""
        flips = {0: (), 1: (2,), 2: (2, 3), 3: (3,)}[turns]
        if turns % 2:
            source = self.after("Transpose", [source], perm=[0, 1, 3, 2])
        if not flips:
            return source
        ends = [-shape[axis - 2] - 1 for axis in flips]  # past the first element: -1 would be the last
        bounds = (("start", [-1] * len(flips)), ("end", ends), ("flips", list(flips)), ("step", [-1] * len(flips)))
        names = [self.constant(f"{name}{turns}", np.array(value, np.int64)) for name, value in bounds]
        return self.after("Slice", [source, *names])

    def pick(self, pictures: Sequence[str], shape: tuple[int, int], target: str) -> None:
        """Of each row, the picture of the network's best class."""
        count = len(pictures)
        _, place = self.best(self.answer, axis=1)
        classes = self.constant("classes", np.arange(count, dtype=np.int64).reshape(1, count))
        chosen = self.after("Cast", [self.after("Equal", [place, classes])], to=TensorProto.FLOAT)
        weights = self.after("Reshape", [chosen, self.constant("as_row", np.array([0, 1, count], np.int64))])
        flat = self.constant("as_rows", np.array([0, count, shape[0] * shape[1]], np.int64))
        stacked = self.after("Reshape", [self.after("Concat", list(pictures), axis=1), flat])
        picked = self.after("MatMul", [weights, stacked])  # by one 1 among zeros, so every value comes out as it is
        self.after("Reshape", [picked, self.constant("as_picture", np.array([0, 1, *shape], np.int64))], target)

    def model(self, output: str, axes: Axes) -> onnx.ModelProto:
        """The whole graph, without what does not matter to it."""
        inner = self._model.graph
        constants = [numpy_helper.from_array(value, name) for name, value in self._constants.items()]
        graph = helper.make_graph(
            [*self._before, *inner.node, *self._after],
            "ocr",
            [self._input],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, list(axes))],
            [*inner.initializer, *constants],
        )
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
        opsets = list(self._model.opset_import)
        made = helper.make_model(graph, opset_imports=opsets, ir_version=self._model.ir_version)
        onnx.checker.check_model(made)
        return made
