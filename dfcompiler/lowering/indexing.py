"""Operators that read positions from an index tensor: gather, take_along, index_copy.

Every index is checked where it is used; a bad one is reported through the status array and read as
position 0, so that nothing outside the tensor is touched.
"""

from __future__ import annotations

from typing import Any

from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.elementwise import elementwise_body, expand_loops, is_one
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map, pointer, whole
from dfcompiler.lowering.movement import HEADER
from dfcompiler.lowering.symbolic import expression, product, symbol, text, unit_range

Ranges = list[tuple[str, Any]]


def lower_gather(context: Context, op: Op) -> None:
    """One row of the data for each index; the row is everything behind the axis."""
    data, index = op.inputs
    source, picks = context.type(data), context.type(index)
    axis = normalize_axis(int(op.attr("axis")), source.rank)
    rows = _Rows(context, op, tail=source.rank - axis - 1)
    position = rows.begin[axis : axis + picks.rank]
    begin = [*rows.begin[:axis], 0, *rows.begin[axis + picks.rank :]]
    walked = (axis, *range(axis + 1, source.rank))
    check = checked_position(context, op, data, axis, "_k")
    step = text(context.stride(data, axis))
    body = MapBody(
        label="gather",
        ranges=rows.ranges,
        reads=[
            pointer(context, "_x", context.array(data), begin or [0], walked),
            Access("_k", context.array(index), unit_range(*(position or [0]))),
        ],
        writes=[
            pointer(context, "_o", context.array(op.result), rows.begin or [0], rows.walked),
            whole(context, "_report", context.status()),
        ],
        code=rows.copy("_o", op.result, f"_x + {check} * {step}", data),
        work=rows.work,
    )
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map + row copy", "one checked index for each row"))


def lower_take_along(context: Context, op: Op) -> None:
    """One checked index for each element of the result."""
    data, index = op.inputs
    source = context.type(data)
    axis = normalize_axis(int(op.attr("axis")), source.rank)
    loops = expand_loops(op.type)
    params = {a: symbol(param) for param, a, _ in loops}
    position = [params.get(a, 0) for a in range(op.type.rank)]
    begin = [0 if a == axis or is_one(source.shape[a]) else i for a, i in enumerate(position)]
    check = checked_position(context, op, data, axis, "_k")
    body = MapBody(
        label="take_along",
        ranges=[(param, extent) for param, _, extent in loops],
        reads=[
            pointer(context, "_x", context.array(data), begin, (axis,)),
            Access("_k", context.array(index), unit_range(*position)),
        ],
        writes=[
            Access("_o", context.array(op.result), unit_range(*position)),
            whole(context, "_report", context.status()),
        ],
        code=f"_o = _x[{check} * {text(context.stride(data, axis))}];",
        work=product(extent for *_, extent in loops) * 4,
    )
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map", "one checked index for each element"))


def lower_index_copy(context: Context, op: Op) -> None:
    """Writes the slices that the index names; the rest is copied first unless it is in place."""
    data, index, source = op.inputs
    state = context.new_state(op)
    in_place = data == op.result
    if not in_place:
        plain = Op(op.result, op.type, "copy", (data,))
        add_map(context, state, elementwise_body(context, plain, (plain,), expand_loops(op.type)))
        state = context.new_state(op, "_slices")
    slices = context.type(source)
    axis = normalize_axis(int(op.attr("axis")), slices.rank)
    part = [] if op.attr("part") is None else [expression(op.attr("part"))]
    # Rows of the source, in order along the axis: of equal indices the last one stays.
    rows = _Rows(context, Op(source, slices, "rows"), tail=slices.rank - axis - 1)
    to = [*part, *(0 if a == axis else i for a, i in enumerate(rows.begin))]
    walked = tuple(len(part) + a for a in (axis, *rows.walked))
    check = checked_position(context, op, op.result, len(part) + axis, "_k")
    step = text(context.stride(op.result, len(part) + axis))
    body = MapBody(
        label="index_copy",
        ranges=rows.ranges,
        reads=[
            pointer(context, "_x", context.array(source), rows.begin, rows.walked),
            Access("_k", context.array(index), unit_range(rows.begin[axis])),
        ],
        writes=[
            pointer(context, "_o", context.array(op.result), to, walked),
            whole(context, "_report", context.status()),
        ],
        code=rows.copy(f"(_o + {check} * {step})", op.result, "_x", source),
        work=rows.work,
        serial=sum(not is_one(dim) for dim in slices.shape[axis : rows.head]),
    )
    add_map(context, state, body)
    how = "in place: only the named slices" if in_place else "a copy, then the named slices"
    context.record(KernelRecord(op, "dace-map + row copy", how))


def checked_position(context: Context, op: Op, data: str, axis: int, index: str) -> str:
    """C++ of `index` as a checked position on an axis of `data`."""
    context.include(context.backend.movement)
    extent = context.type(data).shape[axis]
    site = context.site(op, extent)
    return f"dfc::checked({index}, {text(expression(extent))}, _report, {site})"


class _Rows:
    """The result as rows of its last `tail` axes: loops over the others, one copy for each row.

    A row whose axes are contiguous in the result and in the source is one run of elements; else
    the axes in front of the innermost one become loops as well.
    """

    def __init__(self, context: Context, op: Op, tail: int) -> None:
        self.context = context
        shape = op.type.shape
        self.rank, self.shape = len(shape), [expression(dim) for dim in shape]
        contiguous = all(context.is_contiguous(name) for name in (op.result, *op.inputs))
        self.head = self.rank - tail if contiguous else max(self.rank - tail, self.rank - 1)
        self.walked = tuple(range(self.head, self.rank))
        self.begin: list[Any] = [
            symbol(f"_i{a}") if a < self.head and not is_one(shape[a]) else 0
            for a in range(self.rank)
        ]
        self.ranges: Ranges = [
            (f"_i{a}", self.shape[a]) for a in range(self.head) if not is_one(shape[a])
        ]
        self.work = product(self.shape)

    def copy(self, to: str, to_name: str, source: str, source_name: str) -> str:
        """C++ that copies one row."""
        self.context.include(HEADER)
        count = text(product(self.shape[self.head :]))
        strides = "1", "1"
        if self.walked and len(self.walked) == 1:
            strides = (
                text(self.context.stride(to_name, self._last(to_name))),
                text(self.context.stride(source_name, self._last(source_name))),
            )
        return f"dfc::copy_row({to}, {strides[0]}, {source}, {strides[1]}, {count});"

    def _last(self, name: str) -> int:
        return self.context.type(name).rank - 1
