"""Which kernels of `kernels/cuda/gemm.cuh` a matrix product can need, and takes, in words."""

from __future__ import annotations

from typing import Any

import sympy

from dfcompiler.ir.program import Op, Role
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.nodes.matmul import Problem
from dfcompiler.lowering.symbolic import expression, is_static

_BYTES = {DType.F32: 4, DType.BF16: 2, DType.F16: 2}
# Rows up to which the kernels are a matrix-vector product, and tiles for few rows.
_VECTOR_ROWS, _FEW_ROWS = 8, 32


def kernels_of(context: Context, op: Op, operands: tuple[str, str], problem: Problem) -> str:
    """The kernels that an instance holds for a product, as C++ over the names in `gemm.h`.

    Args:
        context: the lowering.
        op: the product.
        operands: its values A and B.
        problem: its extents and strides.
    """
    chunk, b, rows = 16 // _BYTES[op.type.dtype], problem.strides["_b"], problem.rows
    strides = [s for group in _row_strides(problem).values() for s in group]
    aligned = (
        not _why_elements(problem, chunk)
        and all(_is_multiple(stride, chunk) for stride in strides)
        and all(_is_aligned(context, name, chunk) for name in operands)
    )
    limit = _VECTOR_ROWS if op.type.dtype is DType.F32 else _FEW_ROWS
    few = not is_static(rows) or int(rows) <= limit
    # A product of few rows of floats that is no matrix-vector one takes a tile for many.
    many = not is_static(rows) or int(rows) > limit
    many = many or (op.type.dtype is DType.F32 and not _is_vector(problem, chunk))
    either = 1 in (problem.columns, problem.depth)
    found = {
        "WIDTH": b[-1] == 1 or either,
        "DEPTH": b[-1] != 1 or either,
        "ELEMENTS": not aligned,
        "FEW": few,
        "MANY": many,
    }
    return " | ".join(f"dfc::cuda::{name}" for name, needed in found.items() if needed)


def _is_aligned(context: Context, name: str, chunk: int) -> bool:
    """Whether a value certainly begins at 16 bytes: callers may hand inputs in at any address."""
    container, _ = context.memory(name)
    roles = {c.name: c.role for c in context.program.containers}
    ours = roles.get(container) not in (Role.INPUT, Role.OUTPUT)
    return ours and _is_multiple(expression(context.place(name).offset), chunk)


def _is_multiple(value: Any, chunk: int) -> bool:
    """Whether an extent is a multiple of `chunk`, whatever its symbols stand for."""
    return bool(sympy.Mod(value, chunk) == 0)


def record_of(op: Op, epilogue: str, problem: Problem, implementation: str) -> KernelRecord:
    """Which kernel a product takes, and why, as far as extents and strides tell.

    Args:
        op: the product.
        epilogue: what is fused, with a semicolon in front, or nothing.
        problem: its extents and strides.
        implementation: the expansion.
    """
    dtype = op.type.dtype.value
    if implementation != "native":
        return KernelRecord(op, f"{implementation} gemm {dtype}", f"asked for{epilogue}")
    chunk, rows = 16 // _BYTES[op.type.dtype], problem.rows
    tile = "128x128x16 or 64x64x16 floats" if dtype == "f32" else "128x128x32 or 64x64x32 mma.sync"
    if _is_vector(problem, chunk):
        reason = f"{rows} rows: bound by reading B once{epilogue}"
        return KernelRecord(op, f"native gemm {dtype} matrix-vector", reason)
    why = _why_elements(problem, chunk)
    if why:
        shape = tile.split(" or ")[1]
        reason = f"{why}: tiles are filled element by element{epilogue}"
        return KernelRecord(op, f"native gemm {dtype} {shape}, unaligned", reason)
    rows_apart = [s for strides in _row_strides(problem).values() for s in strides]
    unknown = not all(_is_multiple(stride, chunk) for stride in rows_apart)
    doubt = f"; element by element where a stride is no multiple of {chunk}" if unknown else ""
    if not is_static(rows):
        few = "" if dtype == "f32" else f", 32x128 up to {_FEW_ROWS}"
        reason = f"matrix-vector up to {_VECTOR_ROWS} rows{few}{epilogue}{doubt}"
        return KernelRecord(op, f"native gemm {dtype} {tile}", reason)
    if int(rows) <= _FEW_ROWS and dtype != "f32":
        reason = f"{rows} rows: B is read once, k split among blocks{epilogue}{doubt}"
        return KernelRecord(op, f"native gemm {dtype} 32x128x32 mma.sync", reason)
    reason = f"the larger one where it fills the multiprocessors, else k split{epilogue}{doubt}"
    return KernelRecord(op, f"native gemm {dtype} {tile}", reason)


def _is_vector(problem: Problem, chunk: int) -> bool:
    """Whether the product is known to be one of few rows with a matrix read 16 bytes at a time."""
    if not is_static(problem.rows) or int(problem.rows) > _VECTOR_ROWS:
        return False
    b, strides = problem.strides["_b"], _row_strides(problem)
    wide = b[-1] == 1
    read = strides["B"] if wide else [*strides["B"], *strides["A"]]
    extent = problem.columns if wide else problem.depth
    contiguous = wide or (b[-2] == 1 and problem.strides["_a"][-1] == 1)
    return contiguous and all(_is_multiple(s, chunk) for s in (extent, *read))


def _why_elements(problem: Problem, chunk: int) -> str:
    """Why 16 bytes of an operand cannot be copied at once, as far as strides tell; else empty."""
    a, b = problem.strides["_a"], problem.strides["_b"]
    if a[-1] != 1 and problem.depth != 1:
        return "k of A is not contiguous"
    if 1 not in (b[-1], b[-2]):
        return "neither axis of B is contiguous"
    for name, strides in _row_strides(problem).items():
        for stride in strides:
            if is_static(stride) and not _is_multiple(stride, chunk):
                return f"a stride of {name}, {stride}, is no multiple of {chunk}"
    return ""


def _row_strides(problem: Problem) -> dict[str, list[Any]]:
    """The strides of the operands but those of their contiguous axes."""
    a, b = problem.strides["_a"], problem.strides["_b"]
    return {"A": [*a[:-2], a[-2]], "B": [*b[:-2], b[-2] if b[-1] == 1 else b[-1]]}
