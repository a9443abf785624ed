"""Time series: eight small sets of the UCR and UEA archives, one task each. Downloads one package once.

A set's series are all as long as its longest one: a shorter one holds its last values, so that time is not
stretched. All channels go in together, each in units of its standard deviation in train. The archives' own
train and test rows are pooled and split anew, 40 : 30 : 30 within each class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnncompose.tasks.series_conditions import MISSING, gap_length, noise, series_conditions
from gnncompose.tasks.task import Scenario, Split

if TYPE_CHECKING:
    from gnncompose.tasks.factory.artifact import Artifact
    from gnncompose.tasks.factory.sklearn_models import Classifier
    from gnncompose.tasks.zoo import Progress

GAP_SHARE, GAPS = 0.2, 2
CONDITIONS = series_conditions(gap_share=GAP_SHARE)
# What the router tells apart: rows that models can take, rows with glitches, and rows with a wrong or broken baseline.
ROUTES = {
    "clean": 0,
    "noise": 0,
    "scaled": 0,
    "spikes": 1,
    "wander": 2,
    "missing": 2,
    "missing_wander": 2,
}
ROUTER_ROWS = 3_000
# Of the networks' training, whatever the size of the set.
STEPS, BATCH = 600, 16
# A sensor in the field: it warms up, loses contact, is knocked, and is mended.
FIELD = Scenario.of(
    "field", 200, ("clean", "wander", "missing_wander", "missing", "spikes", "noise", "scaled", "clean")
)
_LICENCE = "MIT"


@dataclass
class Series:
    """One set of the archives.

    Attributes:
        name: Name of the task.
        folder: What the archives call the set.
        description: One line for lists.
        licence: Licences of data and artifacts.
        build_s: About how long building takes.
    """

    name: str
    folder: str
    description: str
    licence: str = "data as published by the UCR and UEA archives, in aeon 1.6.0 (BSD-3-Clause); artifacts MIT"
    build_s: int = 90

    def build(self, directory: Path, *, seed: int, progress: Progress) -> None:
        """Fetch, train, export, quantise, check and write the bundle into an empty folder."""
        # Inside, because listing the tasks must not wait for scikit-learn and torch.
        from threadpoolctl import threadpool_limits

        from gnncompose.tasks.factory.classification import under_conditions, write_classification_task

        progress(f"fetch {self.folder}")
        splits, classes = _fetch(self.folder, seed)
        source = f"trained on the train split of {self.folder} (UCR and UEA archives, as in aeon 1.6.0)"
        # One thread, because the order of a sum, hence its last bits, would depend on the number of cores.
        with threadpool_limits(1):
            artifacts = list(_artifacts(splits["train"], splits["validation"], seed, source, progress))
        progress("write the bundle")
        write_classification_task(
            directory,
            name=self.name,
            domain="series",
            artifacts=artifacts,
            data=under_conditions(splits, CONDITIONS, seed),
            classes=classes,
            scenarios=[FIELD],
        )


def _fetch(folder: str, seed: int) -> tuple[dict[str, Split], list[str]]:
    """The splits of a set, and the names of its classes."""
    from gnncompose.tasks.cache import cache_directory
    from gnncompose.tasks.factory.series_archive import parse_ts, split_rows, with_one_length
    from gnncompose.tasks.factory.wheel import Wheel

    wheel = Wheel(
        package="aeon",
        version="1.6.0",
        sha256="d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
    )
    series, labels = [], []
    for half in ("TRAIN", "TEST"):
        member = f"aeon/datasets/data/{folder}/{folder}_{half}.ts"
        rows, classes = parse_ts(wheel.read(cache_directory() / "downloads" / "aeon", member).decode("utf-8"))
        series += rows
        labels += classes
    return split_rows(with_one_length(series), labels, seed)


def _artifacts(train: Split, validation: Split, seed: int, source: str, progress: Progress) -> Iterator[Artifact]:
    """All operators in catalog order; the first model is where searches start."""
    from gnncompose.tasks.factory.artifact import run
    from gnncompose.tasks.factory.series_features import rocket, spectrum, summary
    from gnncompose.tasks.factory.series_filters import series_filters

    channels, length = train.x.shape[1:]
    progress("draw random convolutions")
    statistics = summary(channels, length)
    extractors = [
        rocket("rocket_s", train.x, 64, seed, source),
        rocket("rocket_l", train.x, 512, seed + 1, source),
        statistics,
        spectrum(channels, length),
    ]
    # Noisy rows have no exact ties between neighbours, which would be broken at random.
    noisy = noise(0.1)(validation.x, np.random.default_rng(seed))
    yield from _series_models(train, validation, noisy, seed, source, progress)
    views = {e.name: (run(e, train.x), run(e, noisy)) for e in extractors}
    yield from _feature_models(views, train.y, seed, source, progress)
    yield from series_filters(channels, length, MISSING, GAPS * gap_length(GAP_SHARE, GAPS, length))
    yield from extractors
    progress("train router")
    yield _router(train, statistics, views["summary"][1], seed, source)


def _series_models(
    train: Split, validation: Split, noisy: np.ndarray, seed: int, source: str, progress: Progress
) -> Iterator[Artifact]:
    """Models that read series, each network followed by its 8-bit form where it has one."""
    from gnncompose.tasks.factory import linear_models, networks, quantize, sklearn_models

    progress("train linear")
    yield linear_models.logistic("linear", "series", train.x, train.y, noisy, source, _LICENCE)
    for name, (family, classifier) in _classifiers(seed).items():
        progress(f"train {name}")
        yield sklearn_models.fit_and_export(
            name, family, classifier, train.x, train.y, noisy, source, _LICENCE, domain="series"
        )
    channels, length = train.x.shape[1:]
    classes = int(train.y.max()) + 1
    builders = {
        "mlp": partial(networks.mlp, channels * length, 64, classes=classes),
        "cnn_s": partial(networks.cnn_1d, channels, length, 8, 16, classes=classes),
        "cnn_l": partial(networks.cnn_1d, channels, length, 16, 32, 64, averaged=True, classes=classes),
    }
    for name, build in builders.items():
        progress(f"train {name}")
        network = networks.train_classifier(
            build, train.x, train.y, seed=seed, epochs=STEPS * BATCH / len(train.x), batch=BATCH
        )
        family = name.partition("_")[0]
        artifact = networks.export_classifier(name, family, network, noisy, source, _LICENCE, domain="series")
        yield artifact
        if name == "cnn_s":
            progress(f"quantise {name}")
            # One row of the smallest set is 4 % of its validation rows.
            yield quantize.quantized(artifact, train.x, validation.x, validation.y, largest_drop=0.1)


def _classifiers(seed: int) -> Mapping[str, tuple[str, Classifier]]:
    """Untrained classifiers on the points of series, with their family; one thread each, so that results repeat."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.neighbors import KNeighborsClassifier

    return {
        "neighbours": ("neighbours", KNeighborsClassifier(1)),
        "extra_trees": ("forest", ExtraTreesClassifier(100, random_state=seed, n_jobs=1)),
    }


def _feature_models(
    views: Mapping[str, tuple[np.ndarray, np.ndarray]], labels: np.ndarray, seed: int, source: str, progress: Progress
) -> Iterator[Artifact]:
    """Models that read features.

    Args:
        views: Features of the training rows and of the checked ones, by the name of their extractor.
        labels: Classes of the training rows.
        seed: Decides the trees.
        source: Provenance.
        progress: Told each step.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    from gnncompose.tasks.factory.linear_models import logistic, ridge
    from gnncompose.tasks.factory.sklearn_models import fit_and_export

    linear = {"ridge": ridge, "logistic": logistic}
    for kind, view in (
        ("ridge", "rocket_s"),
        ("ridge", "rocket_l"),
        ("logistic", "rocket_l"),
        ("logistic", "spectrum"),
    ):
        progress(f"train {kind}_{view}")
        rows, checked = views[view]
        yield linear[kind](f"{kind}_{view}", "features", rows, labels, checked, source, _LICENCE)
    trees: dict[str, tuple[str, Any]] = {
        "tree_summary": ("tree", DecisionTreeClassifier(max_depth=8, random_state=seed)),
        "forest_summary": ("forest", RandomForestClassifier(60, random_state=seed, n_jobs=1)),
    }
    for name, (family, classifier) in trees.items():
        progress(f"train {name}")
        rows, checked = views["summary"]
        yield fit_and_export(name, family, classifier, rows, labels, checked, source, _LICENCE, domain="features")


def _router(train: Split, statistics: Artifact, checked: np.ndarray, seed: int, source: str) -> Artifact:
    """A forest that tells the groups of conditions apart by statistics of training rows under drawn conditions."""
    from sklearn.ensemble import RandomForestClassifier

    from gnncompose.tasks.factory.artifact import run
    from gnncompose.tasks.factory.classification import drawn_routes
    from gnncompose.tasks.factory.sklearn_models import fit_and_export

    repeated = np.resize(train.x, (ROUTER_ROWS, *train.x.shape[1:]))
    rows, routes = drawn_routes(repeated, CONDITIONS, ROUTES, seed)
    forest: Any = RandomForestClassifier(20, max_depth=8, random_state=seed, n_jobs=1)
    features = run(statistics, rows)
    return fit_and_export(
        "router", "forest", forest, features, routes, checked, source, _LICENCE, kind="router", domain="features"
    )


TASKS = (
    Series(
        "series_italy_power_demand",
        "ItalyPowerDemand",
        "1,096 days of electricity demand, 24 points each: winter or summer",
    ),
    Series("series_osu_leaf", "OSULeaf", "442 outlines of leaves, 427 points each: six species"),
    Series("series_acsf1", "ACSF1", "200 power curves of appliances, 1,460 points each: ten kinds"),
    Series(
        "series_japanese_vowels",
        "JapaneseVowels",
        "640 utterances, 29 points in 12 channels each: nine speakers",
    ),
    Series("series_gun_point", "GunPoint", "200 motions of a hand, 150 points each: with a gun or without"),
    Series("series_arrow_head", "ArrowHead", "211 outlines of arrowheads, 251 points each: three kinds"),
    Series("series_basic_motions", "BasicMotions", "80 recordings of a wrist, 100 points in 6 channels: four motions"),
    Series("series_pickup_gesture", "PickupGestureWiimoteZ", "100 gestures, up to 361 points each: ten people"),
)
