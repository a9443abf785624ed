"""Linear classifiers on standardised inputs, folded into one matrix product and written as ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression, RidgeClassifier, RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from gnncompose.tasks.factory.artifact import Artifact, make_model, verify

# Features that hardly vary are not blown up: that would turn rounding into signal.
_SMALLEST_DEVIATION = 1e-3
_PENALTIES = np.logspace(-1, 5, 13)
_SHARPNESS = np.logspace(-1, 2, 61)
_FOLDS = 3


def logistic(
    name: str,
    domain: str,
    rows: np.ndarray,
    labels: np.ndarray,
    checked_on: np.ndarray,
    source: str,
    licence: str,
    strength: float = 0.1,
) -> Artifact:
    """Logistic regression as a model domain -> probs.

    Args:
        name: Name of the operator.
        domain: Domain and name of its input.
        rows: Training rows.
        labels: Their classes, numbered from 0.
        checked_on: Real rows on which the export must agree with scikit-learn.
        source: Provenance.
        licence: Its licence.
        strength: Inverse of the penalty.

    Raises:
        ExportError: The export answers differently.
    """
    flat, mean, deviation = _standardised(rows)
    fitted = LogisticRegression(C=strength, max_iter=1000).fit(flat, labels)
    classes = len(fitted.classes_)
    logits = _per_class(fitted.coef_, classes), _per_class(fitted.intercept_, classes)
    artifact = _export(name, domain, rows.shape[1:], *_unscaled(*logits, mean, deviation), "linear", source, licence)
    verify(artifact, checked_on, fitted.predict_proba((_flat(checked_on) - mean) / deviation))
    return artifact


def ridge(
    name: str,
    domain: str,
    rows: np.ndarray,
    labels: np.ndarray,
    checked_on: np.ndarray,
    source: str,
    licence: str,
) -> Artifact:
    """Ridge regression to the classes as a model domain -> probs; arguments as in `logistic`.

    The penalty is chosen by leave-one-out error, as is usual after ROCKET. Its answers are no probabilities:
    they go through a softmax whose sharpness gives the best likelihood in cross-validation.

    Raises:
        ExportError: The export answers differently.
    """
    flat, mean, deviation = _standardised(rows)
    fitted: Any = RidgeClassifierCV(_PENALTIES).fit(flat, labels)
    sharpness = _best_sharpness(flat, labels, float(fitted.alpha_))
    classes = len(fitted.classes_)
    logits = sharpness * _per_class(fitted.coef_, classes), sharpness * _per_class(fitted.intercept_, classes)
    artifact = _export(name, domain, rows.shape[1:], *_unscaled(*logits, mean, deviation), "ridge", source, licence)
    answers = fitted.decision_function((_flat(checked_on) - mean) / deviation)
    verify(artifact, checked_on, softmax(sharpness * _per_class(answers.T, classes).T, axis=1))
    return artifact


def _best_sharpness(flat: np.ndarray, labels: np.ndarray, penalty: float) -> float:
    """What to multiply the answers by before a softmax."""
    folds = StratifiedKFold(_FOLDS)
    answers = np.asarray(
        cross_val_predict(RidgeClassifier(penalty), flat, labels, cv=folds, method="decision_function")
    )
    logits = _per_class(answers.T, len(set(labels))).T
    likelihoods = [log_softmax(s * logits, axis=1)[np.arange(len(labels)), labels].mean() for s in _SHARPNESS]
    return float(_SHARPNESS[int(np.argmax(likelihoods))])


def _flat(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), -1).astype(np.float64)


def _standardised(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with mean 0 and deviation 1 in each column, that mean, and that deviation."""
    flat = _flat(rows)
    mean, deviation = flat.mean(axis=0), np.maximum(flat.std(axis=0), _SMALLEST_DEVIATION)
    return (flat - mean) / deviation, mean, deviation


def _per_class(values: np.ndarray, classes: int) -> np.ndarray:
    """A line per class; of two classes, scikit-learn gives only that of the second against the first."""
    if classes > 2:
        return values
    half = np.squeeze(values) / 2
    return np.stack([-half, half])


def _unscaled(
    coefficients: np.ndarray, intercepts: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and intercepts for rows that were not standardised."""
    coefficients = coefficients / deviation
    return coefficients, intercepts - coefficients @ mean


def _export(
    name: str,
    domain: str,
    shape: tuple[int, ...],
    coefficients: np.ndarray,
    intercepts: np.ndarray,
    family: str,
    source: str,
    licence: str,
) -> Artifact:
    flat = domain if len(shape) == 1 else "flat"
    nodes = [
        *([] if flat == domain else [helper.make_node("Flatten", [domain], [flat], axis=1)]),
        helper.make_node("Gemm", [flat, "weight", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probs"], axis=1),
    ]
    constants = {"weight": coefficients.T.astype(np.float32), "bias": intercepts.astype(np.float32)}
    model = make_model(name, nodes, {domain: ("N", *shape)}, {"probs": ("N", len(intercepts))}, constants)
    return Artifact(name, "model", model, "probs", family, source, licence, input_domain=domain)
