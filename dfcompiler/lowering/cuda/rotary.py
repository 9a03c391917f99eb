"""Rotary position embedding on a GPU: one thread for the pairs of 16 bytes."""

from __future__ import annotations

from typing import Any

from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.normalization import KERNELS
from dfcompiler.lowering.cuda.threads import LOAD_BYTES
from dfcompiler.lowering.elementwise import is_one
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import MapBody, add_map, pointer
from dfcompiler.lowering.rotary import angles
from dfcompiler.lowering.symbolic import ceil_div, expression, product, symbol, text

HEADER = "cuda/rotary.h"


def lower_rotary(context: Context, op: Op) -> None:
    """A map over rows and the packs of a row."""
    rank, last = op.type.rank, op.type.rank - 1
    extents = [expression(dim) for dim in op.type.shape]
    kept = [a for a in range(last) if not is_one(op.type.shape[a])]
    begin: list[Any] = [symbol(f"_i{a}") if a in kept else 0 for a in range(rank)]
    reads = [
        angles(context, connector, name, begin)
        for connector, name in zip(("_x", "_cos", "_sin"), op.inputs, strict=True)
    ]
    interleaved = bool(op.attr("interleaved", False))
    pairs = "interleaved" if interleaved else "halves"
    half = expression(context.type(op.inputs[1]).shape[-1])
    pack = LOAD_BYTES // op.type.dtype.bytes // (2 if interleaved else 1)
    context.include(HEADER, KERNELS)
    body = MapBody(
        label="rotary",
        ranges=[*((f"_i{a}", extents[a]) for a in kept), ("_pack", ceil_div(half, pack))],
        reads=reads,
        writes=[pointer(context, "_o", context.array(op.result), begin, (last,))],
        code=f"dfc::rotary_{pairs}(_o, _x, _cos, _sin, {text(half)}, _pack);",
        work=product(extents) * 3,
    )
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map", f"{pack} pairs a thread; they are {pairs}"))
