"""Weights: packed into their kernels' layouts and written into one aligned, mappable file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dfcompiler.codegen.process import go_on
from dfcompiler.codegen.stream import HashedFile
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
    """

    name: str
    role: str
    type: TensorType
    offset: int
    bytes: int


@dataclass(frozen=True)
class WeightsTable:
    """What a file holds: its tensors in the program's order, and its size."""

    tensors: tuple[StoredTensor, ...]
    bytes: int


@dataclass(frozen=True)
class WeightsFile(WeightsTable):
    """What was written, and its hash."""

    sha256: str


def pack(array: np.ndarray, layout: Layout) -> np.ndarray:
    """`array` in the physical order of `layout`, row-major; tiled axes are padded with zeros."""
    pieces = list(_pieces(array, layout))
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def weights_table(program: Program) -> WeightsTable:
    """What `write_weights` will write; known at once, where writing takes its time.

    Raises:
        InternalError: if a weight has no data, or data that its type contradicts.
    """
    tensors, _ = _table(program)
    return WeightsTable(tensors, _file_bytes(tensors))


def write_weights(path: Path, program: Program) -> WeightsFile:
    """Writes the weights and initial persistent values of `program`, one chunk at a time.

    Equal tensors are stored once. The file starts with a magic number and the digest of its table.
    While one chunk is packed, those before it are written and hashed.

    Raises:
        InternalError: if a weight has no data, or data that its type contradicts.
    """
    tensors, arrays = _table(program)
    with HashedFile(path, _file_bytes(tensors)) as stream:
        stream.append(np.frombuffer(MAGIC + table_digest(tensors), np.uint8))
        for tensor, array in arrays:
            stream.pad(tensor.offset)
            for chunk in _chunks(array, tensor.type.layout):
                go_on()
                stream.append(_bytes_of(chunk))
            if stream.bytes - tensor.offset != tensor.bytes:
                found = stream.bytes - tensor.offset
                raise InternalError(
                    f"@{tensor.name} packs to {found} bytes; expected {tensor.bytes}"
                )
        stream.pad(max(HEADER_BYTES, _aligned(stream.bytes, 0)))
    return WeightsFile(tensors, stream.bytes, stream.sha256())


def _file_bytes(tensors: Iterable[StoredTensor]) -> int:
    end = max((t.offset + t.bytes for t in tensors), default=HEADER_BYTES)
    return _aligned(end, 0)


def _table(
    program: Program,
) -> tuple[tuple[StoredTensor, ...], list[tuple[StoredTensor, np.ndarray]]]:
    """Where every tensor lies, and those that are written, in their order."""
    stored: list[StoredTensor] = []
    written: list[tuple[StoredTensor, np.ndarray]] = []
    same: dict[tuple[object, ...], list[tuple[StoredTensor, np.ndarray]]] = {}
    end = HEADER_BYTES
    for container in _with_data(program):
        array = _checked(program, container)
        size = _physical_bytes(container.type)
        candidates = same.setdefault((container.type.layout, *_sample(array)), [])
        first = next((t.offset for t, other in candidates if _equal(array, other)), None)
        offset = _aligned(end, size) if first is None else first
        tensor = StoredTensor(container.name, container.role.value, container.type, offset, size)
        stored.append(tensor)
        if first is None:
            end = offset + size
            written.append((tensor, array))
            candidates.append((tensor, array))
    return tuple(stored), written


def _sample(array: np.ndarray) -> tuple[object, ...]:
    """What equal arrays have in common, and few others."""
    first = (parts_of(array) or (array,))[0]
    few = np.ascontiguousarray(first[tuple(slice(0, 8) for _ in first.shape)])
    return array.shape, array.dtype.str, few.tobytes()


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of one shape and dtype have the same bytes."""
    ours, theirs = parts_of(a) or (a,), parts_of(b) or (b,)
    if len(ours) != len(theirs):
        return False
    pairs = zip(ours, theirs, strict=True)
    return all(x is y or np.array_equal(_bytes_of(x), _bytes_of(y)) for x, y in pairs)


def _bytes_of(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


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
