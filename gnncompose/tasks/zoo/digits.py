"""The embedded task: scikit-learn's handwritten digits, 8x8. No download, builds in seconds anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnncompose.tasks.conditions import chained, impulse, noise, standard_conditions
from gnncompose.tasks.task import Scenario, Split

if TYPE_CHECKING:
    from gnncompose.tasks.factory.artifact import Artifact
    from gnncompose.tasks.factory.sklearn_models import Classifier
    from gnncompose.tasks.zoo import Progress

SIDE = 8
VALIDATION_ROWS, TEST_ROWS = 400, 400
# Strong enough to hurt every model, weak enough that eight by eight pixels still show the digit.
CONDITIONS = standard_conditions(
    impulse_share=0.15, noise_sigma=0.25, contrast_span=0.15, contrast_floor=0.45, foggy_impulse_share=0.1
)
# A day at a camera: fog comes and goes, drops hang on the lens, dusk brings noise.
WEATHER = Scenario.of("weather", 400, ("clean", "low_contrast", "low_contrast_impulse", "impulse", "noise", "clean"))
_SOURCE = "trained on the train split of scikit-learn's digits (UCI Optical Recognition of Handwritten Digits)"
_LICENCE = "MIT"


class Digits:
    """Handwritten digits, ten classes."""

    name = "digits"
    description = "1,797 handwritten digits of 8x8 pixels; embedded, builds in seconds without a download"
    licence = "data CC-BY-4.0 (UCI machine learning repository); artifacts MIT"
    build_s = 35

    def build(self, directory: Path, *, seed: int, progress: Progress) -> None:
        """Train, export, check and write the bundle into an empty folder."""
        # Inside, because listing the tasks must not wait for scikit-learn and torch.
        from gnncompose.tasks.factory.classification import under_conditions, write_classification_task

        splits = _splits(seed)
        artifacts = list(_artifacts(splits["train"], splits["validation"], seed, progress))
        progress("write the bundle")
        data = under_conditions(splits, CONDITIONS, seed)
        classes = [str(digit) for digit in range(10)]
        write_classification_task(
            directory,
            name=self.name,
            domain="image",
            artifacts=artifacts,
            data=data,
            classes=classes,
            scenarios=[WEATHER],
        )


def _splits(seed: int) -> dict[str, Split]:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    x = (digits.images[order] / 16).astype(np.float32).reshape(-1, 1, SIDE, SIDE)
    y = digits.target[order].astype(np.int64)
    ends = [VALIDATION_ROWS, VALIDATION_ROWS + TEST_ROWS]
    parts = zip(("validation", "test", "train"), np.split(x, ends), np.split(y, ends), strict=True)
    by_name = {name: Split(rows, labels) for name, rows, labels in parts}
    return {name: by_name[name] for name in ("train", "validation", "test")}


def _artifacts(train: Split, validation: Split, seed: int, progress: Progress) -> Iterator[Artifact]:
    """All operators in catalog order; the first model is where searches start."""
    from gnncompose.tasks.factory import filters, networks, quantize, sklearn_models

    # Noisy rows have no exact ties between neighbours, which would be broken at random.
    noisy = noise(0.1)(validation.x, np.random.default_rng(seed))
    for name, (family, classifier) in _classifiers(seed).items():
        progress(f"train {name}")
        yield sklearn_models.fit_and_export(name, family, classifier, train.x, train.y, noisy, _SOURCE, _LICENCE)
    builders = {"mlp": lambda: networks.mlp(SIDE * SIDE, 64), "cnn": lambda: networks.cnn(SIDE, 16, 32, hidden=64)}
    for name, builder in builders.items():
        progress(f"train {name}")
        network = networks.train_classifier(
            builder, train.x, train.y, seed=seed, epochs=25, batch=32, learning_rate=5e-3
        )
        artifact = networks.export_classifier(name, name, network, validation.x, _SOURCE, _LICENCE)
        yield artifact
    progress("quantise cnn")
    yield quantize.quantized(artifact, train.x[:256], validation.x, validation.y)
    yield from filters.image_filters(SIDE, SIDE).values()
    progress("train denoiser")
    network = networks.train_denoiser(
        lambda: networks.residual_denoiser(16),
        np.repeat(train.x, 4, axis=0),
        chained(noise(0.15), impulse(0.1)),
        seed=seed,
        epochs=6,
        batch=32,
    )
    yield networks.export_denoiser("denoiser", network, noisy, _SOURCE, _LICENCE)


def _classifiers(seed: int) -> dict[str, tuple[str, Classifier]]:
    """Untrained classifiers of different families, with their family; one thread each, so that results repeat."""
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.tree import DecisionTreeClassifier

    from gnncompose.tasks.factory.estimators import lightgbm, svm

    return {
        "logistic": ("linear", LogisticRegression(C=0.3, max_iter=300)),
        "tree": ("tree", DecisionTreeClassifier(max_depth=12, random_state=seed)),
        "forest": ("forest", RandomForestClassifier(60, random_state=seed, n_jobs=1)),
        "extra_trees": ("forest", ExtraTreesClassifier(100, random_state=seed, n_jobs=1)),
        "lightgbm": ("boosted", lightgbm(seed, 40, 8)),
        "naive_bayes": ("bayes", GaussianNB(var_smoothing=1e-2)),
        "qda": ("discriminant", QuadraticDiscriminantAnalysis(reg_param=0.1)),
        "svm": ("kernel", svm(seed, 10)),
        "neighbours": ("neighbours", KNeighborsClassifier(5)),
    }


TASK = Digits()
