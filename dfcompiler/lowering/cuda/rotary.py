"""Rotary position embedding on a GPU: one thread for the pairs of 16 bytes."""

from __future__ import annotations

from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.row_maps import KERNELS
from dfcompiler.lowering.cuda.threads import LOAD_BYTES
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import add_map
from dfcompiler.lowering.rotary import half_of, pairs_of, rotary_body
from dfcompiler.lowering.symbolic import ceil_div

HEADER = "cuda/rotary.h"


def lower_rotary(context: Context, op: Op) -> None:
    """A map over rows and the packs of a row."""
    pairs = pairs_of(op)
    # Interleaved, both elements of a pair are of the same load.
    pack = LOAD_BYTES // op.type.dtype.bytes // (2 if pairs == "interleaved" else 1)
    context.include(HEADER, KERNELS)
    body = rotary_body(context, op, ("_pack", ceil_div(half_of(context, op), pack)))
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map", f"{pack} pairs a thread; they are {pairs}"))
