"""Which kernel a matrix product takes, and why, in words."""

from __future__ import annotations

from collections.abc import Sequence

from dfcompiler.analysis.gpu_expansions import LEAST_ROWS
from dfcompiler.analysis.gpu_plans import Plan
from dfcompiler.analysis.gpu_tiles import CHUNK_BYTES, VECTOR_ROWS
from dfcompiler.ir.program import Op
from dfcompiler.lowering.cuda.matmul_kernels import (
    FEW_ROWS,
    is_multiple,
    is_vector,
    row_strides,
    why_elements,
)
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.nodes.matmul import Problem
from dfcompiler.lowering.symbolic import is_static


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
    chunk, rows = CHUNK_BYTES // op.type.dtype.bytes, problem.rows
    if implementation != "native" and not plans:
        others = _beside_wgmma(problem, chunk) if implementation == "wgmma" else ""
        return KernelRecord(op, f"{implementation} gemm {dtype}", f"{why}{others}{epilogue}")
    tile = "128x128x16 or 64x64x16 floats" if dtype == "f32" else "128x128x32 or 64x64x32 mma.sync"
    if is_vector(problem, chunk):
        parts = f", k in {plans[0].parts} parts" if plans and plans[0].parts > 1 else ""
        reason = f"{rows} rows: bound by reading B once{parts}{epilogue}"
        return KernelRecord(op, f"native gemm {dtype} matrix-vector", reason)
    single = why_elements(problem, chunk)
    if single:
        shape = tile.split(" or ")[1]
        reason = f"{single}: tiles are filled element by element{epilogue}"
        return KernelRecord(op, f"native gemm {dtype} {shape}, unaligned", reason)
    rows_apart = [s for strides in row_strides(problem).values() for s in strides]
    unknown = not all(is_multiple(stride, chunk) for stride in rows_apart)
    doubt = f"; element by element where a stride is no multiple of {chunk}" if unknown else ""
    if plans:
        shapes = dict.fromkeys(_shape(plan) for plan in plans)
        reason = f"{why}: {_ranges(plans)}{epilogue}{doubt}"
        return KernelRecord(op, f"{implementation} gemm {dtype} {' or '.join(shapes)}", reason)
    if not is_static(rows):
        few = "" if dtype == "f32" else f", 32x128 up to {FEW_ROWS}"
        reason = f"matrix-vector up to {VECTOR_ROWS} rows{few}{epilogue}{doubt}"
        return KernelRecord(op, f"native gemm {dtype} {tile}", reason)
    if int(rows) <= FEW_ROWS and dtype != "f32":
        reason = f"{rows} rows: B is read once, k split among blocks{epilogue}{doubt}"
        return KernelRecord(op, f"native gemm {dtype} 32x128x32 mma.sync", reason)
    reason = f"the larger one where it fills the multiprocessors, else k split{epilogue}{doubt}"
    return KernelRecord(op, f"native gemm {dtype} {tile}", reason)


def _beside_wgmma(problem: Problem, chunk: int) -> str:
    """When a product that is to take wgmma takes the native kernels, with a semicolon in front."""
    single = why_elements(problem, chunk)
    if single:
        return f"; but TMA cannot copy it: {single}, so the native kernel is taken"
    if is_static(problem.rows) and int(problem.rows) < LEAST_ROWS:
        return f"; but {problem.rows} rows are left to the native kernel"
    few = "" if is_static(problem.rows) else f"; native below {LEAST_ROWS} rows"
    apart = [s for strides in row_strides(problem).values() for s in strides]
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
