"""Training small torch networks and writing them as ONNX graphs, layer by layer.

Writing the graph from the weights takes milliseconds, needs no tracer, and gives the same bytes every time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import nn
from torch.nn import functional as F

from gnncompose.catalog.operator import Kind
from gnncompose.tasks.factory.artifact import Artifact, make_model, verify

Network = nn.Sequential
Corrupt = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def mlp(pixels: int, *hidden: int, classes: int = 10) -> Network:
    """A perceptron on flattened images; without hidden layers it is linear."""
    return nn.Sequential(nn.Flatten(), *perceptron(pixels, *hidden, classes=classes))


def perceptron(features: int, *hidden: int, classes: int) -> Network:
    """Dense layers with ReLU between them, on rows of features; without hidden layers it is linear."""
    widths = [features, *hidden]
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Linear(narrow, wide), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def cnn(side: int, *channels: int, hidden: int = 0, strided: int = 0, classes: int = 10) -> Network:
    """A 3x3 convolution with ReLU, which halves the image, per entry of `channels`; then a dense head.

    Args:
        side: Height and width of the images.
        channels: Output channels of each convolution.
        hidden: Width of a hidden layer in the head; 0 for none.
        strided: How many of the first convolutions halve by their stride; the others by pooling, which costs
            several times as much and answers a little better.
        classes: Number of classes.
    """
    layers: list[nn.Module] = []
    before = 1
    for number, width in enumerate(channels):
        if number < strided:
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.ReLU()]
            side = (side + 1) // 2
        else:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            side //= 2
        before = width
    return nn.Sequential(*layers, *mlp(before * side * side, *([hidden] if hidden else []), classes=classes))


def residual_denoiser(channels: int, depth: int = 1) -> Network:
    """Convolutions that predict the noise in an image (as DnCNN does: Zhang et al., IEEE TIP 26, 2017)."""
    layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 3, padding=1))


def cnn_1d(channels: int, length: int, *widths: int, averaged: bool = False, classes: int = 10) -> Network:
    """Convolutions over seven points with ReLU, each of which halves the series; then a dense layer.

    Args:
        channels: Channels of a series.
        length: Its points.
        widths: Output channels of each convolution.
        averaged: Whether the dense layer sees the average over time, which makes it care little for when something
            happens (Wang, Yan and Oates, IJCNN 2017), or every point that is left.
        classes: Number of classes.
    """
    layers: list[nn.Module] = []
    before = channels
    for width in widths:
        layers += [nn.Conv1d(before, width, 7, stride=2, padding=3), nn.ReLU()]
        before, length = width, (length + 1) // 2
    if averaged:
        layers.append(nn.AdaptiveAvgPool1d(1))
        length = 1
    return nn.Sequential(*layers, *mlp(before * length, classes=classes))


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: small networks gain nothing by more, and results then never depend on the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_classifier(
    build: Callable[[], Network],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
    epochs: float,
    batch: int = 256,
    learning_rate: float = 3e-3,
) -> Network:
    """Train a classifier with Adam under a one-cycle schedule.

    Args:
        build: Makes the untrained network; called under the seed.
        images: Training rows.
        labels: Their classes.
        seed: Decides initial weights and order of rows.
        epochs: Passes over the rows; a fraction ends the last pass early.
        batch: Rows a step.
        learning_rate: Highest rate of the schedule.
    """
    x, y = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))

    def loss(network: Network, rows: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(network(x[rows]), y[rows])

    return _train(build, loss, len(x), seed, epochs, batch, learning_rate)


def train_denoiser(
    build: Callable[[], Network],
    images: np.ndarray,
    corrupt: Corrupt,
    *,
    seed: int,
    epochs: float,
    batch: int = 64,
    learning_rate: float = 3e-3,
) -> Network:
    """Train a network to predict what `corrupt` added to the images."""
    noisy = corrupt(images, np.random.default_rng(seed))
    x, added = torch.from_numpy(noisy), torch.from_numpy(noisy - images)

    def loss(network: Network, rows: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(network(x[rows]), added[rows])

    return _train(build, loss, len(x), seed, epochs, batch, learning_rate)


def _train(
    build: Callable[[], Network],
    loss: Callable[[Network, torch.Tensor], torch.Tensor],
    rows: int,
    seed: int,
    epochs: float,
    batch: int,
    learning_rate: float,
) -> Network:
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        network = build()
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        steps = max(1, int(epochs * rows / batch))
        optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
        order = torch.randperm(rows)
        for step in range(steps):
            start = step * batch % rows
            if start < batch:
                order = torch.randperm(rows)
            optimizer.zero_grad()
            loss(network, order[start : start + batch]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def for_raw_rows(network: Network, mean: np.ndarray, scale: np.ndarray) -> Network:
    """A network for rows as they come, of one that was trained on (rows - mean) / scale.

    The standardisation goes into the first layer, so that it costs nothing when the network answers.

    Args:
        network: Starts with a dense layer.
        mean: [features]
        scale: [features], none of them 0.
    """
    first, *others = network
    assert isinstance(first, nn.Linear)
    folded = copy.deepcopy(first)
    with torch.no_grad():
        weight = first.weight.double() / torch.from_numpy(scale).double()
        folded.weight.copy_(weight)
        folded.bias.copy_(first.bias.double() - weight @ torch.from_numpy(mean).double())
    return nn.Sequential(folded, *others).eval()


def export_classifier(
    name: str,
    family: str,
    network: Network,
    checked_on: np.ndarray,
    source: str,
    licence: str,
    kind: Kind = "model",
    domain: str = "image",
) -> Artifact:
    """Write a classifier as rows -> probs and compare it with torch on real rows.

    Args:
        name: Name of the operator.
        family: Its family.
        network: A trained network that ends in logits.
        checked_on: Real rows.
        source: Provenance of the artifact.
        licence: Its licence.
        kind: `model`, or `router`.
        domain: Domain of the rows, which is also the name of the input tensor.

    Raises:
        ExportError: The graph answers differently.
    """
    nodes, constants = _layers(network, domain, "logits")
    nodes.append(helper.make_node("Softmax", ["logits"], ["probs"], axis=1))
    with torch.no_grad(), one_thread():
        expected = F.softmax(network(torch.from_numpy(checked_on)), dim=1).numpy()
    outputs = {"probs": ("N", expected.shape[1])}
    model = make_model(name, nodes, {domain: ("N", *checked_on.shape[1:])}, outputs, constants)
    artifact = Artifact(name, kind, model, "probs", family, source, licence, domain)
    verify(artifact, checked_on, expected)
    return artifact


def export_denoiser(name: str, network: Network, checked_on: np.ndarray, source: str, licence: str) -> Artifact:
    """Write a residual denoiser as image -> image, clipped to [0, 1], and compare it with torch on real rows.

    Raises:
        ExportError: The graph answers differently.
    """
    nodes, constants = _layers(network, "image", "noise")
    nodes.append(helper.make_node("Sub", ["image", "noise"], ["difference"]))
    nodes.append(helper.make_node("Clip", ["difference", "zero", "one"], ["image_out"]))
    constants |= {"zero": np.array(0, np.float32), "one": np.array(1, np.float32)}
    axes = ("N", *checked_on.shape[1:])
    model = make_model(name, nodes, {"image": axes}, {"image_out": axes}, constants)
    artifact = Artifact(name, "transform", model, "image", "denoise", source, licence)
    rows = torch.from_numpy(checked_on)
    with torch.no_grad(), one_thread():
        verify(artifact, checked_on, (rows - network(rows)).clamp(0, 1).numpy())
    return artifact


def _layers(network: Network, source: str, target: str) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Nodes and weights of a sequence of layers."""
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {}
    for number, layer in enumerate(network):
        output = target if number == len(network) - 1 else f"layer{number}"
        inputs = [source]
        attributes: dict[str, Any] = {}
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            weights = {f"weight{number}": layer.weight, f"bias{number}": layer.bias}
            constants |= {name: np.ascontiguousarray(w.detach().numpy()) for name, w in weights.items()}
            inputs += list(weights)
        match layer:
            case nn.Conv1d() | nn.Conv2d():
                kernel, pads = list(layer.kernel_size), [int(pad) for pad in layer.padding] * 2
                attributes = {"kernel_shape": kernel, "pads": pads, "strides": list(layer.stride)}
                operator = "Conv"
            case nn.Linear():
                operator, attributes = "Gemm", {"transB": 1}
            case nn.ReLU():
                operator = "Relu"
            case nn.MaxPool2d():
                operator, attributes = (
                    "MaxPool",
                    {"kernel_shape": [layer.kernel_size] * 2, "strides": [layer.stride] * 2},
                )
            case nn.AdaptiveAvgPool1d(output_size=1):
                operator = "GlobalAveragePool"
            case nn.Flatten():
                operator, attributes = "Flatten", {"axis": 1}
            case _:
                raise TypeError(f"no ONNX form is written for layer {type(layer).__name__}")
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        source = output
    return nodes, constants
