"""Weights: packed into their kernels' layouts and written into one aligned, mappable file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dfcompiler.errors import InternalError
from dfcompiler.ir import Container, Layout, PhysicalAxis, Program, Role, TensorType
from dfcompiler.ir.stacked import parts_of

MAGIC = b"DFCWGT1\0"
HEADER_BYTES = 64
ALIGNMENT = 64
"""Bytes of a cache line and of the widest vector register."""
PAGE_ALIGNMENT = 4096
PAGE_ALIGNED_FROM = 1 << 20
"""Tensors of this many bytes begin on a page of their own."""
_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in the weights file.

    Attributes:
        offset: bytes from the start of the file.
        bytes: size, padding of the layout included.
        sha256: hash of these bytes.
    """

    name: str
    role: str
    type: TensorType
    offset: int
    bytes: int
    sha256: str


def pack(array: np.ndarray, layout: Layout) -> np.ndarray:
    """`array` in the physical order of `layout`, row-major; tiled axes are padded with zeros."""
    pieces = list(_pieces(array, layout))
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def write_weights(path: Path, program: Program) -> tuple[StoredTensor, ...]:
    """Writes the weights and initial persistent values of `program`, one chunk at a time.

    Equal tensors are stored once. The file starts with a magic number and the digest of its table.

    Raises:
        InternalError: if a weight has no data, or data that its type contradicts.
    """
    stored: list[StoredTensor] = []
    seen: dict[tuple[str, int], int] = {}
    with path.open("wb") as file:
        file.write(bytes(HEADER_BYTES))
        for container in _with_data(program):
            array = _checked(program, container)
            size = _physical_bytes(container.type)
            end = file.tell()
            offset = _aligned(end, size)
            file.seek(offset)
            digest = _write(file, _chunks(array, container.type.layout))
            if file.tell() - offset != size:
                raise InternalError(
                    f"@{container.name} packs to {file.tell() - offset} bytes; expected {size}"
                )
            first = seen.setdefault((digest, size), offset)
            if first != offset:
                file.truncate(end)
                file.seek(end)
            stored.append(
                StoredTensor(
                    container.name, container.role.value, container.type, first, size, digest
                )
            )
        file.truncate(_aligned(file.tell(), 0))
        file.seek(0)
        file.write(MAGIC + table_digest(stored))
    return tuple(stored)


def table_digest(stored: Iterable[StoredTensor]) -> bytes:
    """32 bytes that stand for names, types and places, so that a foreign file is recognised."""
    rows = (f"{t.name}\0{t.role}\0{t.type}\0{t.offset}\0{t.bytes}\n" for t in stored)
    return hashlib.sha256("".join(rows).encode()).digest()


def _with_data(program: Program) -> Iterator[Container]:
    for container in program.containers:
        if container.role is Role.WEIGHT and container.name not in program.data:
            raise InternalError(f"the weight @{container.name} has no data")
        if container.role is Role.WEIGHT or (
            container.role is Role.PERSIST and container.name in program.data
        ):
            yield container


def _checked(program: Program, container: Container) -> np.ndarray:
    array = program.data[container.name]
    declared = container.type
    if array.dtype != declared.dtype.numpy or array.shape != declared.shape:
        raise InternalError(
            f"the data of @{container.name} is {array.dtype}{list(array.shape)}; "
            f"expected {declared}"
        )
    return array


def _physical_bytes(type: TensorType) -> int:  # noqa: A002
    size = type.stored_bytes
    if not isinstance(size, int):
        raise InternalError(f"a stored tensor has the symbolic size {size}; expected an integer")
    return size


def _aligned(offset: int, size: int) -> int:
    alignment = PAGE_ALIGNMENT if size >= PAGE_ALIGNED_FROM else ALIGNMENT
    return -(-offset // alignment) * alignment


def _write(file: BinaryIO, chunks: Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        data = chunk.reshape(-1).view(np.uint8).data
        digest.update(data)
        file.write(data)
    return digest.hexdigest()


def _chunks(array: np.ndarray, layout: Layout) -> Iterator[np.ndarray]:
    """The packed bytes in order, in pieces that keep the memory needed small."""
    limit = max(1, _CHUNK_BYTES // array.dtype.itemsize)
    parts = parts_of(array)
    if parts is None:
        yield from _pieces(array, layout, limit)
        return
    if layout.order and layout.order[0] != PhysicalAxis(0):
        yield from _pieces(np.asarray(array), layout, limit)
        return
    one = Layout(tuple(replace(axis, axis=axis.axis - 1) for axis in layout.order[1:]))
    for part in parts:
        yield from _pieces(part, one, limit)


def _pieces(array: np.ndarray, layout: Layout, limit: int = 0) -> Iterator[np.ndarray]:
    """Pieces along the outermost physical axis, of about `limit` elements; 0 gives one piece."""
    if array.ndim == 0 or array.size == 0:
        yield np.ascontiguousarray(array.reshape(-1) if array.ndim == 0 else array)
        return
    axis, tile = 0, 1
    if layout.order:
        outer = layout.order[0]
        axis, tile = outer.axis, 1 if outer.inner else outer.tile or 1
        if outer.inner:
            limit = 0
    extent = array.shape[axis]
    per_index = max(1, array.size // extent)
    step = max(tile, limit // per_index // tile * tile) if limit else extent
    index: list[slice] = [slice(None)] * array.ndim
    for start in range(0, extent, step):
        index[axis] = slice(start, start + step)
        yield _packed(array[tuple(index)], layout)


def _packed(array: np.ndarray, layout: Layout) -> np.ndarray:
    if layout.is_row_major:
        return np.ascontiguousarray(array)
    tiles = {a.axis: a.tile for a in layout.order if a.tile}
    padding = [(0, -size % tiles.get(axis, 1)) for axis, size in enumerate(array.shape)]
    if any(after for _, after in padding):
        array = np.pad(array, padding)
    shape: list[int] = []
    position: dict[tuple[int, bool], int] = {}
    for axis, size in enumerate(array.shape):
        position[axis, False] = len(shape)
        if axis in tiles:
            position[axis, True] = len(shape) + 1
            shape += [size // tiles[axis], tiles[axis]]
        else:
            shape.append(size)
    order = [position[a.axis, a.inner] for a in layout.order]
    if sorted(order) != list(range(len(shape))):
        raise InternalError(f"the layout {layout} does not walk every axis of {array.shape} once")
    return np.ascontiguousarray(array.reshape(shape).transpose(order))
