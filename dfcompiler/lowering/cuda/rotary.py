"""Rotary position embedding on a GPU: one thread for each pair of elements."""

from __future__ import annotations

from typing import Any

from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.normalization import KERNELS
from dfcompiler.lowering.elementwise import is_one
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import MapBody, add_map, pointer
from dfcompiler.lowering.rotary import angles
from dfcompiler.lowering.symbolic import expression, product, symbol, text

HEADER = "cuda/rotary.h"


def lower_rotary(context: Context, op: Op) -> None:
    """A map over rows and the pairs of a row."""
    rank, last = op.type.rank, op.type.rank - 1
    extents = [expression(dim) for dim in op.type.shape]
    kept = [a for a in range(last) if not is_one(op.type.shape[a])]
    begin: list[Any] = [symbol(f"_i{a}") if a in kept else 0 for a in range(rank)]
    reads = [
        angles(context, connector, name, begin)
        for connector, name in zip(("_x", "_cos", "_sin"), op.inputs, strict=True)
    ]
    pairs = "interleaved" if op.attr("interleaved", False) else "halves"
    half = expression(context.type(op.inputs[1]).shape[-1])
    context.include(HEADER, KERNELS)
    body = MapBody(
        label="rotary",
        ranges=[*((f"_i{a}", extents[a]) for a in kept), ("_pair", half)],
        reads=reads,
        writes=[pointer(context, "_o", context.array(op.result), begin, (last,))],
        code=f"dfc::rotary_{pairs}(_o, _x, _cos, _sin, {text(half)}, _pair);",
        work=product(extents) * 3,
    )
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map", f"one thread a pair; pairs are {pairs}"))
