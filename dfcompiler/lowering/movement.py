"""Data movement: copies, transposes, slices, concatenations, padding, generated values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dfcompiler.analysis.layouts import view_of
from dfcompiler.errors import InternalError
from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.elementwise import elementwise_body
from dfcompiler.lowering.loops import loops_over, loops_over_elements, parameter
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map, pointer, whole
from dfcompiler.lowering.scalars import literal, stored_type
from dfcompiler.lowering.symbolic import (
    ceil_div,
    expression,
    is_one,
    product,
    text,
    unit_range,
)

HEADER = "cpu/movement.h"
# Elements that one iteration of a whole copy moves.
COPY_BLOCK = 16384
# Width of the strips in which a transpose walks its source: one cache line of fp32.
STRIP = 16


def lower_alias(context: Context, op: Op) -> None:
    """A slice, a reshape or a transpose whose result is memory of its input, read differently.

    Raises:
        InternalError: if the elements do not lie there with strides.
    """
    (name,) = op.inputs
    source = context.type(name)
    place = view_of(op, source, context.place(name))
    if place is None:
        raise InternalError(f"{op.result}: {op.type} is no alias of {name}: {source} by {op.kind}")
    context.define_alias(op, name, place)
    how = "a part of its operand" if op.kind == "slice" else "the same elements in the same order"
    context.record(KernelRecord(op, "alias", f"{op.kind}: {how}"))


def lower_indexed(context: Context, op: Op) -> None:
    """An operator whose elements come from known positions, or from the position alone."""
    state = context.new_state(op)
    add_map(context, state, elementwise_body(context, op, (op,)))
    context.record(KernelRecord(op, "dace-map", "element by element, in the result's order"))


def lower_reshape(context: Context, op: Op) -> None:
    """A copy under another shape, where the plan gives the result its own memory."""
    (name,) = op.inputs
    if not (context.is_contiguous(op.result) and context.is_contiguous(name)):
        lower_indexed(context, op)
        return
    source, target = context.array(name), context.array(op.result)
    count = expression(op.type.elements)
    context.include(HEADER)
    body = MapBody(
        label="reshape",
        ranges=[("_block", ceil_div(count, COPY_BLOCK))],
        reads=[whole(context, "_x", source)],
        writes=[whole(context, "_o", target)],
        code=f"dfc::copy_block(_o, _x, _block, {COPY_BLOCK}, {text(count)});",
        work=count,
    )
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map + row copy", "the plan gives it its own memory"))


def lower_transpose(context: Context, op: Op) -> None:
    """Strips of the source's contiguous axis when that is not the result's, else a plain map."""
    (name,) = op.inputs
    source, perm = context.type(name), op.attr("perm")
    plain = source.layout.is_row_major and op.type.layout.is_row_major
    moved = [axis for axis in perm if not is_one(source.shape[axis])]
    if not plain or len(moved) < 2 or moved == sorted(moved) or moved[-1] == max(moved):
        lower_indexed(context, op)
        return
    contiguous = perm.index(max(moved))
    last = perm.index(moved[-1])
    _transpose_strips(context, op, contiguous, last)


def _transpose_strips(context: Context, op: Op, contiguous: int, last: int) -> None:
    """Strips along result axis `contiguous`, each over the whole of result axis `last`."""
    (name,) = op.inputs
    perm, shape = op.attr("perm"), [expression(dim) for dim in op.type.shape]
    rows, columns = shape[contiguous], shape[last]
    loops = loops_over(op.type, [axis for axis in range(len(shape)) if axis != last])
    along = parameter(contiguous)
    ranges = [(p, ceil_div(rows, STRIP) if p == along else extent) for p, extent in loops.ranges]
    index = [i * STRIP if a == contiguous else i for a, i in enumerate(loops.index)]
    source_index: list[Any] = [0] * len(shape)
    for position, axis in enumerate(perm):
        source_index[axis] = index[position]
    x, o = context.array(name), context.array(op.result)
    to_stride = text(context.stride(op.result, contiguous))
    from_stride = text(context.stride(name, perm[last]))
    count = f"std::min<int64_t>({STRIP}, {text(rows)} - {text(index[contiguous])})"
    context.include(HEADER)
    body = MapBody(
        label="transpose",
        ranges=ranges,
        reads=[pointer(context, "_x", x, source_index, (perm[contiguous], perm[last]))],
        writes=[pointer(context, "_o", o, index, (contiguous, last))],
        code=f"dfc::transpose_strip(_o, {to_stride}, _x, {from_stride}, int({count}), "
        f"{text(columns)});",
        work=product(shape),
    )
    add_map(context, context.new_state(op), body)
    reason = f"strips of {STRIP}: the source's contiguous axis becomes axis {contiguous}"
    context.record(KernelRecord(op, "dace-map + transposed strips", reason))


def lower_concat(context: Context, op: Op) -> None:
    """One map for each input, all in one state: they write disjoint parts."""
    axis = normalize_axis(int(op.attr("axis")), op.type.rank)
    state = context.new_state(op)
    offset: Any = 0
    for name in op.inputs:
        # The part has no layout of its own: it lies in the result as that does.
        rows = replace(context.type(name), layout=op.type.layout)
        part = replace(op, type=rows, kind="copy", inputs=(name,))
        body = elementwise_body(context, part, (part,))
        (write,) = body.writes
        index = [begin for begin, _, _ in write.subset.ranges]
        index[axis] = index[axis] + offset
        shifted = replace(write, subset=unit_range(*index))
        add_map(context, state, replace(body, label="concat", writes=[shifted]))
        offset = offset + expression(part.type.shape[axis])
    context.record(KernelRecord(op, "dace-map", f"{len(op.inputs)} maps into disjoint parts"))


def lower_pad(context: Context, op: Op) -> None:
    """One map over the result; an element comes from the source where it lies inside."""
    (name,) = op.inputs
    source, before = context.type(name), op.attr("before")
    loops = loops_over_elements(op.type)
    inside, position = [], []
    for axis, i in enumerate(loops.index):
        shifted = text(i - expression(before[axis]))
        inside.append(f"{shifted} >= 0 && {shifted} < {text(expression(source.shape[axis]))}")
        position.append(f"({shifted}) * ({text(context.stride(name, axis))})")
    fill = f"{stored_type(op.type.dtype)}({literal(op.attr('value', 0), op.type.dtype)})"
    context.include(context.backend.scalars)
    body = MapBody(
        label="pad",
        ranges=loops.ranges,
        reads=[whole(context, "_x", context.array(name))],
        writes=[Access("_o", context.array(op.result), unit_range(*loops.index))],
        code=f"_o = {' && '.join(inside) or 'true'} ? _x[{' + '.join(position) or '0'}] : {fill};",
        work=loops.iterations * 2,
        serial=1 if len(loops.ranges) > 1 else 0,
    )
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map", "one pass over the result"))
