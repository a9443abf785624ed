"""Fitting classifiers of scikit-learn, LightGBM and XGBoost, and exporting them to ONNX."""

from __future__ import annotations

import warnings
from typing import Any, Protocol, cast

import numpy as np
import onnx
from onnx import helper
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline

from gnncompose.catalog.operator import Kind
from gnncompose.tasks.factory.artifact import ML_DOMAIN, ML_OPSET, OPSET, Artifact, make_model, normalised, verify

# The newest that the converters of onnxmltools write; their nodes mean the same at this library's.
_BOOSTED_OPSET = 15


class Classifier(Protocol):
    """What the classifiers of scikit-learn, LightGBM and XGBoost have in common."""

    # The capital X is scikit-learn's own spelling.
    def fit(self, X: Any, y: Any) -> object:  # noqa: N803, ANN401
        """Learn from rows of features and their classes."""
        ...

    def predict_proba(self, X: Any) -> Any:  # noqa: N803, ANN401
        """Probabilities of the classes."""
        ...


def fit_and_export(
    name: str,
    family: str,
    classifier: Classifier,
    rows: np.ndarray,
    labels: np.ndarray,
    checked_on: np.ndarray,
    source: str,
    licence: str,
    kind: Kind = "model",
    domain: str = "image",
) -> Artifact:
    """Fit a classifier on flattened rows and export it as rows -> probs.

    Args:
        name: Name of the operator.
        family: Its family.
        classifier: An unfitted classifier that gives probabilities.
        rows: Training rows.
        labels: Their classes.
        checked_on: Real rows on which the export must agree with the classifier.
        source: Provenance of the artifact.
        licence: Its licence.
        kind: `model`, or `router`.
        domain: Domain of the rows, which is also the name of the input tensor.

    Raises:
        ExportError: The export answers differently.
    """
    with warnings.catch_warnings():
        # Converters and fits warn of their own future deprecations and of unconverged fits; neither is the user's.
        warnings.simplefilter("ignore")
        classifier.fit(rows.reshape(len(rows), -1), labels)
        if isinstance(classifier, KNeighborsClassifier):
            model = _neighbours(classifier, domain, rows.shape[1:])
        else:
            model = _as_operator(_convert(classifier, rows[0].size), domain, rows.shape[1:], len(set(labels)))
        artifact = Artifact(name, kind, model, "probs", family, source, licence, domain)
        verify(artifact, checked_on, np.asarray(classifier.predict_proba(checked_on.reshape(len(checked_on), -1))))
    return artifact


def _convert(classifier: Classifier, features: int) -> onnx.ModelProto:
    library = type(classifier).__module__.partition(".")[0]
    if library in ("lightgbm", "xgboost"):
        return _convert_boosted(classifier, library, features)
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    last = classifier[-1] if isinstance(classifier, Pipeline) else classifier
    converted = convert_sklearn(
        classifier,
        initial_types=[("features", FloatTensorType([None, features]))],
        options={id(last): {"zipmap": False}},
        target_opset={"": OPSET, ML_DOMAIN: ML_OPSET},
    )
    return cast(onnx.ModelProto, converted)


def _convert_boosted(classifier: Classifier, library: str, features: int) -> onnx.ModelProto:
    from onnxmltools import convert_lightgbm, convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    types = [("features", FloatTensorType([None, features]))]
    if library == "xgboost":
        converted = convert_xgboost(classifier, initial_types=types, target_opset=_BOOSTED_OPSET)
    else:
        converted = convert_lightgbm(classifier, initial_types=types, zipmap=False, target_opset=_BOOSTED_OPSET)
    return cast(onnx.ModelProto, converted)


def _as_operator(model: onnx.ModelProto, domain: str, shape: tuple[int, ...], classes: int) -> onnx.ModelProto:
    """The converted model with rows of any shape flattened in front, and only the probabilities as output."""
    graph = model.graph
    features, probabilities = graph.input[0].name, graph.output[-1].name
    flat = domain if len(shape) == 1 else f"{domain}_features"
    wanted, kept = {probabilities}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            renamed = onnx.NodeProto()
            renamed.CopyFrom(node)
            renamed.output[:] = ["probs" if o == probabilities else o for o in node.output]
            renamed.input[:] = [flat if i == features else i for i in node.input]
            wanted |= set(node.input)
            kept.append(renamed)
    if flat != domain:
        kept.append(helper.make_node("Flatten", [domain], [flat], axis=1))
    made = helper.make_graph(
        kept[::-1],
        "classifier",
        [helper.make_tensor_value_info(domain, onnx.TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("probs", onnx.TensorProto.FLOAT, ["N", classes])],
        [tensor for tensor in graph.initializer if tensor.name in wanted],
    )
    return normalised(helper.make_model(made))


def _neighbours(classifier: KNeighborsClassifier, domain: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """K nearest neighbours as one matrix product: an order of magnitude faster than the converter's scan.

    The squared distance less the query's own square, |t|^2 - 2 q.t, sorts the same way.
    """
    known = np.asarray(classifier._fit_X, np.float32)
    one_hot = np.eye(len(classifier.classes_), dtype=np.float32)[np.asarray(classifier._y)]
    constants = {
        "known": (-2 * known.T),
        "squares": (known**2).sum(axis=1),
        "answers": one_hot,
        "k": np.array([classifier.n_neighbors], np.int64),
        "axis": np.array([1], np.int64),
    }
    flat = domain if len(shape) == 1 else "features"
    nodes = [] if flat == domain else [helper.make_node("Flatten", [domain], [flat], axis=1)]
    nodes += [
        helper.make_node("Gemm", [flat, "known", "squares"], ["distances"]),
        helper.make_node("TopK", ["distances", "k"], ["nearest", "rows"], largest=0, axis=1),
        helper.make_node("Gather", ["answers", "rows"], ["votes"], axis=0),
        helper.make_node("ReduceMean", ["votes", "axis"], ["probs"], keepdims=0),
    ]
    return make_model("neighbours", nodes, {domain: ("N", *shape)}, {"probs": ("N", one_hot.shape[1])}, constants)
