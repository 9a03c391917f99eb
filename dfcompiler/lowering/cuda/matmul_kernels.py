"""Which kernels of `kernels/cuda/gemm.cuh` a matrix product can need, and takes, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy

from dfcompiler.analysis.gpu_expansions import LEAST_ROWS
from dfcompiler.analysis.gpu_plans import Plan
from dfcompiler.analysis.gpu_tiles import VECTOR_ROWS
from dfcompiler.ir.program import Op, Role
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.product import role_of
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.nodes.matmul import Problem
from dfcompiler.lowering.symbolic import expression, is_static, text

_BYTES = {DType.F32: 4, DType.BF16: 2, DType.F16: 2}
_SPACE = "dfc::cuda::"
# Rows up to which a product without a plan takes the tile for few rows.
_FEW_ROWS = 32


def kernels_of(
    context: Context,
    op: Op,
    operands: tuple[str, ...],
    problem: Problem,
    implementation: str,
    plans: Sequence[Plan],
) -> str:
    """The kernels that an instance holds for a product, as C++ over the names in `gemm.h`.

    Args:
        context: the lowering.
        op: the product.
        operands: its values A and B.
        problem: its extents and strides.
        implementation: the expansion.
        plans: those of its tiles; none where the kernel is to choose.
    """
    chunk, b = 16 // _BYTES[op.type.dtype], problem.strides["_b"]
    strides = _row_strides(problem)
    if [plan.tile.name for plan in plans] == ["VECTOR"] and takes_columns(problem, chunk):
        strides, operands = {"B": strides["B"]}, operands[1:]
    aligned = (
        not _why_elements(problem, chunk)
        and all(is_multiple(stride, chunk) for group in strides.values() for stride in group)
        and all(is_aligned(context, name, chunk) for name in operands)
    )
    either = 1 in (problem.columns, problem.depth)
    found = {
        "WIDTH": b[-1] == 1 or either,
        "DEPTH": b[-1] != 1 or either,
        "ELEMENTS": not aligned,
    }
    tiles = {plan.tile.name for plan in plans} or _usual_tiles(op, problem, implementation)
    found |= {name: name in tiles for name in ("VECTOR", "FEW", "MEDIUM", "LARGE", "WIDE")}
    return " | ".join(_SPACE + name for name, needed in found.items() if needed)


def _usual_tiles(op: Op, problem: Problem, implementation: str) -> set[str]:
    """What a product without a plan can take."""
    rows, chunk = problem.rows, 16 // _BYTES[op.type.dtype]
    # There is no tile for few rows of floats that are multiplied as they are.
    exact = op.type.dtype is DType.F32 and implementation != "tf32"
    limit = VECTOR_ROWS if exact else _FEW_ROWS
    found = {"VECTOR"} if _may_be(rows, VECTOR_ROWS) else set()
    if not exact and _may_be(rows, limit):
        found.add("FEW")
    if not is_static(rows) or int(rows) > limit or (exact and not _is_vector(problem, chunk)):
        found |= {"MEDIUM", "LARGE"} | ({"WIDE"} if implementation == "wgmma" else set())
    return found


def _may_be(rows: Any, limit: int) -> bool:
    """Whether there may be at most `limit` rows."""
    return not is_static(rows) or int(rows) <= limit


def plan_code(problem: Problem, plans: Sequence[Plan]) -> str:
    """The plan for the rows that a product has when it runs, as C++."""
    *few, last = (f"{_SPACE}Plan{{{_SPACE}{p.tile.name}, {p.parts}}}" for p in plans)
    ends = zip(plans, few, strict=False)
    return "".join(f"{text(problem.rows)} <= {p.most_rows} ? {c} : " for p, c in ends) + last


def plans_for(problem: Problem, plans: Sequence[Plan]) -> tuple[Plan, ...]:
    """The plans that a product can take: one, where its rows are a number."""
    if not plans or not is_static(problem.rows):
        return tuple(plans)
    rows = int(problem.rows)
    return (next(p for p in plans if rows <= p.most_rows or p.most_rows == 0),)


def is_aligned(context: Context, name: str, chunk: int) -> bool:
    """Whether a value certainly begins at 16 bytes: callers may hand inputs in at any address."""
    ours = role_of(context, name) not in (Role.INPUT, Role.OUTPUT)
    return ours and is_multiple(expression(context.place(name).offset), chunk)


def is_multiple(value: Any, chunk: int) -> bool:
    """Whether an extent is a multiple of `chunk`, whatever its symbols stand for."""
    return bool(sympy.Mod(value, chunk) == 0)


def is_vector_plan(problem: Problem, plan: Plan, chunk: int) -> bool:
    """Whether the rows and extents of a product are those of the matrix-vector kernel."""
    rows = plan.most_rows or problem.rows
    whole = is_multiple(problem.columns, chunk) and is_multiple(problem.depth, chunk)
    return whole and is_static(rows) and int(rows) <= VECTOR_ROWS


def takes_columns(problem: Problem, chunk: int) -> bool:
    """Whether the matrix-vector kernel of whole columns serves a product, at any address of A."""
    b, rows = problem.strides["_b"], problem.rows
    along_depth = b[-2] == 1 and problem.strides["_a"][-1] == 1 and problem.columns != 1
    whole = all(is_multiple(value, chunk) for value in (problem.depth, *b[:-2], b[-1]))
    return along_depth and whole and is_static(rows) and int(rows) <= VECTOR_ROWS


def record_of(
    op: Op, why: str, epilogue: str, problem: Problem, implementation: str, plans: Sequence[Plan]
) -> KernelRecord:
    """Which kernel a product takes, and why, as far as extents and strides tell.

    Args:
        op: the product.
        why: what chose the expansion and its plans.
        epilogue: what is fused, with a semicolon in front, or nothing.
        problem: its extents and strides.
        implementation: the expansion.
        plans: those of its tiles; none where the kernel is to choose.
    """
    dtype = op.type.dtype.value
    chunk, rows = 16 // _BYTES[op.type.dtype], problem.rows
    if implementation != "native" and not plans:
        others = _beside_wgmma(problem, chunk) if implementation == "wgmma" else ""
        return KernelRecord(op, f"{implementation} gemm {dtype}", f"{why}{others}{epilogue}")
    tile = "128x128x16 or 64x64x16 floats" if dtype == "f32" else "128x128x32 or 64x64x32 mma.sync"
    if _is_vector(problem, chunk):
        parts = f", k in {plans[0].parts} parts" if plans and plans[0].parts > 1 else ""
        reason = f"{rows} rows: bound by reading B once{parts}{epilogue}"
        return KernelRecord(op, f"native gemm {dtype} matrix-vector", reason)
    single = _why_elements(problem, chunk)
    if single:
        shape = tile.split(" or ")[1]
        reason = f"{single}: tiles are filled element by element{epilogue}"
        return KernelRecord(op, f"native gemm {dtype} {shape}, unaligned", reason)
    rows_apart = [s for strides in _row_strides(problem).values() for s in strides]
    unknown = not all(is_multiple(stride, chunk) for stride in rows_apart)
    doubt = f"; element by element where a stride is no multiple of {chunk}" if unknown else ""
    if plans:
        shapes = dict.fromkeys(_shape(plan) for plan in plans)
        reason = f"{why}: {_ranges(plans)}{epilogue}{doubt}"
        return KernelRecord(op, f"{implementation} gemm {dtype} {' or '.join(shapes)}", reason)
    if not is_static(rows):
        few = "" if dtype == "f32" else f", 32x128 up to {_FEW_ROWS}"
        reason = f"matrix-vector up to {VECTOR_ROWS} rows{few}{epilogue}{doubt}"
        return KernelRecord(op, f"native gemm {dtype} {tile}", reason)
    if int(rows) <= _FEW_ROWS and dtype != "f32":
        reason = f"{rows} rows: B is read once, k split among blocks{epilogue}{doubt}"
        return KernelRecord(op, f"native gemm {dtype} 32x128x32 mma.sync", reason)
    reason = f"the larger one where it fills the multiprocessors, else k split{epilogue}{doubt}"
    return KernelRecord(op, f"native gemm {dtype} {tile}", reason)


def _beside_wgmma(problem: Problem, chunk: int) -> str:
    """When a product that is to take wgmma takes the native kernels, with a semicolon in front."""
    single = _why_elements(problem, chunk)
    if single:
        return f"; but TMA cannot copy it: {single}, so the native kernel is taken"
    if is_static(problem.rows) and int(problem.rows) < LEAST_ROWS:
        return f"; but {problem.rows} rows are left to the native kernel"
    few = "" if is_static(problem.rows) else f"; native below {LEAST_ROWS} rows"
    apart = [s for strides in _row_strides(problem).values() for s in strides]
    unknown = not all(is_multiple(stride, chunk) for stride in apart)
    return few + (f"; native where a stride is no multiple of {chunk}" if unknown else "")


def _shape(plan: Plan) -> str:
    """A tile in words: rows, columns, depth of a stage, and what multiplies."""
    tile = plan.tile
    if tile.name == "VECTOR":
        return "matrix-vector"
    return f"{tile.rows}x{tile.columns}x{tile.depth} {tile.unit}"


def _ranges(plans: Sequence[Plan]) -> str:
    """Which tile is taken up to how many rows."""
    words = []
    for plan in plans:
        tile = plan.tile
        shape = "matrix-vector" if tile.name == "VECTOR" else f"{tile.rows}x{tile.columns}"
        parts = f" with k in {plan.parts} parts" if plan.parts > 1 else ""
        upto = f"up to {plan.most_rows} rows " if plan.most_rows else ""
        words.append(f"{upto}{shape}{parts}")
    return ", ".join(words)


def _is_vector(problem: Problem, chunk: int) -> bool:
    """Whether the product is known to be one of few rows with a matrix read 16 bytes at a time."""
    if not is_static(problem.rows) or int(problem.rows) > VECTOR_ROWS:
        return False
    b, strides = problem.strides["_b"], _row_strides(problem)
    wide = b[-1] == 1
    read = strides["B"] if wide else [*strides["B"], *strides["A"]]
    extent = problem.columns if wide else problem.depth
    contiguous = wide or (b[-2] == 1 and problem.strides["_a"][-1] == 1)
    return contiguous and all(is_multiple(s, chunk) for s in (extent, *read))


def _why_elements(problem: Problem, chunk: int) -> str:
    """Why 16 bytes of an operand cannot be copied at once, as far as strides tell; else empty."""
    a, b = problem.strides["_a"], problem.strides["_b"]
    if a[-1] != 1 and problem.depth != 1:
        return "k of A is not contiguous"
    if 1 not in (b[-1], b[-2]):
        return "neither axis of B is contiguous"
    for name, strides in _row_strides(problem).items():
        for stride in strides:
            if is_static(stride) and not is_multiple(stride, chunk):
                return f"a stride of {name}, {stride}, is no multiple of {chunk}"
    return ""


def _row_strides(problem: Problem) -> dict[str, list[Any]]:
    """The strides of the operands but those of their contiguous axes."""
    a, b = problem.strides["_a"], problem.strides["_b"]
    return {"A": [*a[:-2], a[-2]], "B": [*b[:-2], b[-2] if b[-1] == 1 else b[-1]]}
