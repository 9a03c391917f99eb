"""Operators that read positions from an index tensor: gather, take_along, index_copy.

Every index is checked where it is used; a bad one is reported through the status array and read as
position 0, so that nothing outside the tensor is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dace

from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import TensorType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.elementwise import elementwise_body
from dfcompiler.lowering.loops import loops_over, loops_over_elements
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map, pointer, whole
from dfcompiler.lowering.movement import HEADER
from dfcompiler.lowering.symbolic import expression, is_one, product, text, unit_range


def lower_gather(context: Context, op: Op) -> None:
    """One row of the data for each index; the row is everything behind the axis."""
    data, index = op.inputs
    source, picks = context.type(data), context.type(index)
    axis = normalize_axis(int(op.attr("axis")), source.rank)
    rows = _Rows(context, op, tail=source.rank - axis - 1)
    position = rows.begin[axis : axis + picks.rank]
    begin = source_index(rows.begin, axis, picks.rank)
    walked = (axis, *range(axis + 1, source.rank))
    check = checked_position(context, op, data, axis, "_k")
    step = text(context.stride(data, axis))
    body = MapBody(
        label="gather",
        ranges=rows.ranges,
        reads=[
            pointer(context, "_x", context.array(data), begin, walked),
            Access("_k", context.array(index), unit_range(*position)),
        ],
        writes=[
            pointer(context, "_o", context.array(op.result), rows.begin, rows.walked),
            report(context),
        ],
        code=rows.copy("_o", op.result, f"_x + {check} * {step}", data),
        work=rows.work,
    )
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map + row copy", "one checked index for each row"))


def lower_take_along(context: Context, op: Op) -> None:
    """One checked index for each element of the result."""
    source = context.type(op.inputs[0])
    axis = normalize_axis(int(op.attr("axis")), source.rank)
    position = loops_over_elements(op.type).index
    begin = [0 if a == axis or is_one(source.shape[a]) else i for a, i in enumerate(position)]
    add_checked_elements(context, op, axis, begin, position)


def source_index(place: Sequence[Any], axis: int, rank: int) -> list[Any]:
    """Where a gather finds element `place` of its result, for position 0 on `axis` of the data.

    Args:
        place: an index into the result.
        axis: the axis of the data along which the index counts.
        rank: the rank of the index, whose axes stand in the result in place of that one.
    """
    return [*place[:axis], 0, *place[axis + rank :]]


def add_checked_elements(
    context: Context, op: Op, axis: int, begin: Sequence[Any], position: Sequence[Any]
) -> None:
    """Adds a map over the result: each element reads its index and then the data behind it.

    Args:
        context: where to.
        op: a gather or a take_along.
        axis: the axis of the data along which the index counts.
        begin: the element of the data for position 0 on that axis.
        position: the element of the index.
    """
    data, index = op.inputs
    loops = loops_over_elements(op.type)
    check = checked_position(context, op, data, axis, "_k")
    body = MapBody(
        label=op.kind,
        ranges=loops.ranges,
        reads=[
            pointer(context, "_x", context.array(data), begin, (axis,)),
            Access("_k", context.array(index), unit_range(*position)),
        ],
        writes=[
            Access("_o", context.array(op.result), unit_range(*loops.index)),
            report(context),
        ],
        code=f"_o = _x[{check} * {text(context.stride(data, axis))}];",
        work=loops.iterations * 4,
    )
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map", "one checked index for each element"))


def lower_index_copy(context: Context, op: Op) -> None:
    """Writes the slices that the index names; the rest is copied first unless it is in place."""
    _, index, source = op.inputs
    state = begin_index_copy(context, op)
    slices = Slices.of(context, op)
    axis, rank = slices.axis, slices.type.rank
    # Rows of the source, in order along the axis: of equal indices the last one stays.
    rows = _Rows(context, Op(source, slices.type, "rows"), tail=rank - axis - 1)
    walked = tuple(len(slices.part) + a for a in (axis, *rows.walked))
    check = checked_position(context, op, op.result, slices.result_axis, "_k")
    step = text(context.stride(op.result, slices.result_axis))
    body = MapBody(
        label="index_copy",
        ranges=rows.ranges,
        reads=[
            pointer(context, "_x", context.array(source), rows.begin, rows.walked),
            Access("_k", context.array(index), unit_range(rows.begin[axis])),
        ],
        writes=[
            pointer(
                context, "_o", context.array(op.result), slices.result_index(rows.begin), walked
            ),
            report(context),
        ],
        code=rows.copy(f"(_o + {check} * {step})", op.result, "_x", source),
        work=rows.work,
        serial=sum(not is_one(dim) for dim in slices.type.shape[axis : rows.head]),
    )
    add_map(context, state, body)
    context.record(KernelRecord(op, "dace-map + row copy", copied(op)))


def begin_index_copy(context: Context, op: Op) -> dace.SDFGState:
    """The state that writes the slices of an `index_copy`, behind the copy of the rest if any."""
    state = context.new_state(op)
    if _is_in_place(op):
        return state
    plain = Op(op.result, op.type, "copy", op.inputs[:1])
    add_map(context, state, elementwise_body(context, plain, (plain,)))
    return context.new_state(op, "_slices")


def copied(op: Op) -> str:
    """What an `index_copy` copies, for its record."""
    return f"{'in place: only' if _is_in_place(op) else 'a copy, then'} the named slices"


def _is_in_place(op: Op) -> bool:
    return op.inputs[0] == op.result


@dataclass(frozen=True)
class Slices:
    """Where the slices of an `index_copy` come from and go to.

    Attributes:
        type: of the tensor that holds them.
        axis: its axis along which the index counts.
        part: the first index into the result, where that is a stack of containers; else empty.
    """

    type: TensorType
    axis: int
    part: tuple[Any, ...]

    @staticmethod
    def of(context: Context, op: Op) -> Slices:
        """The slices of an operator."""
        source = context.type(op.inputs[2])
        axis = normalize_axis(int(op.attr("axis")), source.rank)
        part = () if op.attr("part") is None else (expression(op.attr("part")),)
        return Slices(source, axis, part)

    @property
    def result_axis(self) -> int:
        """The axis of the result to which the index refers."""
        return len(self.part) + self.axis

    def result_index(self, place: Sequence[Any]) -> list[Any]:
        """Where element `place` of the slices goes, for position 0 on that axis."""
        return [*self.part, *(0 if axis == self.axis else i for axis, i in enumerate(place))]


def report(context: Context) -> Access:
    """The array in which the code of a tasklet reports a bad index."""
    return whole(context, "_report", context.status())


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

    Attributes:
        shape: the extents of the result.
        head: how many axes have loops.
        walked: the axes of a row.
        ranges: the loops.
        begin: the first element of the row that they are at.
        work: elements of all rows.
    """

    def __init__(self, context: Context, op: Op, tail: int) -> None:
        self.context = context
        rank = op.type.rank
        self.shape = [expression(dim) for dim in op.type.shape]
        contiguous = all(context.is_contiguous(name) for name in (op.result, *op.inputs))
        self.head = rank - tail if contiguous else max(rank - tail, rank - 1)
        self.walked = tuple(range(self.head, rank))
        loops = loops_over(op.type, range(self.head))
        self.ranges, self.begin = loops.ranges, loops.index
        self.work = product(self.shape)

    def copy(self, to: str, to_name: str, source: str, source_name: str) -> str:
        """C++ that copies one row."""
        self.context.include(HEADER)
        count = text(product(self.shape[self.head :]))
        strides = "1", "1"
        if len(self.walked) == 1:
            strides = (
                text(self.context.stride(to_name, self._last(to_name))),
                text(self.context.stride(source_name, self._last(source_name))),
            )
        return f"dfc::copy_row({to}, {strides[0]}, {source}, {strides[1]}, {count});"

    def _last(self, name: str) -> int:
        return self.context.type(name).rank - 1
