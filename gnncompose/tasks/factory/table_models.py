"""The operators of tasks whose tables hold numbers and codes: models on rows as they come and on encoded features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from gnncompose.tasks.conditions import Condition
from gnncompose.tasks.factory import columns, networks, quantize
from gnncompose.tasks.factory.artifact import Artifact, run
from gnncompose.tasks.factory.classification import drawn_routes
from gnncompose.tasks.factory.estimators import lightgbm, svm, xgboost
from gnncompose.tasks.factory.forests import Forest, fit_and_export_forest
from gnncompose.tasks.factory.imputers import imputers
from gnncompose.tasks.factory.sklearn_models import Classifier, fit_and_export
from gnncompose.tasks.table_conditions import jitter
from gnncompose.tasks.task import Split

EPOCHS = 4
SVM_ROWS, NEIGHBOUR_ROWS = 4_000, 3_000
DONORS, IMPUTING_NEIGHBOURS = 1_000, 10


@dataclass(frozen=True, eq=False)
class TableModels:
    """Makes the operators of one task.

    Attributes:
        train: Training rows.
        validation: Validation rows.
        coded: Columns that hold codes; the others hold numbers.
        source: Provenance of the artifacts.
        licence: Their licence.
        seed: Decides training.
        progress: Told each step.
    """

    train: Split
    validation: Split
    coded: Sequence[int]
    source: str
    licence: str
    seed: int
    progress: Callable[[str], None]

    @property
    def _untied(self) -> np.ndarray:
        """Validation rows as exports are checked on; a value that equals a split's threshold may fall either way."""
        return self._near(self.validation.x, 0.01 * self.train.x.std(axis=0))

    def _near(self, rows: np.ndarray, deviations: np.ndarray) -> np.ndarray:
        return jitter(deviations)(rows, np.random.default_rng(self.seed))

    def operators(
        self, units: Sequence[Artifact], conditions: Mapping[str, Condition], routes: Mapping[str, int]
    ) -> list[Artifact]:
        """All operators in catalog order.

        Args:
            units: The transforms that only this task has.
            conditions: What the router sees, by name.
            routes: The branch by the condition's name; only these are seen.
        """
        rows = self.train.x
        return [
            *self.models(),
            *imputers(rows, donors=DONORS, neighbours=IMPUTING_NEIGHBOURS, seed=self.seed),
            columns.drop_outliers(rows.mean(axis=0), rows.std(axis=0)),
            columns.clip(rows.min(axis=0), rows.max(axis=0)),
            *units,
            self.router(conditions, routes),
        ]

    def models(self) -> Iterator[Artifact]:
        """All models, and the encoder that some read through; the first one is where searches start."""
        mean, deviation = self.train.x.mean(axis=0), self.train.x.std(axis=0)
        standard = Split((self.train.x - mean) / deviation, self.train.y)
        linear = networks.for_raw_rows(self._network(standard), mean, deviation)
        yield networks.export_classifier(
            "logistic_raw", "linear", linear, self.validation.x, self.source, self.licence, domain="table"
        )
        for name, (family, classifier) in _classifiers(self.seed).items():
            self.progress(f"train {name}")
            yield self._fitted(name, family, classifier, self.train, self._untied, "table")
        for name, forest in _forests(self.seed).items():
            self.progress(f"train {name}")
            yield fit_and_export_forest(
                name, forest, self.train.x, self.train.y, self._untied, self.source, self.licence
            )
        numbers = [i for i in range(len(mean)) if i not in self.coded]
        codes = {i: np.unique(self.train.x[:, i]) for i in self.coded}
        encoder = columns.one_hot(numbers, mean, deviation, codes)
        yield from self._on_features(
            Split(run(encoder, self.train.x), self.train.y), Split(run(encoder, self.validation.x), self.validation.y)
        )
        yield encoder

    def _on_features(self, train: Split, validation: Split) -> Iterator[Artifact]:
        for name, hidden in {"logistic": (), "mlp_s": (32,), "mlp_m": (128, 64)}.items():
            self.progress(f"train {name}")
            artifact = networks.export_classifier(
                name,
                "mlp" if hidden else "linear",
                self._network(train, *hidden),
                validation.x,
                self.source,
                self.licence,
                domain="features",
            )
            yield artifact
        yield quantize.quantized(artifact, train.x[:512], validation.x, validation.y)
        # Where equal rows have other classes, which of them is nearest is not defined: one of each is learnt.
        _, first = np.unique(train.x, axis=0, return_index=True)
        distinct = Split(train.x[np.sort(first)], train.y[np.sort(first)])
        near = self._near(validation.x, np.full(validation.x.shape[1], 0.01))
        for name, (family, classifier, rows) in _feature_classifiers(self.seed).items():
            self.progress(f"train {name}")
            few = Split(distinct.x[:rows], distinct.y[:rows])
            yield self._fitted(name, family, classifier, few, near, "features")

    def router(self, conditions: Mapping[str, Condition], routes: Mapping[str, int]) -> Artifact:
        """A router that tells groups of conditions apart; `routes` gives the branch by the condition's name."""
        self.progress("train router")
        return fit_router(self.train.x, conditions, routes, self._untied, self.source, self.licence, self.seed)

    def _network(self, rows: Split, *hidden: int) -> networks.Network:
        build = partial(networks.perceptron, rows.x.shape[1], *hidden, classes=int(rows.y.max()) + 1)
        return networks.train_classifier(build, rows.x, rows.y, seed=self.seed, epochs=EPOCHS, batch=128)

    def _fitted(
        self, name: str, family: str, classifier: Classifier, rows: Split, checked_on: np.ndarray, domain: str
    ) -> Artifact:
        return fit_and_export(
            name, family, classifier, rows.x, rows.y, checked_on, self.source, self.licence, domain=domain
        )


def fit_router(
    rows: np.ndarray,
    conditions: Mapping[str, Condition],
    routes: Mapping[str, int],
    checked_on: np.ndarray,
    source: str,
    licence: str,
    seed: int,
) -> Artifact:
    """A router of table rows that tells groups of conditions apart.

    Args:
        rows: Clean training rows.
        conditions: The conditions by name.
        routes: The branch by the condition's name; only these are seen.
        checked_on: Real rows on which the export must agree with what was trained.
        source: Provenance.
        licence: Its licence.
        seed: Decides training.

    Raises:
        ExportError: The export answers differently.
    """
    drawn, branches = drawn_routes(rows, conditions, routes, seed)
    return fit_and_export(
        "router", "boosted", lightgbm(seed, 20, 15), drawn, branches, checked_on, source, licence, "router", "table"
    )


def _classifiers(seed: int) -> dict[str, tuple[str, Classifier]]:
    """Untrained classifiers of rows as they come, with their family."""
    return {
        "naive_bayes": ("bayes", GaussianNB(var_smoothing=1e-3)),
        "tree": ("tree", DecisionTreeClassifier(max_depth=8, random_state=seed)),
        "lightgbm_s": ("boosted", lightgbm(seed, 20, 15)),
        "lightgbm": ("boosted", lightgbm(seed, 150, 31, 0.06)),
        "xgboost": ("boosted", xgboost(seed, 100, 5, 0.1)),
    }


def _forests(seed: int) -> dict[str, Forest]:
    return {
        "forest": RandomForestClassifier(60, min_samples_leaf=5, random_state=seed),
        "extra_trees": ExtraTreesClassifier(60, min_samples_leaf=5, random_state=seed),
    }


def _feature_classifiers(seed: int) -> dict[str, tuple[str, Classifier, int]]:
    """Untrained classifiers of features, each with its family and how many training rows it gets."""
    return {
        "svm": ("kernel", svm(seed, 1), SVM_ROWS),
        "neighbours": ("neighbours", KNeighborsClassifier(25), NEIGHBOUR_ROWS),
    }
