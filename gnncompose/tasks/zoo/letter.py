"""Letter recognition: 20,000 printed letters described by 16 measures, 26 classes. Downloads about 1 MB once.

Each row holds 16 whole numbers from 0 to 15 that were measured on the image of a distorted capital letter: the box
around it, how many pixels are on, their moments and their edges (Frey & Slate, Machine Learning 6, 1991).
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnncompose.errors import TaskError
from gnncompose.tasks.conditions import chained, clean, mixed
from gnncompose.tasks.table_conditions import in_other_order, in_other_unit, jitter, missing, typed_twice
from gnncompose.tasks.task import Scenario, Split

if TYPE_CHECKING:
    from gnncompose.tasks.conditions import Condition
    from gnncompose.tasks.factory.artifact import Artifact
    from gnncompose.tasks.factory.forests import Forest
    from gnncompose.tasks.factory.sklearn_models import Classifier
    from gnncompose.tasks.zoo import Progress

COLUMNS = (
    "x.box", "y.box", "width", "high", "onpix", "x.bar", "y.bar", "x2bar", "y2bar", "xybar", "x2ybr", "xy2br",
    "x.ege", "xegvy", "y.ege", "yegvx",
)  # fmt: skip
CLASSES = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
HIGHEST = 15
VALIDATION_ROWS, TEST_ROWS = 2_000, 4_000
# What was measured along x stands where what was measured along y should, and the other way round.
EXCHANGED = (1, 0, 3, 2, 4, 6, 5, 8, 7, 9, 11, 10, 14, 15, 12, 13)
# All measures on the scale of 8 bits, 0 to 255.
EIGHT_BIT = in_other_unit(range(len(COLUMNS)), 17)
_SINGLE: dict[str, Condition] = {
    "clean": clean,
    "missing": missing(0.15),
    "typed_twice": typed_twice(0.1),
    "noise": jitter(np.full(len(COLUMNS), 0.7)),
    "eight_bit": EIGHT_BIT,
    "exchanged": in_other_order(EXCHANGED),
    # The order of transforms decides: medians are in the training rows' unit.
    "eight_bit_missing": chained(EIGHT_BIT, missing(0.1)),
}
CONDITIONS: dict[str, Condition] = {**_SINGLE, "mixed": mixed(list(_SINGLE.values()))}
# What the router tells apart: rows on the right scale, rows of 8 bits, and exchanged ones.
ROUTES = {
    "clean": 0,
    "missing": 0,
    "typed_twice": 0,
    "noise": 0,
    "eight_bit": 1,
    "eight_bit_missing": 1,
    "exchanged": 2,
}
# Another scanner is put in: its driver writes 8 bits, then loses values, then turns the page.
SCANNER = Scenario.of("scanner", 1_000, ("clean", "eight_bit", "eight_bit_missing", "missing", "exchanged", "clean"))
_SOURCE = "trained on the train split of Letter Recognition (UCI machine learning repository, D. Slate)"
_LICENCE = "MIT"
# Of the table as bytes, whichever form of it the package holds.
_TABLE_SHA256 = "82e6dacffae9580814e6f0255f4635b932f03be4ab66a26685dd34ee6de57799"


class Letter:
    """Printed letters, 26 classes."""

    name = "letter"
    description = "20,000 printed letters described by 16 measures, 26 classes; downloads 1 MB, builds in minutes"
    licence = "data CC-BY-4.0 (UCI machine learning repository); artifacts MIT"
    build_s = 56

    def build(self, directory: Path, *, seed: int, progress: Progress) -> None:
        """Fetch, train, export, quantise, check and write the bundle into an empty folder."""
        # Inside, because listing the tasks must not wait for torch and scikit-learn.
        from gnncompose.tasks.factory.classification import under_conditions, write_classification_task

        progress("fetch Letter Recognition")
        splits = split_rows(*fetch_letters(), seed)
        artifacts = list(_artifacts(splits["train"], splits["validation"], seed, progress))
        progress("write the bundle")
        write_classification_task(
            directory,
            name=self.name,
            domain="table",
            artifacts=artifacts,
            data=under_conditions(splits, CONDITIONS, seed),
            classes=CLASSES,
            scenarios=[SCANNER],
        )


def fetch_letters() -> tuple[np.ndarray, np.ndarray]:
    """Measures uint8[20000,16] and classes int64[20000], from the R package mlbench as Debian ships it.

    Raises:
        TaskError: The package cannot be had, or holds another table.
    """
    from gnncompose.tasks.cache import cache_directory
    from gnncompose.tasks.factory.download import Dataset

    cache, problems = cache_directory() / "downloads" / "letter", []
    for name, decode in _FORMS.items():
        dataset = Dataset(
            package="r-cran-mlbench",
            package_bytes=1_049_188,
            folder="usr/lib/R/site-library/mlbench/data",
            sha256={name: _TABLE_SHA256},
            decode=decode,
        )
        try:
            table = np.frombuffer(dataset.fetch(cache)[name], np.uint8).reshape(-1, 1 + len(COLUMNS))
        except TaskError as problem:
            problems.append(problem)
        else:
            return table[:, 1:], table[:, 0].astype(np.int64)
    raise problems[0]


def from_saved(content: bytes) -> bytes:
    """The table of letters from a file that R's `save` wrote: a byte for the class and 16 for the measures, row by row.

    Raises:
        ValueError: It is no such file.
    """
    import rdata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file does not say how its text is encoded; it is all ASCII
        try:
            read: Any = rdata.conversion.convert(rdata.parser.parse_data(content))
        except Exception as problem:  # a damaged file fails in many ways
            raise ValueError(f"it is no file of R ({problem})") from None
    # A file that was saved holds objects by name, one of a lazily loaded package's database is the object itself.
    table = read["LetterRecognition"] if isinstance(read, dict) else read
    classes = [CLASSES.index(letter) for letter in table["lettr"]]
    return np.column_stack([classes, *(table[name] for name in COLUMNS)]).astype(np.uint8).tobytes()


def from_database(content: bytes) -> bytes:
    """The same from a database of lazily loaded objects, which newer builds of the package hold.

    Such a database is one object after the other: four bytes that tell its size, and its serialised form packed by
    zlib.

    Raises:
        ValueError: It holds no letters.
    """
    while content:
        unpacker = zlib.decompressobj()
        try:
            found = unpacker.decompress(content[4:])
        except zlib.error as problem:
            raise ValueError(f"it is no database of R ({problem})") from None
        if b"xegvy" in found:
            return from_saved(found)
        content = unpacker.unused_data
    raise ValueError("it is no database that holds letters")


# What the package may hold: Debian 12 has the saved file.
_FORMS = {"LetterRecognition.rda": from_saved, "Rdata.rdb": from_database}


def split_rows(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, Split]:
    """Train, validation and test: disjoint rows in shuffled order."""
    order = np.random.default_rng(seed).permutation(len(y))
    ends = [VALIDATION_ROWS, VALIDATION_ROWS + TEST_ROWS]
    held, tested, kept = np.split(order, ends)
    return {
        name: Split(x[rows].astype(np.float32), y[rows])
        for name, rows in (("train", kept), ("validation", held), ("test", tested))
    }


def _artifacts(train: Split, validation: Split, seed: int, progress: Progress) -> Iterator[Artifact]:
    """All operators in catalog order; the first model is where searches start."""
    from gnncompose.tasks.factory import forests, networks, quantize, sklearn_models
    from gnncompose.tasks.factory.table_models import fit_router

    # Whole numbers tie, and where neighbours tie, which one is taken is not defined.
    untied = jitter(np.full(len(COLUMNS), 0.2))(validation.x, np.random.default_rng(seed))
    mean, deviation = train.x.mean(axis=0), train.x.std(axis=0)
    standard = (train.x - mean) / deviation
    for name, hidden in {"logistic": (), "mlp_s": (16,), "mlp_m": (48,)}.items():
        progress(f"train {name}")
        build = partial(networks.perceptron, len(COLUMNS), *hidden, classes=len(CLASSES))
        network = networks.train_classifier(
            build, standard, train.y, seed=seed, epochs=12, batch=128, learning_rate=5e-3
        )
        raw = networks.for_raw_rows(network, mean, deviation)
        family = "mlp" if hidden else "linear"
        artifact = networks.export_classifier(name, family, raw, validation.x, _SOURCE, _LICENCE, domain="table")
        yield artifact
    yield quantize.quantized(artifact, train.x[:512], validation.x, validation.y)
    for name, (family, classifier, rows) in _classifiers(seed).items():
        progress(f"train {name}")
        yield sklearn_models.fit_and_export(
            name, family, classifier, train.x[:rows], train.y[:rows], untied, _SOURCE, _LICENCE, domain="table"
        )
    for name, forest in _forests(seed).items():
        progress(f"train {name}")
        yield forests.fit_and_export_forest(name, forest, train.x, train.y, untied, _SOURCE, _LICENCE)
    yield from _transforms(train.x, seed)
    progress("train router")
    yield fit_router(train.x, CONDITIONS, ROUTES, untied, _SOURCE, _LICENCE, seed)


def _transforms(rows: np.ndarray, seed: int) -> list[Artifact]:
    from gnncompose.tasks.factory import columns
    from gnncompose.tasks.factory.imputers import imputers

    width = len(COLUMNS)
    return [
        *imputers(rows, donors=1_000, neighbours=5, seed=seed),
        columns.drop_outliers(rows.mean(axis=0), rows.std(axis=0)),
        columns.clip(np.zeros(width), np.full(width, float(HIGHEST))),
        columns.whole_numbers(width),
        columns.unit("four_bit", width, range(width), 17),
        columns.exchange(EXCHANGED),
    ]


def _classifiers(seed: int) -> dict[str, tuple[str, Classifier, int]]:
    """Untrained classifiers, each with its family and how many training rows it gets."""
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.tree import DecisionTreeClassifier

    from gnncompose.tasks.factory.estimators import lightgbm, svm, xgboost

    everything = 14_000
    return {
        "naive_bayes": ("bayes", GaussianNB(), everything),
        "qda": ("discriminant", QuadraticDiscriminantAnalysis(reg_param=0.01), everything),
        "tree": ("tree", DecisionTreeClassifier(random_state=seed), everything),
        "lightgbm_s": ("boosted", lightgbm(seed, 20, 15), everything),
        "lightgbm": ("boosted", lightgbm(seed, 60, 20), everything),
        "xgboost": ("boosted", xgboost(seed, 40, 5), everything),
        "svm_s": ("kernel", svm(seed, 10), 3_000),
        "svm": ("kernel", svm(seed, 10), everything),
        "neighbours": ("neighbours", KNeighborsClassifier(3), 3_000),
    }


def _forests(seed: int) -> dict[str, Forest]:
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

    return {
        "forest": RandomForestClassifier(60, min_samples_leaf=2, random_state=seed),
        "extra_trees": ExtraTreesClassifier(60, random_state=seed),
    }


TASK = Letter()
