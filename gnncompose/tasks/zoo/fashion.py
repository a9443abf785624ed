"""Fashion-MNIST: 70,000 articles of clothing, 28x28, ten classes. Downloads 31 MB once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gnncompose.tasks.conditions import noise, standard_conditions
from gnncompose.tasks.task import Scenario, Split

if TYPE_CHECKING:
    from gnncompose.tasks.factory.artifact import Artifact
    from gnncompose.tasks.factory.networks import Network
    from gnncompose.tasks.zoo import Progress

SIDE = 28
VALIDATION_ROWS, TEST_ROWS = 2_000, 10_000
# The bundle carries only these of the training rows: calibration and drift references need no more.
TRAIN_ROWS_KEPT = 10_000
DENOISER_ROWS = 12_000
CONDITIONS = standard_conditions(
    impulse_share=0.2, noise_sigma=0.3, contrast_span=0.15, contrast_floor=0.45, foggy_impulse_share=0.1
)
# What the router tells apart: pictures as they should be or nearly so, fog, and negatives.
ROUTES = {
    "clean": 0,
    "impulse": 0,
    "noise": 0,
    "rotated": 0,
    "low_contrast": 1,
    "low_contrast_impulse": 1,
    "inverted": 2,
}
ROUTER_ROWS = 20_000
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
# A day at a camera: fog comes and goes, drops hang on the lens, dusk brings noise.
WEATHER = Scenario.of("weather", 1_000, ("clean", "low_contrast", "low_contrast_impulse", "impulse", "noise", "clean"))
_SOURCE = "trained on the Fashion-MNIST train split (Zalando)"
_LICENCE = "MIT"
_SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


@dataclass(frozen=True)
class _Recipe:
    """How one classifier is made.

    Attributes:
        family: Its family.
        shape: Hidden widths of an `mlp`, or channels of a `cnn`.
        epochs: Passes over the training rows.
        options: Further arguments of `networks.cnn`.
        quantised: Whether the catalog also gets it in 8 bits.
    """

    family: str
    shape: tuple[int, ...]
    epochs: float
    options: Mapping[str, int] | None = None
    quantised: bool = False

    def build(self) -> Network:
        """The untrained network."""
        from gnncompose.tasks.factory import networks

        if self.family in ("linear", "mlp"):
            return networks.mlp(SIDE * SIDE, *self.shape)
        return networks.cnn(SIDE, *self.shape, **(self.options or {}))

    def train(self, images: np.ndarray, labels: np.ndarray, seed: int) -> Network:
        """The trained network."""
        from gnncompose.tasks.factory import networks

        return networks.train_classifier(self.build, images, labels, seed=seed, epochs=self.epochs, batch=128)


# In catalog order: the first is where searches start.
RECIPES = {
    "linear": _Recipe("linear", (), 2),
    "mlp_s": _Recipe("mlp", (64,), 3),
    "mlp_m": _Recipe("mlp", (256, 64), 3, quantised=True),
    "mlp_l": _Recipe("mlp", (512, 256), 2),
    "cnn_xs": _Recipe("cnn", (8, 16), 2, {"strided": 2}),
    "cnn_s": _Recipe("cnn", (16, 32), 2, {"strided": 2, "hidden": 32}, quantised=True),
    "cnn_m": _Recipe("cnn", (16, 32), 1.5, {"hidden": 64}, quantised=True),
    "cnn_l": _Recipe("cnn", (32, 64), 1, {"strided": 1, "hidden": 128}, quantised=True),
}


class Fashion:
    """Articles of clothing, ten classes."""

    name = "fashion"
    description = "Fashion-MNIST: 70,000 articles of clothing of 28x28 pixels; downloads 31 MB, builds in minutes"
    licence = "data MIT (Zalando SE); artifacts MIT"
    build_s = 85

    def build(self, directory: Path, *, seed: int, progress: Progress) -> None:
        """Fetch, train, export, quantise, check and write the bundle into an empty folder."""
        # Inside, because listing the tasks must not wait for torch.
        from gnncompose.tasks.factory.classification import under_conditions, write_classification_task

        progress("fetch Fashion-MNIST")
        pixels, labels, test = _fetch(seed)
        held = slice(0, VALIDATION_ROWS)
        validation = Split(_scaled(pixels[held]), labels[held])
        pixels, labels = pixels[VALIDATION_ROWS:], labels[VALIDATION_ROWS:]
        artifacts = _artifacts(pixels, labels, validation, seed, progress)
        progress("write the bundle")
        kept = Split(_scaled(pixels[:TRAIN_ROWS_KEPT]), labels[:TRAIN_ROWS_KEPT])
        data = under_conditions({"train": kept, "validation": validation, "test": test}, CONDITIONS, seed)
        write_classification_task(
            directory,
            name=self.name,
            domain="image",
            artifacts=artifacts,
            data=data,
            classes=CLASSES,
            scenarios=[WEATHER],
        )


def _fetch(seed: int) -> tuple[np.ndarray, np.ndarray, Split]:
    """Training pixels and labels in shuffled order, and the test split."""
    from gnncompose.tasks.cache import cache_directory
    from gnncompose.tasks.factory.download import Dataset

    dataset = Dataset(
        package="dataset-fashion-mnist",
        package_bytes=30_900_652,
        folder="usr/share/datasets/fashion-mnist",
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        sha256=_SHA256,
    )
    files = dataset.fetch(cache_directory() / "downloads" / "fashion")
    train_x, train_y, test_x, test_y = (_parse_idx(files[name]) for name in _SHA256)
    order = np.random.default_rng(seed).permutation(len(train_y))
    test = Split(_scaled(test_x[:TEST_ROWS, None]), test_y[:TEST_ROWS].astype(np.int64))
    return train_x[order, None], train_y[order].astype(np.int64), test


def _parse_idx(content: bytes) -> np.ndarray:
    """An array from the IDX format: two zeros, a type (8: uint8), the number of axes, their sizes, the values."""
    axes = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(axes)).reshape(axes)


def _scaled(pixels: np.ndarray) -> np.ndarray:
    return (pixels / np.float32(255)).astype(np.float32)


def _train_denoiser(images: np.ndarray, labels: np.ndarray, seed: int) -> Network:
    from gnncompose.tasks.factory import networks

    build = partial(networks.residual_denoiser, 12)
    return networks.train_denoiser(build, images[:DENOISER_ROWS], noise(0.3), seed=seed, epochs=1, batch=32)


def _train_router(images: np.ndarray, labels: np.ndarray, seed: int) -> Network:
    """A network that tells the groups of conditions apart, trained on training rows under drawn conditions."""
    from gnncompose.tasks.factory import networks
    from gnncompose.tasks.factory.classification import drawn_routes

    rows, routes = drawn_routes(images[:ROUTER_ROWS], CONDITIONS, ROUTES, seed)
    build = partial(networks.cnn, SIDE, 4, 8, strided=2, classes=1 + max(ROUTES.values()))
    return networks.train_classifier(build, rows, routes, seed=seed, epochs=2, batch=128)


def _artifacts(
    pixels: np.ndarray, labels: np.ndarray, validation: Split, seed: int, progress: Progress
) -> list[Artifact]:
    """All operators in catalog order: models, each followed by its 8-bit form, then transforms."""
    from gnncompose.tasks.factory import filters, networks, quantize
    from gnncompose.tasks.factory.parallel import train_all

    longest_first = ["cnn_m", "cnn_l", "denoiser", *reversed([n for n in RECIPES if n not in ("cnn_m", "cnn_l")])]
    others = {"denoiser": _train_denoiser, "router": _train_router}
    jobs = {n: partial(others.get(n) or RECIPES[n].train, seed=seed) for n in [*longest_first, "router"]}
    trained: dict[str, Network] = {}
    progress(f"train {len(jobs)} networks")
    for name, network in train_all(jobs, pixels, labels):
        trained[name] = network
        progress(f"trained {name} ({len(trained)} of {len(jobs)})")
    artifacts = []
    for name, recipe in RECIPES.items():
        exported = networks.export_classifier(name, recipe.family, trained[name], validation.x, _SOURCE, _LICENCE)
        artifacts.append(exported)
        if recipe.quantised:
            progress(f"quantise {name}")
            artifacts.append(quantize.quantized(exported, _scaled(pixels[:512]), validation.x, validation.y))
    artifacts += filters.image_filters(SIDE, SIDE).values()
    noisy = noise(0.3)(validation.x, np.random.default_rng(seed))
    artifacts.append(networks.export_denoiser("denoiser", trained["denoiser"], noisy, _SOURCE, _LICENCE))
    router = networks.export_classifier(
        "router", "cnn", trained["router"], validation.x, _SOURCE, _LICENCE, kind="router"
    )
    return [*artifacts, router]


TASK = Fashion()
