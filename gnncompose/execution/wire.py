"""Messages between this process and one that runs strangers' artifacts.

Requests are pickled, since they come from our own code. Answers are not: they are JSON with raw arrays beside it, and
whatever they hold is checked before it is believed.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import numpy as np

LARGEST_ANSWER_BYTES = 4 << 30
LARGEST_HEAD_BYTES = 16 << 20
MOST_PARTS = 1 << 12
_LENGTH = struct.Struct("<Q")
_ARRAY, _BYTES, _TUPLE = "$array", "$bytes", "$tuple"


class WireError(Exception):
    """The other side sent what no message may hold."""


class ClosedError(WireError):
    """The other side ended."""


def send(
    connection: socket.socket, parts: Sequence[bytes | bytearray | memoryview], deadline: float | None = None
) -> None:
    """Send a message of several parts.

    Args:
        connection: Where to.
        parts: Contents, byte by byte.
        deadline: When to give up, by `time.monotonic`; None for never.

    Raises:
        TimeoutError: The deadline passed.
    """
    head = b"".join(_LENGTH.pack(n) for n in (len(parts), *(len(part) for part in parts)))
    for content in (head, *parts):
        _wait_until(connection, deadline)
        connection.sendall(content)


def receive(connection: socket.socket, deadline: float | None = None, limit: int | None = None) -> list[bytearray]:
    """Receive a message.

    Args:
        connection: From where.
        deadline: When to give up, by `time.monotonic`; None for never.
        limit: Most bytes that are accepted, the first part being short; None for any number.

    Raises:
        TimeoutError: The deadline passed.
        ClosedError: The other side ended.
        WireError: The message exceeds the limit.
    """
    (count,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, deadline))
    if limit is not None and count > MOST_PARTS:
        raise WireError(f"sent a message of {count} parts")
    lengths = [_LENGTH.unpack(_exactly(connection, _LENGTH.size, deadline))[0] for _ in range(count)]
    if limit is not None and (sum(lengths) > limit or sum(lengths[:1]) > LARGEST_HEAD_BYTES):
        raise WireError(f"sent {sum(lengths)} bytes, of which {sum(lengths[:1])} of text, which is too much")
    return [_exactly(connection, length, deadline) for length in lengths]


def _exactly(connection: socket.socket, count: int, deadline: float | None) -> bytearray:
    content = bytearray(count)
    view, got = memoryview(content), 0
    while got < count:
        _wait_until(connection, deadline)
        try:
            received = connection.recv_into(view[got:])
        except ConnectionError:
            received = 0
        if not received:
            raise ClosedError("closed its connection")
        got += received
    return content


def _wait_until(connection: socket.socket, deadline: float | None) -> None:
    """Let the next operation take until the deadline."""
    if deadline is not None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)


def encode_answer(value: object) -> list[bytes | memoryview]:
    """Plain data, arrays and bytes as the parts of a message.

    Raises:
        TypeError: The value holds something else.
    """
    buffers: list[bytes | memoryview] = []

    def plain(item: Any) -> Any:  # noqa: ANN401 - whatever a function of ours returns
        if item is None or isinstance(item, bool | int | float | str):
            return item
        if isinstance(item, np.generic):
            return item.item()
        if isinstance(item, bytes):
            buffers.append(item)
            return {_BYTES: len(buffers)}
        if isinstance(item, np.ndarray):
            array = np.ascontiguousarray(item.astype(str) if item.dtype == object else item)
            buffers.append(array.reshape(-1).view(np.uint8).data)
            return {_ARRAY: len(buffers), "dtype": array.dtype.str, "shape": list(item.shape)}
        if isinstance(item, tuple):
            return {_TUPLE: [plain(entry) for entry in item]}
        if isinstance(item, list):
            return [plain(entry) for entry in item]
        if isinstance(item, dict):
            return {str(key): plain(entry) for key, entry in item.items()}
        raise TypeError(f"an answer holds no {type(item).__name__}")

    head = json.dumps(plain(value)).encode()
    return [head, *buffers]


def decode_answer(parts: Sequence[bytearray]) -> Any:  # noqa: ANN401 - the inverse of `encode_answer`
    """What `encode_answer` was given; arrays are writable.

    Raises:
        WireError: The parts are no such message.
    """

    def rebuilt(item: Any) -> Any:  # noqa: ANN401
        if isinstance(item, list):
            return [rebuilt(entry) for entry in item]
        if not isinstance(item, dict):
            return item
        if _TUPLE in item:
            return tuple(rebuilt(entry) for entry in item[_TUPLE])
        if _BYTES in item:
            return bytes(parts[item[_BYTES]])
        if _ARRAY in item:
            dtype = np.dtype(item["dtype"])
            if dtype.kind not in "biufU":
                raise WireError(f"sent an array of {dtype}")
            return np.frombuffer(parts[item[_ARRAY]], dtype=dtype).reshape(item["shape"])
        return {key: rebuilt(entry) for key, entry in item.items()}

    try:
        return rebuilt(json.loads(bytes(parts[0])))
    except WireError:
        raise
    except Exception as problem:  # whatever is wrong with it, it is no answer
        raise WireError(f"sent no answer: {problem}") from None


def fits(value: object, hint: Any) -> bool:  # noqa: ANN401 - a type as an annotation states it
    """Whether a decoded answer is what a function says that it returns; parts that are not plain data are not read."""
    if hint is Any:
        return True
    origin, inner = get_origin(hint) or hint or NoneType, get_args(hint)
    if origin is UnionType:
        return any(fits(value, choice) for choice in inner)
    if not isinstance(value, (int, float) if origin is float else origin):
        return False
    if isinstance(value, tuple):
        return not inner or (len(inner) == len(value) and all(map(fits, value, inner)))
    if isinstance(value, list):
        return not inner or all(fits(entry, inner[0]) for entry in value)
    if isinstance(value, dict):
        return not inner or all(fits(entry, inner[1]) for entry in value.values())
    return True
