"""Bytes that each kernel's schedule moves between slow memory and a fast memory of given size."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, isqrt, prod

from dfcompiler.analysis.gpu_plans import loop_tile
from dfcompiler.analysis.tiling import Tile
from dfcompiler.ir.operators.fused import region_scope
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import TensorType

DEFAULT_TILE = Tile(mr=6, nr=64, kc=128, mc=384)
"""The tile of a product for which `tile-for-io` has chosen none (yet)."""

Types = tuple[TensorType, ...]


def moved_bytes(op: Op, types: Types, fast_bytes: int) -> int:
    """Bytes read and written by one run of an operator, no alias, whose types are concrete."""
    if op.kind in ("constant", "dim") and not op.type.shape and op.result.startswith("%"):
        return 0  # a number is part of the code
    return bytes_of(op.type) * _writes(op) + _reads(op, types, fast_bytes)


def bytes_of(tensor: TensorType) -> int:
    """Bytes of a concrete tensor as stored, without what keeps its rows apart."""
    return int(replace(tensor, layout=tensor.layout.unpadded()).stored_bytes)


def _writes(op: Op) -> int:
    in_place = op.kind == "index_copy" and op.result == op.inputs[0]
    return 0 if in_place else 1


def _reads(op: Op, types: Types, fast_bytes: int) -> int:
    match op.kind:
        case "matmul":
            return _matmul_reads(op, types[0], types[1], fast_bytes)
        case "attention":
            return _attention_reads(types, fast_bytes)
        case "fused":
            return _region_reads(op, types, fast_bytes)
        case "softmax" | "layer_norm" | "rms_norm":
            return _row_reads(op, types, fast_bytes)
    return _once_each(op, types)


def _once_each(op: Op, types: Types) -> int:
    """Every input read once, also one that stands twice among the inputs."""
    reads: dict[str, int] = {}
    for index, name in enumerate(op.inputs):
        reads[name] = max(reads.get(name, 0), operand_bytes(op, types, index))
    return sum(reads.values())


def operand_bytes(op: Op, types: Types, index: int) -> int:
    """Bytes of one operand that an operator touches, each counted once."""
    operand = types[index]
    if op.region:
        return _region_operand_bytes(op, types, op.inputs[index])
    match op.kind, index:
        case ("slice", 0) | ("gather", 0) | ("take_along", 0):
            picked = prod(map(int, op.type.shape)) * operand.dtype.bytes
            return picked if operand.encoding == op.type.encoding else bytes_of(operand)
        case ("index_copy", 0):
            return 0 if op.result == op.inputs[0] else bytes_of(operand)
        case ("index_copy", 2):
            # In place, the source's bytes are read once and written once.
            return bytes_of(operand) * (2 if op.result == op.inputs[0] else 1)
    return bytes_of(operand)


def _region_operand_bytes(op: Op, types: Types, name: str) -> int:
    """Bytes of one input that the operators of a region touch."""
    scope, touched = region_scope(op, types), 0
    for inner in op.region:
        if name in inner.inputs:
            inner_types = tuple(scope[n] for n in inner.inputs)
            positions = [i for i, n in enumerate(inner.inputs) if n == name]
            touched = max(touched, *(operand_bytes(inner, inner_types, i) for i in positions))
        scope[inner.result] = inner.type
    return touched


def _row_reads(op: Op, types: Types, fast_bytes: int) -> int:
    """Normalization of rows: one read when a row stays in fast memory, else two."""
    x, parameters = types[0], sum(map(bytes_of, types[1:]))
    axis = int(op.attr("axis", -1))
    row = int(x.shape[axis]) * x.dtype.bytes if x.shape else x.dtype.bytes
    passes = 1 if 2 * row + parameters <= fast_bytes else 2
    return passes * bytes_of(x) + parameters


def _matmul_reads(op: Op, a: TensorType, b: TensorType, fast_bytes: int) -> int:
    """Blocks of rows one after the other; every panel of B passes each, a slice of k at a time.

    A is read once where a block of it stays in fast memory, else once for each panel. B is read
    once where it stays beside a block, else once for each block. Where not even the sums of a
    block and two slices of a panel fit, the register tile decides: B is read for each of its rows,
    and sums go out and come back between slices. A B that is shared by the batch makes it more
    rows.
    """
    rows, inner, columns = int(a.shape[-2]), int(a.shape[-1]), int(b.shape[-1])
    batch = prod(map(int, op.type.shape[:-2]))
    shared = prod(map(int, b.shape[:-2]))
    if shared == 1:
        rows, batch = rows * batch, 1
    tile = loop_tile(op.attr("tile"), rows) if "tile" in op.attrs else DEFAULT_TILE
    blocks, panels = max(1, ceil(rows / tile.mc)), max(1, ceil(columns / tile.nr))
    steps = max(1, ceil(inner / tile.kc))
    block = ceil(ceil(rows / blocks) / tile.mr) * tile.mr if blocks > 1 else rows
    width = min(columns, tile.nr)
    a_bytes, b_bytes = rows * inner * a.dtype.bytes, bytes_of(b) // max(1, shared)
    block_bytes = block * inner * a.dtype.bytes
    sums = block * width * op.type.dtype.bytes
    slices = 2 * b_bytes // (panels * steps)
    if sums + slices > fast_bytes:
        outside = 2 * (steps - 1) * rows * columns * op.type.dtype.bytes
        return batch * (a_bytes * panels + b_bytes * ceil(rows / tile.mr) + outside)
    a_reads = 1 if block_bytes + sums + slices <= fast_bytes else panels
    b_reads = 1 if block_bytes + b_bytes <= fast_bytes else blocks
    return batch * (a_bytes * a_reads + b_bytes * b_reads)


def _attention_reads(types: Types, fast_bytes: int) -> int:
    """Queries outermost: keys and values stay in fast memory, or stream past blocks of queries."""
    q, k, v = types[:3]
    batch, heads, tokens, width = map(int, q.shape)
    kv_bytes = (bytes_of(k) + bytes_of(v)) // max(1, batch * int(k.shape[1]))
    mask = types[3] if len(types) == 4 else None
    mask_bytes = 0
    if mask is not None:
        shared = bytes_of(mask) <= fast_bytes // 2
        mask_bytes = bytes_of(mask) * (1 if shared else heads)
    if kv_bytes <= fast_bytes // 2:
        return bytes_of(q) + bytes_of(k) + bytes_of(v) + mask_bytes
    words = fast_bytes // q.dtype.bytes
    block_keys = max(1, isqrt(words) // 4)
    block_rows = max(1, (words - 2 * width * block_keys) // (2 * width + block_keys + 2))
    passes = ceil(tokens / block_rows)
    return bytes_of(q) + batch * heads * passes * kv_bytes + mask_bytes


def _region_reads(op: Op, types: Types, fast_bytes: int) -> int:
    """What the inner operators read of the region's inputs; inner values stay in fast memory."""
    scope, reads = region_scope(op, types), dict.fromkeys(op.inputs, 0)
    tile = {"tile": op.attr("tile")} if "tile" in op.attrs else {}
    for inner in op.region:
        inner_types = tuple(scope[name] for name in inner.inputs)
        heavy = inner.kind in ("matmul", "attention", "softmax", "layer_norm", "rms_norm")
        for index, name in enumerate(inner.inputs):
            if name in reads and not heavy:
                reads[name] = max(reads[name], operand_bytes(inner, inner_types, index))
        if heavy:
            total = _reads(inner.with_attrs(**tile), inner_types, fast_bytes)
            once = [operand_bytes(inner, inner_types, i) for i in range(len(inner_types))]
            repeated = total - sum(once)
            for name, size in zip(inner.inputs, once, strict=True):
                if name in reads:
                    reads[name] = max(reads[name], size)
            reads[op.inputs[0]] += max(0, repeated)
        scope[inner.result] = inner.type
    return sum(reads.values())
