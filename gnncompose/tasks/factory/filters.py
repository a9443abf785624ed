"""Image transforms written as ONNX graphs, for images `float32[N,1,H,W]` with values in [0, 1]."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from gnncompose.catalog.operator import Parameter
from gnncompose.tasks.factory.artifact import Artifact, make_model

_SOURCE = "graph of ONNX operators, written for gnncompose"


def image_filters(height: int, width: int) -> dict[str, Artifact]:
    """All transforms for images of that size, by name."""
    made = [
        median(height, width),
        despeckle(height, width),
        gaussian(height, width),
        contrast_stretch(height, width),
        invert(height, width),
        rotate_180(height, width),
        gamma(height, width),
    ]
    return {artifact.name: artifact for artifact in made}


def median(height: int, width: int) -> Artifact:
    """The median of each pixel's 3x3 neighbourhood.

    Each column of three is sorted once and shared by three windows; the median of nine is then the
    median of (largest low, middle mid, smallest high). All nodes are element-wise, several times
    faster than a TopK over nine planes.
    """
    constants = _slice_constants(height, width)
    return _transform("median", "denoise", _median_nodes("image_out"), height, width, constants)


def despeckle(height: int, width: int) -> Artifact:
    """The median only where a pixel stands out from it by more than the parameter `threshold`.

    It spares thin strokes that a plain median wipes out, where the noise is stronger than the picture.
    """
    nodes = [
        *_median_nodes("middle"),
        helper.make_node("Sub", ["image", "middle"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("Greater", ["distance", "threshold"], ["stands_out"]),
        helper.make_node("Where", ["stands_out", "middle", "image"], ["image_out"]),
    ]
    grid = Parameter(default=0.3, low=0.05, high=0.95, values=(0.1, 0.2, 0.3, 0.5, 0.7))
    constants = _slice_constants(height, width)
    return _transform("despeckle", "denoise", nodes, height, width, constants, {"threshold": grid})


def _median_nodes(target: str) -> list[onnx.NodeProto]:
    nodes = [helper.make_node("Pad", ["image", "pads"], ["padded"], mode="edge")]
    for shift in range(3):
        nodes.append(_shift("padded", f"row{shift}", shift, "rows"))
    nodes += _sorted_three("row0", "row1", "row2", "column")
    for level in ("low", "mid", "high"):
        nodes += [_shift(f"column_{level}", f"{level}{shift}", shift, "columns") for shift in range(3)]
    nodes.append(helper.make_node("Max", ["low0", "low1", "low2"], ["lows"]))
    nodes.append(helper.make_node("Min", ["high0", "high1", "high2"], ["highs"]))
    nodes += _middle_of_three("mid0", "mid1", "mid2", "mids")
    nodes += _middle_of_three("lows", "mids", "highs", target)
    return nodes


def _slice_constants(height: int, width: int) -> dict[str, np.ndarray]:
    pads = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)}
    axes = {"rows_axis": np.array([2], np.int64), "columns_axis": np.array([3], np.int64)}
    starts = {f"start{s}": np.array([s], np.int64) for s in range(3)}
    ends = {
        f"{name}_end{s}": np.array([s + size], np.int64)
        for name, size in (("rows", height), ("columns", width))
        for s in range(3)
    }
    return {**pads, **axes, **starts, **ends}


def _shift(source: str, target: str, shift: int, axis: str) -> onnx.NodeProto:
    return helper.make_node("Slice", [source, f"start{shift}", f"{axis}_end{shift}", f"{axis}_axis"], [target])


def _sorted_three(a: str, b: str, c: str, target: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Min", [a, b, c], [f"{target}_low"]),
        helper.make_node("Max", [a, b, c], [f"{target}_high"]),
        *_middle_of_three(a, b, c, f"{target}_mid"),
    ]


def _middle_of_three(a: str, b: str, c: str, target: str) -> list[onnx.NodeProto]:
    """max(min(a, b), min(max(a, b), c)): exact, unlike sum - min - max."""
    return [
        helper.make_node("Min", [a, b], [f"{target}_ab_min"]),
        helper.make_node("Max", [a, b], [f"{target}_ab_max"]),
        helper.make_node("Min", [f"{target}_ab_max", c], [f"{target}_abc_min"]),
        helper.make_node("Max", [f"{target}_ab_min", f"{target}_abc_min"], [target]),
    ]


def gaussian(height: int, width: int) -> Artifact:
    """A 3x3 Gaussian blur."""
    line = np.array([0.25, 0.5, 0.25], np.float32)
    constants = {
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        "kernel": np.outer(line, line).reshape(1, 1, 3, 3),
    }
    nodes = [
        helper.make_node("Pad", ["image", "pads"], ["padded"], mode="edge"),
        helper.make_node("Conv", ["padded", "kernel"], ["image_out"], kernel_shape=[3, 3]),
    ]
    return _transform("gaussian", "denoise", nodes, height, width, constants)


def contrast_stretch(height: int, width: int) -> Artifact:
    """Each image's values stretched so that its darkest is 0 and its lightest is 1."""
    constants = {"axes": np.array([1, 2, 3], np.int64), "tiny": np.array(1e-6, np.float32)}
    nodes = [
        helper.make_node("ReduceMin", ["image", "axes"], ["low"]),
        helper.make_node("ReduceMax", ["image", "axes"], ["high"]),
        helper.make_node("Sub", ["high", "low"], ["span"]),
        helper.make_node("Max", ["span", "tiny"], ["safe_span"]),
        helper.make_node("Sub", ["image", "low"], ["lowered"]),
        helper.make_node("Div", ["lowered", "safe_span"], ["image_out"]),
    ]
    return _transform("stretch", "contrast", nodes, height, width, constants)


def invert(height: int, width: int) -> Artifact:
    """The negative."""
    constants = {"one": np.array(1, np.float32)}
    nodes = [helper.make_node("Sub", ["one", "image"], ["image_out"])]
    return _transform("invert", "contrast", nodes, height, width, constants)


def rotate_180(height: int, width: int) -> Artifact:
    """The image turned by half a turn."""
    constants = {
        "starts": np.array([-1, -1], np.int64),
        # The end is past the first element: a negative end would count from the back.
        "ends": np.array([-height - 1, -width - 1], np.int64),
        "axes": np.array([2, 3], np.int64),
        "steps": np.array([-1, -1], np.int64),
    }
    nodes = [helper.make_node("Slice", ["image", "starts", "ends", "axes", "steps"], ["image_out"])]
    return _transform("rotate_180", "geometry", nodes, height, width, constants)


def gamma(height: int, width: int) -> Artifact:
    """Values to the power of the parameter `gamma`: below 1 lightens, above 1 darkens."""
    constants = {"zero": np.array(0, np.float32), "one": np.array(1, np.float32)}
    nodes = [
        helper.make_node("Clip", ["image", "zero", "one"], ["clipped"]),
        helper.make_node("Pow", ["clipped", "gamma"], ["image_out"]),
    ]
    grid = Parameter(default=1.0, low=0.25, high=4.0, values=(0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0))
    return _transform("gamma", "contrast", nodes, height, width, constants, {"gamma": grid})


def _transform(
    name: str,
    family: str,
    nodes: list[onnx.NodeProto],
    height: int,
    width: int,
    constants: dict[str, np.ndarray],
    parameters: dict[str, Parameter] | None = None,
) -> Artifact:
    axes = ("N", 1, height, width)
    inputs = {"image": axes, **{parameter: () for parameter in parameters or {}}}
    model = make_model(name, nodes, inputs, {"image_out": axes}, constants)
    return Artifact(name, "transform", model, "image", family, _SOURCE, "MIT", parameters=parameters or {})
