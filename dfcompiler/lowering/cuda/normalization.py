"""Softmax, layer norm and RMS norm on a GPU: one block for each row."""

from __future__ import annotations

from typing import Any

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.maps import add_row_map
from dfcompiler.lowering.cuda.threads import row_threads
from dfcompiler.lowering.elementwise import is_one
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map, pointer
from dfcompiler.lowering.normalization import NORM_WORK, SOFTMAX_WORK, norm_call
from dfcompiler.lowering.symbolic import expression, product, symbol, text

HEADER = "cuda/rows.h"
KERNELS = ("cuda",)
"""The generated file that calls device functions."""


def lower_softmax(context: Context, op: Op) -> None:
    """One block for each row; one thread for each when the axis is not contiguous."""
    (name,) = op.inputs
    axis = normalize_axis(int(op.attr("axis")), op.type.rank)
    strides = [text(context.stride(n, axis)) for n in (op.result, name)]
    count = text(expression(op.type.shape[axis]))
    context.include(HEADER, KERNELS)
    if strides == ["1", "1"]:
        code = f"dfc::softmax_row(_o, _x, {count});"
        add_rows(context, op, _rows(context, op, axis, code, [], SOFTMAX_WORK))
        return
    code = f"dfc::softmax_strided(_o, {strides[0]}, _x, {strides[1]}, {count});"
    body = _rows(context, op, axis, code, [], SOFTMAX_WORK)
    add_map(context, context.new_state(op), body)
    reason = "the axis is strided: neighbouring threads read neighbouring rows"
    context.record(KernelRecord(op, "dace-map, one thread a row", reason))


def lower_norm(context: Context, op: Op) -> None:
    """One block for each row of the last axis.

    Raises:
        UnsupportedError: if the last axis is not contiguous.
    """
    axis = op.type.rank - 1
    if any(text(context.stride(name, axis)) != "1" for name in (op.result, op.inputs[0])):
        raise UnsupportedError(
            f"{op.kind} needs its last axis contiguous, found {op.type}", (op.result, op.source)
        )
    context.include(HEADER, KERNELS)
    code, parameters = norm_call(context, op, "_x")
    add_rows(context, op, _rows(context, op, axis, code, parameters, NORM_WORK))


def add_rows(context: Context, op: Op, body: MapBody, what: str = "") -> None:
    """Adds the map with a block for each row of the last axis of `op`, and its record."""
    rows = product(extent for _, extent in body.ranges)
    length = expression(op.type.shape[-1])
    threads = row_threads(context, length, rows, op.type.dtype.bytes)
    add_row_map(context, context.new_state(op), body, threads)
    reason = f"{what}one block of {threads} threads a row, statistics from registers"
    context.record(KernelRecord(op, "dace-map + row function", reason))


def _rows(
    context: Context, op: Op, axis: int, code: str, parameters: list[Access], work: int
) -> MapBody:
    """Tasklets on pointers to the rows along `axis`; the others in the order of memory."""
    rank, name = op.type.rank, op.inputs[0]
    extents = [expression(dim) for dim in op.type.shape]
    kept = [a for a in op.type.layout.permutation(rank) if a != axis]
    kept = [a for a in kept if not is_one(op.type.shape[a])]
    begin: list[Any] = [symbol(f"_i{a}") if a in kept else 0 for a in range(rank)]
    return MapBody(
        label=op.kind,
        ranges=[(f"_i{a}", extents[a]) for a in kept],
        reads=[pointer(context, "_x", context.array(name), begin, (axis,)), *parameters],
        writes=[pointer(context, "_o", context.array(op.result), begin, (axis,))],
        code=code,
        work=product(extents) * work,
    )
