"""What schemathesis must know of the protocol that OpenAPI has no words for; it reads this by SCHEMATHESIS_HOOKS."""

import json
import math
from collections.abc import Iterator
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation

HEADER = "Inference-Header-Content-Length"
NAME, DATATYPE, AXES, OUTPUT = "image", "FP32", (1, 8, 8), "probs"
MOST_ROWS = 1024


def binary_request(rows: int, is_binary: bool, fill: int) -> bytes:
    """JSON with bytes behind it."""
    raw = bytes([fill, 0, 0, 0]) * (rows * math.prod(AXES))
    tensor = {"name": NAME, "datatype": DATATYPE, "shape": [rows, *AXES], "parameters": {"binary_data_size": len(raw)}}
    outputs = [{"name": OUTPUT, "parameters": {"binary_data": is_binary}}]
    return json.dumps({"inputs": [tensor], "outputs": outputs}).encode() + raw


schemathesis.openapi.media_type(
    "application/octet-stream", st.builds(binary_request, st.integers(1, 64), st.booleans(), st.integers(0, 255))
)


@schemathesis.deserializer("application/octet-stream")
def tensors(context: Any, response: Any) -> Any:
    """The JSON before the bytes of an answer, whose sizes must add up."""
    (length,) = response.headers[HEADER.lower()]
    document, raw = json.loads(response.content[: int(length)]), response.content[int(length) :]
    (tensor,) = document["outputs"]
    assert tensor["parameters"]["binary_data_size"] == len(raw) == 4 * math.prod(tensor["shape"])
    return document


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Give a request as many values as its shape says, and its header the length of its JSON.

    Bad requests, too: what is wrong with them is to be something else. Schemathesis judges them anew behind this.
    """
    if case.meta is None or not isinstance(case.body, bytes | dict):
        return
    if not case.meta.is_negative_at(ParameterLocation.HEADER):
        case.headers.pop(HEADER, None)
        if isinstance(case.body, bytes) and b"]}" in case.body:
            case.headers[HEADER] = str(case.body.rindex(b"]}") + len(b"]}"))
    if isinstance(case.body, dict):
        case.body = fitted(case.body)


def fitted(body: dict[str, Any]) -> dict[str, Any]:
    """A request with as many values as its shape says, where it has a shape."""
    match body:
        case {"inputs": [{"shape": [*sizes], "data": [*values]} as tensor]} if all(map(_is_size, sizes)):
            shape = [int(size) for size in sizes]  # 1.0 is an integer to JSON Schema, and none to the server
            due, flat = math.prod(shape), [*_flat(values)] or [0.0]
            return body | {"inputs": [tensor | {"shape": shape, "data": (flat * due)[:due]}]}
    return body


def _is_size(size: object) -> bool:
    return isinstance(size, int | float) and size == int(size) and 1 <= size <= MOST_ROWS


def _flat(values: list[Any]) -> Iterator[Any]:
    for value in values:
        yield from _flat(value) if isinstance(value, list) else [value]
