"""Operators that read positions from an index tensor, one thread for each element.

Every index is checked where it is used; a bad one is reported through the status array, which lies
in memory that the host sees, and read as position 0.
"""

from __future__ import annotations

from typing import Any

from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.elementwise import elementwise_body, expand_loops
from dfcompiler.lowering.indexing import checked_position
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map, pointer, whole
from dfcompiler.lowering.symbolic import expression, product, symbol, text, unit_range


def lower_gather(context: Context, op: Op) -> None:
    """An element of the result reads its index and then the data behind it."""
    data, index = op.inputs
    source, picks = context.type(data), context.type(index)
    axis = normalize_axis(int(op.attr("axis")), source.rank)
    ranges, place = _elements(op)
    begin = [*place[:axis], 0, *place[axis + picks.rank :]]
    check = checked_position(context, op, data, axis, "_k")
    body = MapBody(
        label="gather",
        ranges=ranges,
        reads=[
            pointer(context, "_x", context.array(data), begin, (axis,)),
            Access("_k", context.array(index), unit_range(*(place[axis:][: picks.rank] or [0]))),
        ],
        writes=[
            Access("_o", context.array(op.result), unit_range(*(place or [0]))),
            whole(context, "_report", context.status()),
        ],
        code=f"_o = _x[{check} * {text(context.stride(data, axis))}];",
        work=product(extent for _, extent in ranges),
    )
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map", "one checked index for each element"))


def lower_index_copy(context: Context, op: Op) -> None:
    """Writes the slices that the index names; the rest is copied first unless it is in place.

    Of equal indices the last one stays: a thread writes nothing where a later slice goes to the
    same place, for which it looks at the indices behind its own.
    """
    data, index, source = op.inputs
    state = context.new_state(op)
    in_place = data == op.result
    if not in_place:
        plain = Op(op.result, op.type, "copy", (data,))
        add_map(context, state, elementwise_body(context, plain, (plain,), expand_loops(op.type)))
        state = context.new_state(op, "_slices")
    slices = Op(source, context.type(source), "slices")
    axis = normalize_axis(int(op.attr("axis")), slices.type.rank)
    part = [] if op.attr("part") is None else [expression(op.attr("part"))]
    ranges, place = _elements(slices)
    to_axis = len(part) + axis
    to = [*part, *(0 if a == axis else i for a, i in enumerate(place))]
    check = checked_position(context, op, op.result, to_axis, "_k[_row]")
    count, extent = expression(slices.type.shape[axis]), context.type(op.result).shape[to_axis]
    code = (
        f"const int64_t _row = {text(place[axis])};\n"
        f"const int64_t _at = {check};\n"
        f"if (dfc::is_last(_k, _row, {text(count)}, {text(expression(extent))}))"
        f" _o[_at * {text(context.stride(op.result, to_axis))}] = _x;"
    )
    body = MapBody(
        label="index_copy",
        ranges=ranges,
        reads=[
            Access("_x", context.array(source), unit_range(*place)),
            whole(context, "_k", context.array(index)),
        ],
        writes=[
            pointer(context, "_o", context.array(op.result), to, (to_axis,)),
            whole(context, "_report", context.status()),
        ],
        code=code,
        work=product(extent for _, extent in ranges),
    )
    add_map(context, state, body)
    how = "in place: only the named slices" if in_place else "a copy, then the named slices"
    context.record(KernelRecord(op, "dace-map", how))


def _elements(op: Op) -> tuple[list[tuple[str, Any]], list[Any]]:
    """Loops over the elements of the result, and the index of the element that they are at."""
    loops = expand_loops(op.type)
    params = {axis: symbol(param) for param, axis, _ in loops}
    place = [params.get(axis, 0) for axis in range(op.type.rank)]
    return [(param, extent) for param, _, extent in loops], place
