"""Seeded mutations of ONNX files: of bytes, of protobuf's own lengths and tags, and of what the messages say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message
from hostile_graphs import varint

Mutate = Callable[[bytes, np.random.Generator, Sequence[bytes]], bytes]
WILD_INTS = (0, 1, -1, 2, 7, 127, 128, 2**31 - 1, -(2**31), 2**32, 2**62, 2**63 - 1, -(2**63))
WILD_FLOATS = (0.0, -1.0, 1e38, float("nan"), float("inf"), float("-inf"))
WILD_TEXTS = ("", "x", "image", "probs", "out", "ai.onnx.ml", "com.microsoft", "com.stranger", "If", "Loop", "a" * 5000)
DEEPEST = 8
# Where there is something to change; the rest is names and versions.
LIKELY = {"graph": 30, "node": 6, "attribute": 6, "initializer": 4, "g": 6, "t": 4}


def _span(content: bytes, generator: np.random.Generator, longest: int = 64) -> tuple[int, int]:
    start = int(generator.integers(len(content)))
    return start, min(len(content), start + 1 + int(generator.integers(longest)))


def flip_bits(content: bytes, generator: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """One to sixteen bits anywhere."""
    changed = bytearray(content)
    for _ in range(int(generator.integers(1, 17))):
        changed[int(generator.integers(len(changed)))] ^= 1 << int(generator.integers(8))
    return bytes(changed)


def flip_head(content: bytes, generator: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """Bits among the first two hundred bytes and the last, where fewer of them are weights."""
    head = flip_bits(content[:200], generator, others)
    return head + content[200:-200] + (flip_bits(content[-200:], generator, others) if len(content) > 400 else b"")


def copy_block(content: bytes, generator: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """A block over another place."""
    start, end = _span(content, generator, 512)
    place = int(generator.integers(len(content)))
    return (content[:place] + content[start:end] + content[place + end - start :])[: len(content)]


def insert_block(content: bytes, generator: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """A block of this file or another between two bytes."""
    source = others[int(generator.integers(len(others)))]
    start, end = _span(source, generator, 512)
    place = int(generator.integers(len(content)))
    return content[:place] + source[start:end] + content[place:]


def drop_block(content: bytes, generator: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """All but a block."""
    start, end = _span(content, generator, 512)
    return content[:start] + content[end:]


def truncate(content: bytes, generator: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """The beginning."""
    return content[: int(generator.integers(len(content)))]


def splice(content: bytes, generator: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """The beginning of this file and the end of another, which protobuf may join."""
    other = others[int(generator.integers(len(others)))]
    return content[: int(generator.integers(len(content)))] + other[int(generator.integers(len(other))) :]


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _fields(content: bytes, start: int, end: int) -> list[tuple[int, int, int, int]]:
    """Wire type, place of the value or length, place behind it, and end of each field of a message."""
    found, place = [], start
    while place < end:
        tag, value = _read_varint(content, place)
        number, after = _read_varint(content, value) if tag & 7 in (0, 2) else (0, value)
        last = {0: after, 1: value + 8, 2: after + number, 5: value + 4}[tag & 7]
        if last > end:
            raise IndexError
        found.append((tag & 7, value, after, last))
        place = last
    return found


def edit_length(content: bytes, generator: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """Another length or number at a place where protobuf keeps one, at some depth."""
    start, end, chosen = 0, len(content), None
    for _ in range(int(generator.integers(1, DEEPEST))):
        try:
            fields = [entry for entry in _fields(content, start, end) if entry[0] in (0, 2)]
        except (IndexError, KeyError):
            break
        if not fields:
            break
        chosen = fields[int(generator.integers(len(fields)))]
        if chosen[0] == 0:
            break
        start, end = chosen[2], chosen[3]
    if chosen is None:
        return flip_bits(content, generator, others)
    _, value, after, _ = chosen
    old, _ = _read_varint(content, value)
    wild = [old + 1, max(old - 1, 0), old * 2, 0, 127, 2**31, 2**62, 2**64 - 1]
    return content[:value] + varint(wild[int(generator.integers(len(wild)))]) + content[after:]


def edit_structure(content: bytes, generator: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """One to three changes of what the model says; the file stays sound protobuf."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
        for _ in range(1 + int(generator.integers(4)) // 2):
            _edit(model, generator)
        return model.SerializeToString()
    except (DecodeError, EncodeError, ValueError, TypeError):
        return flip_bits(content, generator, others)


def _edit(message: Message, generator: np.random.Generator) -> None:
    for _ in range(DEEPEST):
        fields = message.ListFields()
        if not fields:
            return
        weights = np.array([LIKELY.get(field.name, 1) for field, _ in fields], dtype=float)
        field, value = fields[int(generator.choice(len(fields), p=weights / weights.sum()))]
        repeated = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        inner = field.type == FieldDescriptor.TYPE_MESSAGE
        if inner and generator.random() < 0.93:
            message = value[int(generator.integers(len(value)))] if repeated else value
        elif repeated:
            return _edit_list(message, field, value, generator)
        elif inner:
            return message.ClearField(field.name)
        else:
            return setattr(message, field.name, _wild(field, value, generator))
    return None


def _edit_list(message: Message, field: FieldDescriptor, values: Any, generator: np.random.Generator) -> None:
    kept, place = list(values), int(generator.integers(len(values)))
    match int(generator.integers(4)):
        case 0:
            del kept[place]
        case 1:
            kept.append(kept[place])
        case 2:
            other = int(generator.integers(len(kept)))
            kept[place], kept[other] = kept[other], kept[place]
        case _ if field.type != FieldDescriptor.TYPE_MESSAGE:
            kept[place] = _wild(field, kept[place], generator)
        case _:
            kept.insert(0, kept[place])
    if field.type == FieldDescriptor.TYPE_MESSAGE:  # the list owns its messages, which end with it
        copies = [type(entry).FromString(entry.SerializeToString()) for entry in kept]
        message.ClearField(field.name)
        getattr(message, field.name).extend(copies)
    else:
        message.ClearField(field.name)
        getattr(message, field.name).extend(kept)


def _wild(field: FieldDescriptor, value: Any, generator: np.random.Generator) -> Any:
    def pick(choices: Sequence[Any]) -> Any:
        return choices[int(generator.integers(len(choices)))]

    if isinstance(value, str):
        return pick((*WILD_TEXTS, value + "x", value[:-1]))
    if isinstance(value, bytes):
        return pick((b"", value[: len(value) // 2], value * 2, value + b"\0", bytes(len(value)), b"\xff" * len(value)))
    if isinstance(value, float):
        return float(pick((*WILD_FLOATS, value * 2)))
    number = int(pick((*WILD_INTS, value + 1, value - 1, value * 2)))
    if field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_ENUM):
        return int(np.int64(number).astype(np.int32)) if abs(number) < 2**63 else 0
    if field.type == FieldDescriptor.TYPE_UINT64:
        return number % 2**64
    return min(max(number, -(2**63)), 2**63 - 1)


# What says more is drawn more often.
MUTATIONS: Mapping[Mutate, int] = {
    flip_bits: 2,
    flip_head: 3,
    copy_block: 1,
    insert_block: 1,
    drop_block: 1,
    truncate: 1,
    splice: 1,
    edit_length: 3,
    edit_structure: 12,
}


def mutations(artifacts: Mapping[str, bytes], generator: np.random.Generator) -> Iterator[tuple[str, str, bytes]]:
    """Mutations without end: name of the artifact, name of the mutation, content."""
    names, contents = list(artifacts), list(artifacts.values())
    kinds = [kind for kind, weight in MUTATIONS.items() for _ in range(weight)]
    while True:
        name = names[int(generator.integers(len(names)))]
        kind = kinds[int(generator.integers(len(kinds)))]
        yield name, kind.__name__, kind(artifacts[name], generator, contents)
