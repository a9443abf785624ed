"""Transforms of time series written as ONNX graphs, for series `float32[N,C,T]` in units of standard deviations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper
from scipy.signal import savgol_coeffs

from gnncompose.catalog.operator import Parameter
from gnncompose.tasks.factory.artifact import Artifact, make_model

_SOURCE = "graph of ONNX operators, written for gnncompose"
_TIME = 2  # the axis
_FAR = 1e9  # a distance that no series reaches, and whose products stay exact enough in float32
_FLATTEST = 1e-3  # what a channel is divided by at least


def series_filters(channels: int, length: int, missing: float, longest_gap: int) -> list[Artifact]:
    """All transforms series -> series for that shape, in catalog order.

    Windows grow with the series: a tenth of a day and a tenth of a second hold different numbers of points.

    Args:
        channels: Channels of a series.
        length: Points of a series.
        missing: What stands for a missing point.
        longest_gap: The longest run of missing points that is to be filled.
    """
    narrow = 3 if length < 60 else 5
    wide = 5 + 2 * min(13, length // 60)
    return [
        median(channels, length, narrow),
        despike(channels, length, narrow),
        clip(channels, length),
        savitzky_golay(channels, length, wide),
        moving_average(channels, length, wide),
        polynomial_detrend("detrend", channels, length, degree=1),
        polynomial_detrend("baseline", channels, length, degree=5),
        normalise(channels, length),
        fill(channels, length, missing, longest_gap),
    ]


def median(channels: int, length: int, width: int) -> Artifact:
    """The running median; ends are held, as in `scipy.ndimage.median_filter(mode="nearest")`."""
    nodes, constants = _median("series_out", length, width)
    return _transform("median", "denoise", nodes, channels, length, constants)


def despike(channels: int, length: int, width: int) -> Artifact:
    """The running median only where a point stands out from it (the idea of Hampel's filter: JASA 69, 1974).

    A point stands out by more than `threshold` standard deviations of its channel: that spares the fine
    structure which a plain median wipes out.
    """
    nodes, constants = _median("middle", length, width)
    nodes += [
        *_standard_deviation("series"),
        helper.make_node("Mul", ["deviation", "threshold"], ["allowed"]),
        helper.make_node("Sub", ["series", "middle"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("Greater", ["distance", "allowed"], ["stands_out"]),
        helper.make_node("Where", ["stands_out", "middle", "series"], ["series_out"]),
    ]
    grid = Parameter(default=1.0, low=0.25, high=4.0, values=(0.5, 1.0, 1.5, 2.0, 3.0))
    constants |= _STATISTICS
    return _transform("despike", "denoise", nodes, channels, length, constants, {"threshold": grid})


def _median(target: str, length: int, width: int) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Median of `width` (odd) neighbours, by dropping the largest and the smallest of a few until one is left.

    Half the neighbours and two more hold neither the median as largest nor as smallest ("forgetful selection"):
    all nodes are element-wise, several times faster than a TopK over windows.
    """
    half = width // 2
    nodes = [helper.make_node("Pad", ["series", "pads"], ["padded"], mode="edge")]
    constants = {"pads": np.array([0, 0, half, 0, 0, half], np.int64), "time": np.array([_TIME], np.int64)}
    for shift in range(width):
        constants |= {f"start{shift}": np.array([shift]), f"end{shift}": np.array([shift + length])}
        nodes.append(helper.make_node("Slice", ["padded", f"start{shift}", f"end{shift}", "time"], [f"point{shift}"]))
    waiting = [f"point{shift}" for shift in range(width)]
    kept, waiting = waiting[: half + 2], waiting[half + 2 :]
    while len(kept) > 1:
        kept = _without_extremes(kept, nodes) + waiting[:1]
        waiting = waiting[1:]
    nodes[-1].output[0] = target
    return nodes, constants


def _without_extremes(names: Sequence[str], nodes: list[onnx.NodeProto]) -> list[str]:
    """Names of values that are the given ones without their smallest and their largest, position by position."""
    kept = list(names)
    for outer, inner in (("Min", "Max"), ("Max", "Min")):
        extreme, rest = kept[0], []
        for name in kept[1:]:
            rest.append(f"v{len(nodes)}")
            nodes.append(helper.make_node(inner, [extreme, name], [rest[-1]]))
            if name != kept[-1]:
                nodes.append(helper.make_node(outer, [extreme, name], [f"v{len(nodes)}"]))
                extreme = nodes[-1].output[0]
        kept = rest
    return kept


def clip(channels: int, length: int) -> Artifact:
    """Values no further from zero than the parameter `limit`: a cheap, partial cure of spikes."""
    nodes = [
        helper.make_node("Neg", ["limit"], ["floor"]),
        helper.make_node("Clip", ["series", "floor", "limit"], ["series_out"]),
    ]
    grid = Parameter(default=3.0, low=0.5, high=10.0, values=(1.0, 2.0, 3.0, 5.0))
    return _transform("clip", "denoise", nodes, channels, length, {}, {"limit": grid})


def savitzky_golay(channels: int, length: int, width: int) -> Artifact:
    """The middle of a parabola fitted to each window (Savitzky and Golay, Anal. Chem. 36, 1964); ends are held."""
    line = savgol_coeffs(width, 2)
    return _convolution("savitzky_golay", channels, length, line)


def moving_average(channels: int, length: int, width: int) -> Artifact:
    """The mean of each window; ends are held."""
    return _convolution("smooth", channels, length, np.full(width, 1 / width))


def _convolution(name: str, channels: int, length: int, line: np.ndarray) -> Artifact:
    """Each channel by itself convolved with a symmetric line of weights."""
    half = len(line) // 2
    constants = {
        "pads": np.array([0, 0, half, 0, 0, half], np.int64),
        "kernel": np.tile(line.astype(np.float32), (channels, 1, 1)),
    }
    nodes = [
        helper.make_node("Pad", ["series", "pads"], ["padded"], mode="edge"),
        helper.make_node("Conv", ["padded", "kernel"], ["series_out"], kernel_shape=[len(line)], group=channels),
    ]
    return _transform(name, "denoise", nodes, channels, length, constants)


def polynomial_detrend(name: str, channels: int, length: int, degree: int) -> Artifact:
    """The series less its least-squares polynomial: a product with an orthonormal basis and back."""
    powers = np.polynomial.legendre.legvander(np.linspace(-1, 1, length), degree)
    basis = np.linalg.qr(powers)[0].astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["series", "basis"], ["coefficients"]),
        helper.make_node("MatMul", ["coefficients", "basis_transposed"], ["trend"]),
        helper.make_node("Sub", ["series", "trend"], ["series_out"]),
    ]
    constants = {"basis": basis, "basis_transposed": basis.T}
    return _transform(name, "baseline", nodes, channels, length, constants)


_STATISTICS = {"time": np.array([_TIME], np.int64)}


def _standard_deviation(source: str) -> list[onnx.NodeProto]:
    """Nodes that give `centred` and `deviation` of each channel; they need the constants `_STATISTICS`."""
    return [
        helper.make_node("ReduceMean", [source, "time"], ["mean"], keepdims=1),
        helper.make_node("Sub", [source, "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "time"], ["variance"], keepdims=1),
        helper.make_node("Sqrt", ["variance"], ["deviation"]),
    ]


def normalise(channels: int, length: int) -> Artifact:
    """Each channel of each row with mean 0 and standard deviation 1; a flat one becomes 0."""
    nodes = [
        *_standard_deviation("series"),
        helper.make_node("Max", ["deviation", "flattest"], ["divisor"]),
        helper.make_node("Div", ["centred", "divisor"], ["series_out"]),
    ]
    constants = {**_STATISTICS, "flattest": np.array(_FLATTEST, np.float32)}
    return _transform("normalise", "scale", nodes, channels, length, constants)


def fill(channels: int, length: int, missing: float, longest_gap: int) -> Artifact:
    """Missing points by linear interpolation; at the ends the nearest value is held, as in `numpy.interp`.

    Values are passed on from both sides over 1, 2, 4, … points, each with the distance it came from.

    Args:
        channels: Channels of a series.
        length: Points of a series.
        missing: What stands for a missing point; all below half of it counts.
        longest_gap: The longest run that is filled; in a longer one, what is too far off becomes 0.
    """
    constants = {
        "limit": np.array(missing / 2, np.float32),
        "zero": np.array(0, np.float32),
        "one": np.array(1, np.float32),
        "far": np.array(_FAR, np.float32),
    }
    nodes = [
        helper.make_node("Greater", ["series", "limit"], ["known"]),
        helper.make_node("Where", ["known", "series", "zero"], ["value"]),
        helper.make_node("Where", ["known", "zero", "far"], ["distance"]),
    ]
    for side, sign in (("left", 1), ("right", -1)):
        value, distance = "value", "distance"
        for step in (1 << bit for bit in range(longest_gap.bit_length())):
            made, pads, size = f"{side}{step}", f"{side}_pads{step}", f"size{step}"
            ends = (step, -step) if sign > 0 else (-step, step)
            constants |= {pads: np.array([0, 0, ends[0], 0, 0, ends[1]], np.int64), size: np.array(step, np.float32)}
            nodes += [
                helper.make_node("Pad", [value, pads, "zero"], [f"{made}_value"]),
                helper.make_node("Pad", [distance, pads, "far"], [f"{made}_from"]),
                helper.make_node("Add", [f"{made}_from", size], [f"{made}_distance"]),
                helper.make_node("Less", [f"{made}_distance", distance], [f"{made}_nearer"]),
                helper.make_node("Where", [f"{made}_nearer", f"{made}_value", value], [f"{made}_best"]),
                helper.make_node("Min", [f"{made}_distance", distance], [f"{made}_shortest"]),
            ]
            value, distance = f"{made}_best", f"{made}_shortest"
        nodes += [
            helper.make_node("Identity", [value], [f"{side}_value"]),
            helper.make_node("Identity", [distance], [f"{side}_distance"]),
        ]
    nodes += [
        helper.make_node("Mul", ["left_value", "right_distance"], ["left_share"]),
        helper.make_node("Mul", ["right_value", "left_distance"], ["right_share"]),
        helper.make_node("Add", ["left_share", "right_share"], ["shares"]),
        helper.make_node("Add", ["left_distance", "right_distance"], ["span"]),
        helper.make_node("Max", ["span", "one"], ["safe_span"]),
        helper.make_node("Div", ["shares", "safe_span"], ["between"]),
        helper.make_node("Where", ["known", "series", "between"], ["series_out"]),
    ]
    return _transform("fill", "missing", nodes, channels, length, constants)


def _transform(
    name: str,
    family: str,
    nodes: list[onnx.NodeProto],
    channels: int,
    length: int,
    constants: dict[str, np.ndarray],
    parameters: dict[str, Parameter] | None = None,
) -> Artifact:
    axes = ("N", channels, length)
    inputs = {"series": axes, **{parameter: () for parameter in parameters or {}}}
    model = make_model(name, nodes, inputs, {"series_out": axes}, constants)
    return Artifact(
        name, "transform", model, "series", family, _SOURCE, "MIT", input_domain="series", parameters=parameters or {}
    )
