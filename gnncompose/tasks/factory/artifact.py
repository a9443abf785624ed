"""A finished operator: an ONNX model with what its catalog entry says about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from gnncompose.catalog.operator import Kind, Parameter

# One version of everything: merging artifacts into one file fails where these differ.
OPSET = 18
ML_OPSET = 3
IR_VERSION = 10
ML_DOMAIN = "ai.onnx.ml"


class ExportError(Exception):
    """An exported model does not answer like the model it was made from: a fault of this library or of a converter."""


@dataclass(frozen=True, eq=False)
class Artifact:
    """One operator of a bundle to be written.

    Attributes:
        name: Its name in the catalog.
        kind: `transform`, `model` or `router`.
        model: The graph; inputs that are no parameter are data ports.
        output_domain: Domain of its one output.
        family: What it is made of, as in `cnn` or `trees`.
        source: Where it comes from.
        licence: Under which licence it may be used.
        input_domain: Domain of its data inputs.
        parameters: Its runtime parameters: scalar inputs of the graph.
    """

    name: str
    kind: Kind
    model: onnx.ModelProto
    output_domain: str
    family: str
    source: str
    licence: str
    input_domain: str = "image"
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def make_model(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, np.ndarray],
) -> onnx.ModelProto:
    """A checked float32 model from its nodes.

    Args:
        name: Name of the graph.
        nodes: Its nodes in topological order.
        inputs: Input names with their axes.
        outputs: Output names with their axes.
        constants: Initializers by name.
    """
    graph = helper.make_graph(
        list(nodes),
        name,
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(axes)) for n, axes in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(axes)) for n, axes in outputs.items()],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(array), n) for n, array in constants.items()],
    )
    return normalised(helper.make_model(graph))


def normalised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with this library's versions, and without what differs between builds: producer, docs, metadata.

    Raises:
        onnx.checker.ValidationError: The model is not valid at these versions.
    """
    clean = onnx.ModelProto()
    clean.graph.CopyFrom(model.graph)
    clean.ir_version = IR_VERSION
    clean.opset_import.append(helper.make_opsetid("", OPSET))
    if any(node.domain == ML_DOMAIN for node in clean.graph.node):
        clean.opset_import.append(helper.make_opsetid(ML_DOMAIN, ML_OPSET))
    for part in (clean.graph, *clean.graph.node):
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.checker.check_model(clean, full_check=True)
    return clean


def session(model: onnx.ModelProto | bytes) -> ort.InferenceSession:
    """An inference session on one thread that does not spin."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(artifact: Artifact, images: np.ndarray, batch: int = 500) -> np.ndarray:
    """Its output on the rows, parameters at their defaults."""
    opened = session(artifact.model)
    port = next(i.name for i in opened.get_inputs() if i.name not in artifact.parameters)
    fixed = {name: np.array(p.default, np.float32) for name, p in artifact.parameters.items()}
    starts = range(0, len(images), batch)
    return np.concatenate([np.asarray(opened.run(None, {port: images[i : i + batch], **fixed})[0]) for i in starts])


def verify(artifact: Artifact, images: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> float:
    """Compare the artifact with its source model on real rows.

    Args:
        artifact: What was exported.
        images: Real rows.
        expected: The source model's answers to them.
        tolerance: Largest absolute deviation allowed.

    Returns:
        The largest absolute deviation.

    Raises:
        ExportError: It is above the tolerance.
    """
    deviation = float(np.abs(run(artifact, images) - expected).max())
    if not deviation <= tolerance:
        raise ExportError(f"{artifact.name}: deviates by {deviation:.2e} from its source model, above {tolerance:.0e}")
    return deviation


def accuracy(artifacts: Iterable[Artifact], images: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows that a chain of artifacts answers right; its last one is a model."""
    for artifact in artifacts:
        images = run(artifact, images)
    return float((images.argmax(axis=1) == labels).mean())
