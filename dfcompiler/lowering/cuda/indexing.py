"""Operators that read positions from an index tensor: a thread for each pack or each element.

Every index is checked where it is used; a bad one is reported through the status array, which lies
in memory that the host sees, and read as position 0.
"""

from __future__ import annotations

from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.row_maps import KERNELS
from dfcompiler.lowering.cuda.threads import LOAD_BYTES
from dfcompiler.lowering.indexing import (
    Slices,
    add_checked_elements,
    begin_index_copy,
    checked_position,
    copied,
    report,
    source_index,
)
from dfcompiler.lowering.loops import loops_over, loops_over_elements
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map, pointer, whole
from dfcompiler.lowering.symbolic import (
    ceil_div,
    element_count,
    expression,
    is_static,
    text,
    unit_range,
)


def lower_gather(context: Context, op: Op) -> None:
    """A pack of a row of the result reads its index and then the data behind it.

    Where what is behind an index is no row of 16 bytes or more, elements do so one by one.
    """
    source, picks = (context.type(name) for name in op.inputs)
    axis = normalize_axis(int(op.attr("axis")), source.rank)
    if axis < source.rank - 1 and _in_packs(context, op):
        _gather_packs(context, op, axis, picks.rank)
        return
    place = loops_over_elements(op.type).index
    position = place[axis : axis + picks.rank]
    add_checked_elements(context, op, axis, source_index(place, axis, picks.rank), position)


def _in_packs(context: Context, op: Op) -> bool:
    """Whether rows along the last axis of the data and of the result lie in packs."""
    last = expression(op.type.shape[-1])
    rows = all(
        text(context.stride(name, context.type(name).rank - 1)) == "1"
        for name in (op.result, op.inputs[0])
    )
    return rows and not (is_static(last) and int(last) < LOAD_BYTES // op.type.dtype.bytes)


def _gather_packs(context: Context, op: Op, axis: int, rank: int) -> None:
    """A thread for each pack of a row; `rank` is that of the index."""
    data, index = op.inputs
    last, pack = op.type.rank - 1, LOAD_BYTES // op.type.dtype.bytes
    rows = loops_over(op.type, range(last))
    extent = expression(op.type.shape[-1])
    begin = source_index(rows.index, axis, rank)
    check = checked_position(context, op, data, axis, "_k")
    ctype = context.sdfg.arrays[context.array(op.result)].dtype.ctype
    left = f"{text(extent)} - _first"
    code = [
        f"const int64_t _first = int64_t(_pack) * {pack};",
        f"const int _count = {left} < {pack} ? int({left}) : {pack};",
        f"dfc::cuda::Pack<{ctype}, {pack}> _packed;",
        f"_packed.load(_x + {check} * {text(context.stride(data, axis))} + _first, _count);",
        "_packed.store(_o + _first, _count);",
    ]
    body = MapBody(
        label=op.kind,
        ranges=[*rows.ranges, ("_pack", ceil_div(extent, pack))],
        reads=[
            pointer(context, "_x", context.array(data), begin, (axis, len(begin) - 1)),
            Access("_k", context.array(index), unit_range(*rows.index[axis : axis + rank])),
        ],
        writes=[
            pointer(context, "_o", context.array(op.result), rows.index, (last,)),
            report(context),
        ],
        code="\n".join(code),
        work=element_count(op.type.shape),
    )
    context.include("cuda/pack.h", KERNELS)
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map", f"one checked index for {pack} elements of a row"))


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
