"""Static 8-bit quantisation of artifacts, calibrated on training rows.

Static, not dynamic: dynamic quantisation takes its scale from the whole batch, so that a row's answer
would depend on the others.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from gnncompose.tasks.factory.artifact import Artifact, ExportError, accuracy, normalised


class _Rows(CalibrationDataReader):
    def __init__(self, port: str, images: np.ndarray, batch: int = 64) -> None:
        self._batches = iter([{port: images[i : i + batch]} for i in range(0, len(images), batch)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, or None."""
        return next(self._batches, None)


def quantized(
    artifact: Artifact,
    calibration: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    largest_drop: float = 0.02,
) -> Artifact:
    """The artifact with 8-bit weights and activations in QDQ form.

    Args:
        artifact: A float32 model.
        calibration: Training rows that fix the activations' ranges.
        images: Validation rows for the check.
        labels: Their classes.
        largest_drop: How much validation accuracy it may lose.

    Raises:
        ExportError: It loses more.
    """
    result = Artifact(
        f"{artifact.name}_int8",
        artifact.kind,
        normalised(_quantize(artifact.model, calibration)),
        artifact.output_domain,
        f"{artifact.family}_int8",
        f"{artifact.source}, quantised to 8 bits",
        artifact.licence,
        artifact.input_domain,
    )
    drop = accuracy([artifact], images, labels) - accuracy([result], images, labels)
    if drop > largest_drop:
        raise ExportError(f"{result.name}: loses {drop:.3f} of validation accuracy, above {largest_drop}")
    return result


def _quantize(model: onnx.ModelProto, calibration: np.ndarray) -> onnx.ModelProto:
    # The quantiser advises on every call to simplify the graph first; these graphs have nothing to simplify.
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "source.onnx"), Path(folder, "target.onnx")
            onnx.save(onnx.shape_inference.infer_shapes(model), source)
            quantize_static(
                source,
                target,
                _Rows(model.graph.input[0].name, calibration),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=["Conv", "Gemm", "MatMul", "MaxPool", "Relu", "Flatten"],
            )
            return onnx.load(target)
    finally:
        logging.disable(logging.NOTSET)
