"""Which kernels of `kernels/cuda/gemm.cuh` a matrix product can need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy

from dfcompiler.analysis.gpu_plans import Plan
from dfcompiler.analysis.gpu_tiles import CHUNK_BYTES, VECTOR_ROWS
from dfcompiler.ir.program import Op, Role
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.cpp import SPACE
from dfcompiler.lowering.cuda.product import role_of
from dfcompiler.lowering.nodes.matmul import Problem
from dfcompiler.lowering.symbolic import expression, is_static, text

FEW_ROWS = 32
"""Rows up to which a product without a plan takes the tile for few rows."""


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
    chunk, b = CHUNK_BYTES // op.type.dtype.bytes, problem.strides["_b"]
    strides = row_strides(problem)
    if [plan.tile.name for plan in plans] == ["VECTOR"] and takes_columns(problem, chunk):
        strides, operands = {"B": strides["B"]}, operands[1:]
    aligned = (
        not why_elements(problem, chunk)
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
    return " | ".join(SPACE + name for name, needed in found.items() if needed)


def _usual_tiles(op: Op, problem: Problem, implementation: str) -> set[str]:
    """What a product without a plan can take."""
    rows, chunk = problem.rows, CHUNK_BYTES // op.type.dtype.bytes
    # There is no tile for few rows of floats that are multiplied as they are.
    exact = op.type.dtype is DType.F32 and implementation != "tf32"
    limit = VECTOR_ROWS if exact else FEW_ROWS
    found = {"VECTOR"} if _may_be(rows, VECTOR_ROWS) else set()
    if not exact and _may_be(rows, limit):
        found.add("FEW")
    if not is_static(rows) or int(rows) > limit or (exact and not is_vector(problem, chunk)):
        found |= {"MEDIUM", "LARGE"} | ({"WIDE"} if implementation == "wgmma" else set())
    return found


def _may_be(rows: Any, limit: int) -> bool:
    """Whether there may be at most `limit` rows."""
    return not is_static(rows) or int(rows) <= limit


def plan_code(problem: Problem, plans: Sequence[Plan]) -> str:
    """The plan for the rows that a product has when it runs, as C++."""
    *few, last = (f"{SPACE}Plan{{{SPACE}{p.tile.name}, {p.parts}}}" for p in plans)
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
    along_depth = b[-2] == 1 and problem.strides["_a"][-1] == 1
    whole = all(is_multiple(value, chunk) for value in (problem.depth, *b[:-2], b[-1]))
    return along_depth and whole and is_static(rows) and int(rows) <= VECTOR_ROWS


def is_vector(problem: Problem, chunk: int) -> bool:
    """Whether the product is known to be one of few rows with a matrix read 16 bytes at a time."""
    if not is_static(problem.rows) or int(problem.rows) > VECTOR_ROWS:
        return False
    b, strides = problem.strides["_b"], row_strides(problem)
    wide = b[-1] == 1
    read = strides["B"] if wide else [*strides["B"], *strides["A"]]
    extent = problem.columns if wide else problem.depth
    contiguous = wide or (b[-2] == 1 and problem.strides["_a"][-1] == 1)
    return contiguous and all(is_multiple(s, chunk) for s in (extent, *read))


def why_elements(problem: Problem, chunk: int) -> str:
    """Why 16 bytes of an operand cannot be copied at once, as far as strides tell; else empty."""
    a, b = problem.strides["_a"], problem.strides["_b"]
    if a[-1] != 1 and problem.depth != 1:
        return "k of A is not contiguous"
    if 1 not in (b[-1], b[-2]):
        return "neither axis of B is contiguous"
    for name, strides in row_strides(problem).items():
        for stride in strides:
            if is_static(stride) and not is_multiple(stride, chunk):
                return f"a stride of {name}, {stride}, is no multiple of {chunk}"
    return ""


def row_strides(problem: Problem) -> dict[str, list[Any]]:
    """The strides of the operands but those of their contiguous axes."""
    a, b = problem.strides["_a"], problem.strides["_b"]
    return {"A": [*a[:-2], a[-2]], "B": [*b[:-2], b[-2] if b[-1] == 1 else b[-1]]}
