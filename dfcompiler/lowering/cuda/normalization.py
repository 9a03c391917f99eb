"""Softmax, layer norm and RMS norm on a GPU: one block for each row."""

from __future__ import annotations

from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.row_maps import KERNELS, add_rows
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import MapBody, add_map
from dfcompiler.lowering.normalization import norm_body, softmax_body
from dfcompiler.lowering.symbolic import expression

HEADER = "cuda/rows.h"


def lower_softmax(context: Context, op: Op) -> None:
    """One block for each row; one thread for each when the axis is not contiguous."""
    body, contiguous = softmax_body(context, op)
    context.include(HEADER, KERNELS)
    if contiguous:
        add_normalized_rows(context, op, body)
        return
    add_map(context, context.new_state(op), body)
    reason = "the axis is strided: neighbouring threads read neighbouring rows"
    context.record(KernelRecord(op, "dace-map, one thread a row", reason))


def lower_norm(context: Context, op: Op) -> None:
    """One block for each row of the last axis.

    Raises:
        UnsupportedError: if the last axis is not contiguous.
    """
    body = norm_body(context, op)
    context.include(HEADER, KERNELS)
    add_normalized_rows(context, op, body)


def add_normalized_rows(context: Context, op: Op, body: MapBody, what: str = "") -> None:
    """Adds the map with a block for each row of the last axis of `op`, and its record."""
    threads = add_rows(context, op, body, expression(op.type.shape[-1]), op.type.dtype)
    reason = f"{what}one block of {threads} threads a row, statistics from registers"
    context.record(KernelRecord(op, "dace-map + row function", reason))
