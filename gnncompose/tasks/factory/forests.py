"""Fitting scikit-learn's forests on tables and writing them as one ONNX node.

The usual converter writes a vote for every class into every leaf, most of them 0, one by one in Python: a forest of
100 trees for 26 classes took a minute and 140 MB. Without the zeros it takes a second and a tenth of that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from gnncompose.tasks.factory.artifact import ML_DOMAIN, Artifact, make_model, verify

Forest = RandomForestClassifier | ExtraTreesClassifier


def fit_and_export_forest(
    name: str,
    forest: Forest,
    rows: np.ndarray,
    labels: np.ndarray,
    checked_on: np.ndarray,
    source: str,
    licence: str,
) -> Artifact:
    """Fit a forest and export it as a model table -> probs.

    Args:
        name: Name of the operator.
        forest: Unfitted.
        rows: [rows, columns], training rows.
        labels: Their classes, numbered from 0.
        checked_on: Real rows on which the export must agree with the forest.
        source: Provenance of the artifact.
        licence: Its licence.

    Raises:
        ExportError: The export answers differently.
    """
    forest.fit(rows, labels)
    node = helper.make_node(
        "TreeEnsembleClassifier", ["table"], ["label", "probs"], domain=ML_DOMAIN, **_attributes(forest)
    )
    shapes = {"table": ("N", rows.shape[1])}, {"probs": ("N", len(forest.classes_))}
    artifact = Artifact(
        name, "model", make_model(name, [node], *shapes, {}), "probs", "forest", source, licence, "table"
    )
    verify(artifact, checked_on, np.asarray(forest.predict_proba(checked_on)))
    return artifact


def _attributes(forest: Forest) -> dict[str, Any]:
    """Nodes and votes of all trees as the lists that the ONNX operator takes."""
    parts = [_tree(number, member.tree_, len(forest.estimators_)) for number, member in enumerate(forest.estimators_)]
    joined = {key: np.concatenate([part[key] for part in parts]).tolist() for key in parts[0]}
    joined["nodes_modes"] = ["LEAF" if leaf else "BRANCH_LEQ" for leaf in joined.pop("is_leaf")]
    return {**joined, "classlabels_int64s": list(range(len(forest.classes_))), "post_transform": "NONE"}


def _tree(number: int, tree: Any, trees: int) -> dict[str, np.ndarray]:  # noqa: ANN401 - scikit-learn's, untyped
    count = tree.node_count
    leaf = tree.children_left < 0
    votes = tree.value[:, 0, :]
    shares = votes / votes.sum(axis=1, keepdims=True) / trees
    # Of two classes ONNX Runtime takes a leaf with one vote for a vote against the other class, too.
    votes_count = (shares > 0) | (shares.shape[1] == 2)
    voting, classes = np.nonzero(votes_count & leaf[:, None])
    return {
        "is_leaf": leaf,
        "nodes_treeids": np.full(count, number),
        "nodes_nodeids": np.arange(count),
        "nodes_featureids": np.where(leaf, 0, tree.feature),
        "nodes_values": np.where(leaf, 0, _rounded_down(tree.threshold)),
        "nodes_truenodeids": np.where(leaf, 0, tree.children_left),
        "nodes_falsenodeids": np.where(leaf, 0, tree.children_right),
        "class_treeids": np.full(len(voting), number),
        "class_nodeids": voting,
        "class_ids": classes,
        "class_weights": shares[voting, classes],
    }


def _rounded_down(thresholds: np.ndarray) -> np.ndarray:
    """The largest float32 not above each threshold: no float32 value lies between, so every branch stays the same."""
    narrow = thresholds.astype(np.float32)
    return np.where(narrow > thresholds, np.nextafter(narrow, np.float32(-np.inf)), narrow)
