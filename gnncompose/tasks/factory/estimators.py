"""Untrained classifiers with the options that make them repeat: one thread, a seed, no random order of sums."""

from __future__ import annotations

from typing import Any

from gnncompose.tasks.factory.sklearn_models import Classifier


def lightgbm(seed: int, trees: int, leaves: int, learning_rate: float = 0.1) -> Classifier:
    """Gradient-boosted trees of LightGBM.

    Args:
        seed: Of its random numbers.
        trees: Rounds of boosting; each grows a tree for every class, or one where there are two classes.
        leaves: Most leaves of a tree.
        learning_rate: By what each tree is shrunk.
    """
    from lightgbm import LGBMClassifier

    made: Any = LGBMClassifier(
        n_estimators=trees,
        num_leaves=leaves,
        learning_rate=learning_rate,
        random_state=seed,
        deterministic=True,
        force_row_wise=True,
        n_jobs=1,
        verbose=-1,
    )
    return made


def xgboost(seed: int, trees: int, depth: int, learning_rate: float = 0.3) -> Classifier:
    """Gradient-boosted trees of XGBoost.

    Args:
        seed: Of its random numbers.
        trees: Rounds of boosting; each grows a tree for every class, or one where there are two classes.
        depth: Most splits from root to leaf.
        learning_rate: By what each tree is shrunk.
    """
    from xgboost import XGBClassifier

    made: Any = XGBClassifier(
        n_estimators=trees,
        max_depth=depth,
        learning_rate=learning_rate,
        tree_method="hist",
        random_state=seed,
        n_jobs=1,
        verbosity=0,
    )
    return made


def svm(seed: int, cost: float, gamma: float | str = "scale") -> Classifier:
    """A support vector machine with a Gaussian kernel and Platt's probabilities.

    `probability` is deprecated, but the calibrated form that replaces it exports as hundreds of nodes, several times
    as slow.

    Args:
        seed: Of the folds that fit the probabilities.
        cost: Penalty of errors, `C` in scikit-learn.
        gamma: Width of the kernel.
    """
    from sklearn.svm import SVC

    options: dict[str, Any] = {"gamma": gamma, "probability": True, "random_state": seed}
    made: Any = SVC(C=cost, **options)
    return made
