"""Feature extractors: transforms from series `float32[N,C,T]` to features `float32[N,F]`, as ONNX graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch.nn import functional as F

from gnncompose.tasks.factory.artifact import Artifact, make_model, verify
from gnncompose.tasks.factory.networks import one_thread

_LICENCE = "MIT"
_SOURCE = "graph of ONNX operators, written for gnncompose"
_TIME = {"time": np.array([2], np.int64)}
TAPS = 9
SEGMENTS = 8
MOST_FREQUENCIES = 48
# A response counts as half a positive one at the bias, and fully from half a standard deviation above it on.
_STEEPNESS = 1.0


def rocket(name: str, train: np.ndarray, kernels: int, seed: int, source: str) -> Artifact:
    """Random convolutions, each summed up by its largest response and its share of positive ones.

    After ROCKET (Dempster et al., Data Min. Knowl. Discov. 34, 2020): random weights, dilations, channels and
    biases. Kernels of one dilation run as one convolution, hence one length for all; biases are quantiles of
    real responses, as in MiniRocket (KDD 2021). The share is soft: a response near the bias counts in part, so
    that rounding never moves a feature by a whole point.

    Args:
        name: Name of the operator.
        train: Training rows, whose responses give biases and scale.
        kernels: How many kernels; each gives two features.
        seed: Decides them.
        source: Provenance.
    """
    length = train.shape[2]
    generator = np.random.default_rng(seed)
    dilations = [1 << power for power in range(max(1, ((length - 1) // (TAPS - 1)).bit_length()))]
    nodes: list[onnx.NodeProto] = []
    constants = dict(_TIME)
    expected = []
    for dilation, share in zip(dilations, np.array_split(np.arange(kernels), len(dilations)), strict=True):
        weight, bias = _kernels(len(share), train, dilation, generator)
        constants |= {f"weight{dilation}": weight, f"bias{dilation}": bias}
        nodes += _responses(dilation)
        responses = _convolve(train, weight, bias, dilation)
        expected += [np.clip(_STEEPNESS * responses + 0.5, 0, 1).mean(axis=2), responses.max(axis=2)]
    parts = [f"{kind}{dilation}" for dilation in dilations for kind in ("share", "largest")]
    nodes.append(helper.make_node("Concat", parts, ["features"], axis=1))
    features = np.concatenate(expected, axis=1)
    artifact = _extractor(name, "rocket", nodes, train.shape[1:], features.shape[1], constants, source)
    verify(artifact, train, features)
    return artifact


def _kernels(
    count: int, train: np.ndarray, dilation: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Weights `[count,C,TAPS]` of mean 0 whose responses to the training rows have deviation 1, and biases."""
    channels = train.shape[1]
    weight = generator.standard_normal((count, channels, TAPS)).astype(np.float32)
    weight -= weight.mean(axis=2, keepdims=True)
    used = np.floor(2 ** generator.uniform(0, np.log2(channels + 1), count))
    rank = generator.random((count, channels)).argsort(axis=1).argsort(axis=1)
    weight *= (rank < used[:, None])[:, :, None]
    responses = _convolve(train, weight, np.zeros(count, np.float32), dilation)
    deviation = np.maximum(responses.std(axis=(0, 2)), 1e-6)
    levels = generator.uniform(0.1, 0.9, count)
    middle = np.array([np.quantile(responses[:, k], level) for k, level in enumerate(levels)])
    return weight / deviation[:, None, None], (-middle / deviation).astype(np.float32)


def _convolve(rows: np.ndarray, weight: np.ndarray, bias: np.ndarray, dilation: int) -> np.ndarray:
    """Responses `[N,kernel,T]`; outside the series there are zeros."""
    series, kernels, offsets = (torch.from_numpy(array) for array in (rows, weight, bias))
    with torch.no_grad(), one_thread():
        return F.conv1d(series, kernels, offsets, padding=dilation * (TAPS // 2), dilation=dilation).numpy()


def _responses(dilation: int) -> list[onnx.NodeProto]:
    """Nodes that convolve with one dilation and sum up over time."""
    pad = dilation * (TAPS // 2)
    return [
        helper.make_node(
            "Conv",
            ["series", f"weight{dilation}", f"bias{dilation}"],
            [f"response{dilation}"],
            kernel_shape=[TAPS],
            dilations=[dilation],
            pads=[pad, pad],
        ),
        helper.make_node("HardSigmoid", [f"response{dilation}"], [f"above{dilation}"], alpha=_STEEPNESS, beta=0.5),
        helper.make_node("ReduceMean", [f"above{dilation}", "time"], [f"share{dilation}"], keepdims=0),
        helper.make_node("ReduceMax", [f"response{dilation}", "time"], [f"largest{dilation}"], keepdims=0),
    ]


def summary(channels: int, length: int) -> Artifact:
    """Statistics per channel: mean, deviation, extremes, mean step, and mean and variance of eight segments."""
    segment = length // SEGMENTS
    window: dict[str, Any] = {"kernel_shape": [segment], "strides": [segment]}
    nodes = [
        helper.make_node("ReduceMean", ["series", "time"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["series", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "time"], ["variance"], keepdims=1),
        helper.make_node("Sqrt", ["variance"], ["deviation"]),
        helper.make_node("ReduceMin", ["series", "time"], ["lowest"], keepdims=1),
        helper.make_node("ReduceMax", ["series", "time"], ["highest"], keepdims=1),
        helper.make_node("Slice", ["series", "second", "length", "time"], ["later"]),
        helper.make_node("Slice", ["series", "first", "last", "time"], ["earlier"]),
        helper.make_node("Sub", ["later", "earlier"], ["steps"]),
        helper.make_node("Abs", ["steps"], ["sizes"]),
        helper.make_node("ReduceMean", ["sizes", "time"], ["step"], keepdims=1),
        helper.make_node("AveragePool", ["series"], ["levels"], **window),
        helper.make_node("AveragePool", ["squares"], ["powers"], **window),
        helper.make_node(
            "Concat", ["mean", "deviation", "lowest", "highest", "step", "levels", "powers"], ["table"], axis=2
        ),
        helper.make_node("Flatten", ["table"], ["features"], axis=1),
    ]
    places = {"first": 0, "second": 1, "last": length - 1, "length": length}
    constants = {**_TIME, **{name: np.array([place], np.int64) for name, place in places.items()}}
    size = channels * (5 + 2 * (length // segment))
    return _extractor("summary", "statistics", nodes, (channels, length), size, constants, _SOURCE)


def spectrum(channels: int, length: int) -> Artifact:
    """Amplitudes of the lowest frequencies of each channel: they stay as they are when the series is shifted."""
    count = min(length // 2, MOST_FREQUENCIES)
    angles = 2 * np.pi * np.outer(np.arange(length), np.arange(1, count + 1)) / length
    basis = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * 2 / length
    nodes = [
        helper.make_node("MatMul", ["series", "basis"], ["parts"]),
        helper.make_node("Mul", ["parts", "parts"], ["squares"]),
        helper.make_node("Split", ["squares"], ["cosines", "sines"], axis=2, num_outputs=2),
        helper.make_node("Add", ["cosines", "sines"], ["power"]),
        helper.make_node("Sqrt", ["power"], ["amplitudes"]),
        helper.make_node("Flatten", ["amplitudes"], ["features"], axis=1),
    ]
    constants = {"basis": basis.astype(np.float32)}
    return _extractor("spectrum", "spectrum", nodes, (channels, length), channels * count, constants, _SOURCE)


def _extractor(
    name: str,
    family: str,
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int],
    size: int,
    constants: dict[str, np.ndarray],
    source: str,
) -> Artifact:
    model = make_model(name, nodes, {"series": ("N", *shape)}, {"features": ("N", size)}, constants)
    return Artifact(name, "transform", model, "features", family, source, _LICENCE, input_domain="series")
