"""Finds the weights inside a serialized model, so that they are mapped and never copied.

Protobuf copies every byte field once when it parses and once more when it is read. For weights
that doubles the memory of a compilation, so the large `raw_data` fields of initializers are cut
out of the bytes that protobuf sees, and their position in the file is kept instead.

Source: protobuf wire format, https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH_OF_MODEL = 7
_INITIALIZER_OF_GRAPH = 5
_RAW_DATA_OF_TENSOR = 9
_LARGE = 4096


class WireError(ValueError):
    """The bytes are no protobuf message, or end in the middle of one."""


@dataclass(frozen=True)
class _Field:
    number: int
    start: int
    value: int
    end: int
    is_bytes: bool


@dataclass
class Skeleton:
    """A model without its large weights.

    Attributes:
        message: the serialized model; large initializers have no `raw_data`.
        spans: offset and length in the file of what was cut out, by index of the initializer.
    """

    message: bytes = b""
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)


def cut_weights(data: memoryview) -> Skeleton:
    """The model in `data` without its large weights.

    Raises:
        WireError: with the byte at which the message breaks off.
    """
    skeleton = Skeleton()
    model = bytearray()
    initializers = 0
    for found in _fields(data, 0, len(data)):
        if found.number != _GRAPH_OF_MODEL or not found.is_bytes:
            model += data[found.start : found.end]
            continue
        graph = bytearray()
        for inner in _fields(data, found.value, found.end):
            if inner.number != _INITIALIZER_OF_GRAPH or not inner.is_bytes:
                graph += data[inner.start : inner.end]
                continue
            tensor = _without_raw_data(data, inner, initializers, skeleton)
            graph += _bytes_field(_INITIALIZER_OF_GRAPH, tensor)
            initializers += 1
        model += _bytes_field(_GRAPH_OF_MODEL, graph)
    skeleton.message = bytes(model)
    return skeleton


def _without_raw_data(data: memoryview, tensor: _Field, index: int, skeleton: Skeleton) -> bytes:
    kept = bytearray()
    for found in _fields(data, tensor.value, tensor.end):
        size = found.end - found.value
        if found.number == _RAW_DATA_OF_TENSOR and found.is_bytes and size >= _LARGE:
            skeleton.spans[index] = (found.value, size)
            continue
        kept += data[found.start : found.end]
    return bytes(kept)


def _fields(data: memoryview, start: int, end: int) -> Iterator[_Field]:
    """The fields of the message in ``data[start:end]``."""
    at = start
    while at < end:
        tag, value = _varint(data, at, end)
        kind = tag & 7
        if kind == _VARINT:
            _, stop = _varint(data, value, end)
        elif kind == _BYTES:
            size, value = _varint(data, value, end)
            stop = value + size
        elif kind in (_FIXED64, _FIXED32):
            stop = value + (8 if kind == _FIXED64 else 4)
        else:
            raise WireError(f"byte {at} starts no field")
        if not tag >> 3:
            raise WireError(f"byte {at} starts no field")
        if stop > end:
            raise WireError(f"the field at byte {at} ends at {stop}, after the last byte {end}")
        yield _Field(tag >> 3, at, value, stop, kind == _BYTES)
        at = stop


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """The number at `at` and the position after it."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError(f"the number at byte {at} does not end")


def _bytes_field(number: int, payload: bytes | bytearray) -> bytes:
    head = bytearray()
    for value in (number << 3 | _BYTES, len(payload)):
        while value >= 0x80:
            head.append(value & 0x7F | 0x80)
            value >>= 7
        head.append(value)
    return bytes(head + payload)
