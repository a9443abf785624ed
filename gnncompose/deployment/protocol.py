"""The Open Inference Protocol, version 2, over REST: requests read, answers written, binary tensors included.

https://github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md) and, for tensors as bytes
behind the JSON, Triton's extension_binary_data.md. Both are followed as clients use them; what a request says is held
to the task's ports, so nothing but well-formed rows gets to an operator.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import chain
from typing import Any, NamedTuple, cast

import numpy as np
import orjson

from gnncompose.catalog.operator import Port
from gnncompose.errors import GnncomposeError

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "str": "BYTES",
}
KINDS = {"b": "b", "u": "iu", "i": "iu", "f": "iuf", "U": ""}
LENGTH = struct.Struct("<I")
BAD_REQUEST, TOO_LARGE = 400, 413
FIRST_ROW = "first_row"
HEAD_BYTES, NUMBER_BYTES = 1 << 16, 32  # of JSON: all but the numbers, and each number with what lies between
MOST_DIGITS = 18  # of a length that is told
REMEMBERED, REMEMBERED_BYTES = 256, 1024  # heads of requests: clients send the same one again and again


class RequestError(GnncomposeError):
    """A request that cannot be answered, by its sender's mistake.

    Attributes:
        status: HTTP status that says so.
    """

    def __init__(self, message: str, status: int = BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[RequestError], tuple[str, int]]:
        return type(self), (str(self), self.status)


@dataclass(frozen=True, eq=False)
class Signature:
    """What a server takes and gives.

    Attributes:
        name: The model's name in addresses and answers.
        input: The task's input.
        output: The task's output.
        most_rows: Rows of a request, at most.
        most_bytes: Size of a request, at most.
    """

    name: str
    input: Port
    output: Port
    most_rows: int = 1024
    most_bytes: int = 64 << 20

    @cached_property
    def item(self) -> np.dtype:
        """What the input's numbers are as bytes."""
        return np.dtype(self.input.type.dtype).newbyteorder("<")

    @cached_property
    def most_json_bytes(self) -> int:
        """Length of a request's JSON, at most: what is of use, since it takes up to thirty times the room once read."""
        sizes = self.input.type.axes[1:]
        if self.input.type.dtype == "str" or any(isinstance(size, str) for size in sizes):
            return self.most_bytes
        values = self.most_rows * math.prod(int(size) for size in sizes)
        return min(self.most_bytes, HEAD_BYTES + NUMBER_BYTES * values)

    def metadata(self, versions: Sequence[str]) -> dict[str, Any]:
        """What a client is told of the model."""
        return {
            "name": self.name,
            "versions": list(versions),
            "platform": "gnncompose_onnxruntime",
            "inputs": [_described(self.input)],
            "outputs": [_described(self.output)],
        }


def _described(port: Port) -> dict[str, Any]:
    shape = [axis if isinstance(axis, int) else -1 for axis in port.type.axes]
    return {"name": port.name, "datatype": DATATYPES[port.type.dtype], "shape": shape}


class Request(NamedTuple):
    """Rows to answer.

    Attributes:
        x: [rows, ...] of the input's type.
        id: What the client calls the request.
        binary: Whether the answer is to come as bytes behind the JSON.
    """

    x: np.ndarray
    id: str | None = None
    binary: bool = False


def read_request(body: bytes, header_length: str | None, signature: Signature) -> Request:
    """Read the body of a request.

    Args:
        body: JSON, with tensors as bytes behind it where `header_length` says how long the JSON is.
        header_length: The header `Inference-Header-Content-Length`, where there is one.
        signature: What is served.

    Raises:
        RequestError: It is malformed, or not of what is served.
    """
    if header_length is None:
        return _from_document(_document(body, signature), signature)
    end = _header_end(header_length, len(body))
    raw, head = memoryview(body)[end:], body[:end]
    if not len(raw):
        return _from_document(_document(head, signature), signature)
    asked = _remembered(head, signature) if end <= REMEMBERED_BYTES else _asked(head, signature)
    if asked.size != len(raw):
        raise RequestError(f"binary_data_size is {asked.size!r}, but {len(raw)} bytes follow the JSON")
    return Request(_from_bytes(raw, asked.shape, signature), asked.id, asked.binary)


class _Asked(NamedTuple):
    """What the JSON of a request says of the bytes behind it."""

    shape: tuple[int, ...]
    size: object
    id: str | None
    binary: bool


def _asked(head: bytes, signature: Signature) -> _Asked:
    document = _document(head, signature)
    tensor = _only_input(document, signature)
    size = _size(tensor, signature)
    if size is None:
        raise RequestError("bytes follow the JSON, but no input has a binary_data_size")
    shape = checked_shape(tensor.get("shape"), signature)
    return _Asked(shape, size, _id(document), _wants_binary(document, signature))


_remembered = lru_cache(REMEMBERED)(_asked)


def _from_document(document: dict[str, Any], signature: Signature) -> Request:
    """A request without bytes behind it."""
    tensor = _only_input(document, signature)
    size = _size(tensor, signature)
    if size is not None:
        raise RequestError(f"binary_data_size is {size!r}, but no bytes follow the JSON")
    x = _from_json(tensor.get("data"), tensor, signature)
    return Request(x, _id(document), _wants_binary(document, signature))


def _document(head: bytes, signature: Signature) -> dict[str, Any]:
    most = signature.most_json_bytes
    if len(head) > most:
        raise RequestError(f"the JSON has {len(head)} bytes; send at most {most}, or tensors as bytes", TOO_LARGE)
    try:
        document = orjson.loads(head)
    except ValueError as problem:
        raise RequestError(f"the request is not JSON: {problem}") from None
    if not isinstance(document, dict):
        raise RequestError('the request is to be a JSON object with "inputs"')
    return document


def _size(tensor: Mapping[str, Any], signature: Signature) -> object:
    return _mapping(tensor, "parameters", f'input "{signature.input.name}"').get("binary_data_size")


def _id(document: Mapping[str, Any]) -> str | None:
    name = document.get("id")
    if name is not None and not isinstance(name, str):
        raise RequestError('"id" is to be a string')
    return name


def _header_end(header_length: str, most: int) -> int:
    is_number = header_length.isascii() and header_length.isdecimal() and len(header_length) <= MOST_DIGITS
    if not is_number or int(header_length) > most:
        raise RequestError(f"Inference-Header-Content-Length is to be a number of at most {most}, the body's size")
    return int(header_length)


def _only_input(document: Mapping[str, Any], signature: Signature) -> dict[str, Any]:
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RequestError(f'"inputs" is to be a list with one tensor, "{signature.input.name}"')
    tensor = cast("dict[str, Any]", inputs[0])
    check_input(tensor.get("name"), tensor.get("datatype"), signature)
    return tensor


def check_input(name: object, datatype: object, signature: Signature) -> None:
    """Hold a tensor's name and datatype to the input's.

    Raises:
        RequestError: One is another.
    """
    port = signature.input
    if name != port.name:
        raise RequestError(f'the input is called "{port.name}", not {_shown(name)}')
    due = DATATYPES[port.type.dtype]
    if datatype != due:
        raise RequestError(f'input "{port.name}" has the datatype {due}, not {_shown(datatype)}')


def check_outputs(names: Sequence[object], signature: Signature) -> None:
    """Hold the names of outputs that are asked for to the one there is.

    Raises:
        RequestError: There is none of that name.
    """
    for name in names:
        if name != signature.output.name:
            raise RequestError(f'the output is called "{signature.output.name}"; there is none called {_shown(name)}')


def _wants_binary(document: Mapping[str, Any], signature: Signature) -> bool:
    wanted = _flag(document, "the request", "binary_data_output", default=False)
    outputs = document.get("outputs")
    if outputs is None:
        return wanted
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise RequestError('"outputs" is to be a list of objects')
    check_outputs([output.get("name") for output in outputs], signature)
    for output in outputs:
        wanted = _flag(output, "an output", "binary_data", wanted)
    return wanted


def _flag(document: Mapping[str, Any], where: str, key: str, default: bool) -> bool:
    found = _mapping(document, "parameters", where).get(key)
    if found is not None and not isinstance(found, bool):
        raise RequestError(f'the parameter "{key}" of {where} is to be true or false')
    return default if found is None else found


def _mapping(document: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = document.get(key)
    if found is not None and not isinstance(found, dict):
        raise RequestError(f'"{key}" of {where} is to be an object')
    return cast("dict[str, Any]", found or {})


def checked_shape(shape: object, signature: Signature) -> tuple[int, ...]:
    """The shape of a request's tensor, held to the input's.

    Raises:
        RequestError: It is none, another, or of too many rows.
    """
    port = signature.input
    axes = port.type.axes
    is_list = isinstance(shape, list | tuple) and all(type(size) is int and size >= 0 for size in shape)
    if not is_list:
        raise RequestError(f'"shape" of input "{port.name}" is to be a list of sizes')
    sizes = tuple(cast("Sequence[int]", shape))
    fits = len(sizes) == len(axes) and all(isinstance(a, str) or a == s for a, s in zip(axes, sizes, strict=True))
    if not fits or not all(sizes):
        shown = ",".join(str(axis) for axis in axes)
        raise RequestError(f'input "{port.name}" has the shape [{shown}], not {_shown(list(sizes))}')
    if sizes[0] > signature.most_rows:
        raise RequestError(f"{sizes[0]} rows are too many; send at most {signature.most_rows} at once", TOO_LARGE)
    if math.prod(sizes) * _item_bytes(port) > signature.most_bytes:
        raise RequestError(f"a tensor of {list(sizes)} is too large; send fewer rows at once", TOO_LARGE)
    return sizes


def _item_bytes(port: Port) -> int:
    return LENGTH.size if port.type.dtype == "str" else np.dtype(port.type.dtype).itemsize


def _from_json(data: object, tensor: Mapping[str, Any], signature: Signature) -> np.ndarray:
    """A tensor from numbers or strings, nested or flat; null is a missing number."""
    shape, port = checked_shape(tensor.get("shape"), signature), signature.input
    if not isinstance(data, list):
        raise RequestError(f'"data" of input "{port.name}" is to be a list')
    target = np.dtype(np.str_ if port.type.dtype == "str" else port.type.dtype)
    try:
        array = np.array(data, dtype=object if target.kind == "U" else None)
    except ValueError:
        raise RequestError(f'"data" of input "{port.name}" is nested unevenly') from None
    if target.kind == "f" and array.dtype.kind == "O":
        array = _with_missing(array)
    is_text = target.kind == "U" and all(type(value) is str for value in array.flat)
    is_mixed = array.dtype.kind in "iuf" and _has_flags(data, array.ndim)
    if is_mixed or (not is_text and array.dtype.kind not in KINDS[target.kind]):
        raise RequestError(f'"data" of input "{port.name}" is to hold nothing but {DATATYPES[port.type.dtype]}')
    if array.size != math.prod(shape):
        raise RequestError(f'"data" of input "{port.name}" has {array.size} values, not those of a {list(shape)}')
    if target.kind in "iu" and not _within(array, target):
        raise RequestError(f'"data" of input "{port.name}" has numbers beyond {DATATYPES[port.type.dtype]}')
    with np.errstate(over="ignore"):
        return (array if is_text else array.astype(target)).reshape(shape)


def _has_flags(data: list[Any], depth: int) -> bool:
    """Whether true or false is among values that are nested so deep: numpy takes them for numbers."""
    values: Iterable[Any] = data
    for _ in range(depth - 1):
        values = chain.from_iterable(values)
    return bool in map(type, values)


def _with_missing(array: np.ndarray) -> np.ndarray:
    """Numbers of which some are missing as such; whatever else is left as it is."""
    if all(value is None or type(value) in (int, float) for value in array.flat):
        return array.astype(np.float64)
    return array


def _within(array: np.ndarray, target: np.dtype) -> bool:
    bounds = np.iinfo(target)
    return int(array.min()) >= bounds.min and int(array.max()) <= bounds.max


def from_bytes(raw: bytes | memoryview, shape: object, signature: Signature) -> np.ndarray:
    """A tensor from its bytes: little-endian and row-major, each text behind its length in four bytes.

    Raises:
        RequestError: There are more or fewer than the shape wants, or they are no text.
    """
    return _from_bytes(raw, checked_shape(shape, signature), signature)


def _from_bytes(raw: bytes | memoryview, sizes: tuple[int, ...], signature: Signature) -> np.ndarray:
    port = signature.input
    if port.type.dtype == "str":
        texts = np.array([*_texts(memoryview(raw), port)], dtype=object)
        if len(texts) != math.prod(sizes):
            raise RequestError(f'input "{port.name}" has {len(texts)} texts, not those of a {list(sizes)}')
        return texts.reshape(sizes)
    due = math.prod(sizes) * signature.item.itemsize
    if len(raw) != due:
        raise RequestError(f'input "{port.name}" has {len(raw)} bytes; a {list(sizes)} of its datatype has {due}')
    array = np.frombuffer(raw, dtype=signature.item)
    if signature.item.kind == "b" and (array.view(np.uint8) > 1).any():
        raise RequestError(f'input "{port.name}" is to hold nothing but the bytes 0 and 1')
    return array.reshape(sizes)


def _texts(raw: memoryview, port: Port) -> Iterator[str]:
    at = 0
    while at < len(raw):
        if at + LENGTH.size > len(raw):
            raise RequestError(f'input "{port.name}" ends within the length of a text')
        (length,) = LENGTH.unpack_from(raw, at)
        at += LENGTH.size
        if at + length > len(raw):
            raise RequestError(f'input "{port.name}" ends within a text of {length} bytes')
        try:
            yield str(raw[at : at + length], "utf-8")
        except UnicodeDecodeError:
            raise RequestError(f'input "{port.name}" has a text that is not UTF-8') from None
        at += length


@cache
def _little_endian(dtype: np.dtype) -> np.dtype:
    return dtype.newbyteorder("<")


def to_bytes(array: np.ndarray) -> bytes:
    """A tensor as bytes, as `from_bytes` reads it."""
    if array.dtype.kind in "OU":
        encoded = [str(text).encode() for text in array.flat]
        return b"".join(LENGTH.pack(len(text)) + text for text in encoded)
    return np.ascontiguousarray(array, dtype=_little_endian(array.dtype)).tobytes()


def write_answer(
    answers: np.ndarray, version: str, row: int, request: Request, signature: Signature
) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON where bytes follow that.

    Args:
        answers: [rows, ...] of the output's type.
        version: Of the deployment that gave them.
        row: Number of the first row, which labels are told by later.
        request: What is answered.
        signature: What is served.
    """
    port = signature.output
    tensor: dict[str, Any] = {
        "name": port.name,
        "datatype": DATATYPES[port.type.dtype],
        "shape": list(answers.shape),
    }
    document: dict[str, Any] = {
        "model_name": signature.name,
        "model_version": version,
        "parameters": {FIRST_ROW: row},
        "outputs": [tensor],
    }
    if request.id is not None:
        document["id"] = request.id
    if not request.binary:
        flat = np.ascontiguousarray(answers).reshape(-1)
        tensor["data"] = flat.tolist() if flat.dtype.kind in "OU" or flat.dtype == np.float16 else flat
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), None
    content = to_bytes(answers)
    tensor["parameters"] = {"binary_data_size": len(content)}
    header = orjson.dumps(document)
    return header + content, len(header)


def _shown(value: object) -> str:
    """A value of the request in an error, not longer than a person reads."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
