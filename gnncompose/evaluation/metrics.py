"""Metrics, of classes as scikit-learn defines them with its defaults, and scores: the same as higher-is-better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

from gnncompose.catalog.text import read_text
from gnncompose.errors import TaskError


@dataclass(frozen=True)
class Metric:
    """How outputs are compared with labels.

    Attributes:
        compute: From outputs [rows, ...] and labels [rows] to the metric's value.
        score: From the metric's value to the score, higher-is-better.
        value: From the score back to the metric's value.
    """

    compute: Callable[[np.ndarray, np.ndarray], float]
    score: Callable[[float], float] = lambda value: value
    value: Callable[[float], float] = lambda score: score


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose most probable class is the label."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def balanced_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean recall over the classes that occur among the labels."""
    hits = probabilities.argmax(axis=1) == labels
    return float(np.mean([hits[labels == label].mean() for label in np.unique(labels)]))


def f1_macro(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean F1 over the classes that occur among labels or predictions; 0 where a class is never right."""
    predicted = probabilities.argmax(axis=1)
    values: list[float] = []
    for label in np.union1d(labels, predicted):
        right = int(((predicted == label) & (labels == label)).sum())
        values.append(2 * right / (int((predicted == label).sum()) + int((labels == label).sum())))
    return float(np.mean(values))


def cer(text: np.ndarray, labels: np.ndarray) -> float:
    """Character error rate: edits (Levenshtein, 1966) that turn the texts into the labels, per character of these.

    Args:
        text: float32[rows, L, 2], as `catalog.text` lays it out.
        labels: Texts [rows].
    """
    edits = sum(Levenshtein.distance(read, str(label)) for read, label in zip(read_text(text), labels, strict=True))
    return edits / max(1, sum(len(str(label)) for label in labels))


def _one_less(value: float) -> float:
    """From an error rate, which may exceed 1, to a score, and back."""
    return max(0.0, 1.0 - value)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy),
    "balanced_accuracy": Metric(balanced_accuracy),
    "f1_macro": Metric(f1_macro),
    "cer": Metric(cer, score=_one_less, value=_one_less),
}


def find_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        TaskError: There is none.
    """
    if name not in METRICS:
        raise TaskError(f'task.yaml: metric: there is no metric "{name}"; choose one of {", ".join(METRICS)}')
    return METRICS[name]
