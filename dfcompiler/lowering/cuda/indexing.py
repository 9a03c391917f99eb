"""Operators that read positions from an index tensor, one thread for each element.

Every index is checked where it is used; a bad one is reported through the status array, which lies
in memory that the host sees, and read as position 0.
"""

from __future__ import annotations

from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.indexing import (
    Slices,
    add_checked_elements,
    begin_index_copy,
    checked_position,
    copied,
    report,
    source_index,
)
from dfcompiler.lowering.loops import loops_over_elements
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map, pointer, whole
from dfcompiler.lowering.symbolic import expression, text, unit_range


def lower_gather(context: Context, op: Op) -> None:
    """An element of the result reads its index and then the data behind it."""
    source, picks = (context.type(name) for name in op.inputs)
    axis = normalize_axis(int(op.attr("axis")), source.rank)
    place = loops_over_elements(op.type).index
    position = place[axis : axis + picks.rank]
    add_checked_elements(context, op, axis, source_index(place, axis, picks.rank), position)


def lower_index_copy(context: Context, op: Op) -> None:
    """Writes the slices that the index names; the rest is copied first unless it is in place.

    Of equal indices the last one stays: a thread writes nothing where a later slice goes to the
    same place, for which it looks at the indices behind its own.
    """
    _, index, source = op.inputs
    state = begin_index_copy(context, op)
    slices = Slices.of(context, op)
    loops, axis = loops_over_elements(slices.type), slices.result_axis
    check = checked_position(context, op, op.result, axis, "_k[_row]")
    count, extent = slices.type.shape[slices.axis], context.type(op.result).shape[axis]
    code = (
        f"const int64_t _row = {text(loops.index[slices.axis])};\n"
        f"const int64_t _at = {check};\n"
        f"if (dfc::is_last(_k, _row, {text(expression(count))}, {text(expression(extent))}))"
        f" _o[_at * {text(context.stride(op.result, axis))}] = _x;"
    )
    to = slices.result_index(loops.index)
    body = MapBody(
        label="index_copy",
        ranges=loops.ranges,
        reads=[
            Access("_x", context.array(source), unit_range(*loops.index)),
            whole(context, "_k", context.array(index)),
        ],
        writes=[
            pointer(context, "_o", context.array(op.result), to, (axis,)),
            report(context),
        ],
        code=code,
        work=loops.iterations,
    )
    add_map(context, state, body)
    context.record(KernelRecord(op, "dace-map", copied(op)))
