"""What the builtin combiners compute, in numpy; rows first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gnncompose.catalog.operator import PortType
from gnncompose.catalog.text import text_confidence
from gnncompose.composition.tree import Node

Combine = Callable[[Sequence[np.ndarray]], np.ndarray]
Confidence = Callable[[np.ndarray], np.ndarray]


def combiner(node: Node) -> Combine:
    """The function of an ensemble node, from its inputs (each [rows, ...]) to its output."""
    match node.operator.builtin:
        case "mean":
            return _mean(len(node.inputs))
        case "weighted_mean":
            return _weighted_mean(normalised_weights(node))
        case "vote":
            return vote
        case "max_confidence":
            return most_confident(confidence_of(node.type))
        case other:
            raise AssertionError(f"no ensemble {other}")


def normalised_weights(node: Node) -> np.ndarray:
    """float32[inputs]: the weights of a `weighted_mean`, of sum 1."""
    weights = np.asarray(node.parameter("weights"), dtype=np.float64)
    return (weights / weights.sum()).astype(np.float32)


def threshold_of(node: Node) -> np.float32:
    """The confidence below which a cascade's rows go on; compared in float32, as merged models do."""
    value = node.parameter("threshold")
    assert not isinstance(value, tuple)
    return np.float32(value)


def confidence_of(kind: PortType) -> Confidence:
    """From predictions of that type [rows, ...] to the confidence of each row."""
    return text_confidence if kind.domain == "text" else largest_value


def largest_value(predictions: np.ndarray) -> np.ndarray:
    """[rows]: the largest value of each row, which is the confidence of probabilities."""
    return predictions.reshape(len(predictions), -1).max(axis=1)


def _mean(count: int) -> Combine:
    share = np.float32(1 / count)

    def mean(inputs: Sequence[np.ndarray]) -> np.ndarray:
        total = inputs[0] + inputs[1]
        for predictions in inputs[2:]:
            total += predictions
        total *= share
        return total

    return mean


def _weighted_mean(weights: np.ndarray) -> Combine:
    def weighted_mean(inputs: Sequence[np.ndarray]) -> np.ndarray:
        total = inputs[0] * weights[0]
        for predictions, weight in zip(inputs[1:], weights[1:], strict=True):
            total += predictions * weight
        return total

    return weighted_mean


def vote(inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Share of inputs whose argmax is the class; the lowest class wins a tie within an input."""
    votes = np.zeros_like(inputs[0])
    rows = np.arange(len(votes))
    for predictions in inputs:
        votes[rows, predictions.argmax(axis=1)] += 1
    votes *= np.float32(1 / len(inputs))
    return votes


def most_confident(confidence: Confidence) -> Combine:
    """Per row the input with the largest confidence; the first on a tie."""

    def max_confidence(inputs: Sequence[np.ndarray]) -> np.ndarray:
        best, most = inputs[0], confidence(inputs[0])
        for predictions in inputs[1:]:
            here = confidence(predictions)
            better = here > most
            most = np.where(better, here, most)
            best = np.where(better.reshape((-1,) + (1,) * (predictions.ndim - 1)), predictions, best)
        return best

    return max_confidence


def cascaded(node: Node, stages: Sequence[np.ndarray]) -> np.ndarray:
    """What a cascade node answers, from what each stage would answer on every row."""
    confidence, threshold = confidence_of(node.type), threshold_of(node)
    output = stages[-1]
    for answers in reversed(stages[:-1]):
        stays = confidence(answers) >= threshold
        output = np.where(stays.reshape((-1,) + (1,) * (answers.ndim - 1)), answers, output)
    return output
