"""Slices, joins and padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfcompiler.importers.onnx.contents import Elements, Grid, elements
from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.dimension_arithmetic import is_nonnegative, larger, smaller
from dfcompiler.importers.onnx.node import Node, operator
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir import DType, TensorType
from dfcompiler.ir.dims import Dim, Shape, ceil_div, equal, expand
from dfcompiler.ir.operators.spec import normalize_axis

_FAR = 1 << 31
"""Exporters write greater numbers for "to the end"."""


@operator("Slice")
def _slice(context: Context, node: Node) -> Value:
    x = node[0]
    given, ends = node.dims(1), node.dims(2)
    axes = node.integers(3) if node.optional(3) is not None else tuple(range(len(given)))
    strides = node.integers(4) if node.optional(4) is not None else (1,) * len(given)
    if not len(given) == len(ends) == len(axes) == len(strides):
        raise ValueError("starts, ends, axes and steps have different lengths")
    starts: list[Dim] = [0] * x.rank
    sizes = list(x.shape)
    steps = [1] * x.rank
    for start, end, axis, stride in zip(given, ends, axes, strides, strict=True):
        axis = normalize_axis(axis, x.rank)
        if stride == 0:
            raise ValueError("the step of a slice is 0")
        window = _window(context, x, axis, start, end, stride)
        if window is None:
            return _checked_window(context, x, axis, start, end, node)
        (starts[axis], sizes[axis]), steps[axis] = window, stride
    return take_window(context, x, starts, tuple(sizes), steps)


def take_window(
    context: Context, x: Value, starts: list[Dim], sizes: Shape, steps: list[int]
) -> Value:
    """A slice that may be empty."""
    if any(isinstance(size, int) and size == 0 for size in sizes):
        return context.filled(0, x.dtype, sizes)
    return context.slice(x, starts, sizes, steps)


def _window(
    context: Context, x: Value, axis: int, start: Dim, end: Dim, step: int
) -> tuple[Dim, Dim] | None:
    """First index and number of elements; None when a bound cannot be shown nor recorded."""
    extent = x.shape[axis]
    if step < 0:
        low, high = -1, expand(extent - 1)
    else:
        low, high = 0, extent
    first = _clamped(_from_front(start, extent), low, high)
    if _is_table_bound(extent, end, step):
        if not context.symbols.bound(end, _constant(extent)):
            return None
        last = end
    else:
        last = _clamped(_from_front(end, extent), low, high)
    span = expand(last - first) if step > 0 else expand(first - last)
    return first, ceil_div(larger(span, 0), abs(step))


def _is_table_bound(extent: Dim, end: Dim, step: int) -> bool:
    """A call-dependent part of a table: the table's size bounds the symbol, nothing is clamped."""
    return (
        step > 0
        and isinstance(extent, int)
        and not isinstance(end, int)
        and bool(is_nonnegative(end))
    )


def _constant(extent: Dim) -> int:
    assert isinstance(extent, int)
    return extent


def _from_front(index: Dim, extent: Dim) -> Dim:
    """A position counted from the front; far out of range stays there."""
    if isinstance(index, int):
        if index >= _FAR:
            return extent
        return index if index >= 0 else expand(extent + max(index, -_FAR))
    if is_nonnegative(index):
        return index
    if is_nonnegative(expand(-index - 1)):
        return expand(extent + index)
    raise ValueError(f"the sign of the position {index} is not known")


def _clamped(index: Dim, low: Dim, high: Dim) -> Dim:
    if isinstance(index, int) and index == low:
        return index
    return smaller(larger(index, low), high)


def _checked_window(
    context: Context, x: Value, axis: int, start: Dim, end: Dim, node: Node
) -> Value:
    """A part of a table that several symbols bound: a gather, which checks its indices."""
    if len(node.dims(1)) != 1 or (node.optional(4) is not None and node.integers(4) != (1,)):
        raise node.unsupported("an end that no single symbol bounds")
    size = expand(end - start)
    index = context.known(TensorType(DType.I64, (size,)), Grid(start, (1,)))
    return context.op("gather", [x, index], {"axis": axis})


@operator("Concat")
def _concat(context: Context, node: Node) -> Value:
    values = node.values()
    axis = normalize_axis(int(node.attr("axis")), values[0].rank)
    for other in values[1:]:
        if other.rank != values[0].rank:
            raise ValueError(f"ranks {values[0].rank} and {other.rank} are joined")
        for a, (left, right) in enumerate(zip(values[0].shape, other.shape, strict=True)):
            if a != axis:
                context.unify(left, right)
    kept = [v for v in values if not (isinstance(v.shape[axis], int) and v.shape[axis] == 0)]
    if len(kept) <= 1:
        return (kept or values)[0]
    return join(context, kept, axis)


def join(context: Context, values: list[Value], axis: int) -> Value:
    """Values side by side along `axis`; contents are joined without an operator."""
    contents = [value.content for value in values]
    known = [c.array for c in contents if isinstance(c, Elements)]
    if len(known) == len(values):
        array = np.concatenate(known, axis=axis)
        shape = tuple(array.shape)
        type_ = values[0].type.with_shape(shape)
        if values[0].dtype.is_integer:
            return context.known(type_, elements(array, shape))
        return context.array(array)
    total: Dim = 0
    for value in values:
        total = expand(total + value.shape[axis])
    first = values[0]
    shape_ = tuple(total if a == axis else dim for a, dim in enumerate(first.shape))
    if axis == first.rank - 1 and all(equal(value.shape[axis], 1) for value in values):
        # Indices side by side: nothing is emitted unless something needs them in memory.
        source = context.source
        result = Value(first.type.with_shape(shape_), columns=tuple(values), source=source)
        result.emit = lambda: context.emit("concat", values, {"axis": axis}, source=source)
        return result
    return context.op("concat", values, {"axis": axis})


@operator("Split")
def _split(context: Context, node: Node) -> tuple[Value, ...]:
    x = node[0]
    axis = normalize_axis(int(node.attr("axis", 0)), x.rank)
    count = len(node.proto.output)
    if node.optional(1) is not None:
        sizes: tuple[Dim, ...] = node.dims(1)
    else:
        chunk = ceil_div(x.shape[axis], int(node.attr("num_outputs", count)))
        sizes = (*(chunk,) * (count - 1), expand(x.shape[axis] - chunk * (count - 1)))
    if len(sizes) != count:
        raise ValueError(f"{count} outputs for {len(sizes)} parts")
    parts, at = [], 0
    for size in sizes:
        starts: list[Dim] = [0] * x.rank
        starts[axis] = at
        extents = tuple(size if a == axis else dim for a, dim in enumerate(x.shape))
        parts.append(take_window(context, x, starts, extents, [1] * x.rank))
        at = expand(at + size)
    context.unify(at, x.shape[axis])
    return tuple(parts)


@operator("Pad")
def _pad(context: Context, node: Node) -> Value:
    x, widths = node[0], node.dims(1)
    if node.attr("mode", "constant") != "constant":
        raise node.unsupported(f"mode = {node.attr('mode')}")
    axes: Sequence[int] = range(x.rank)
    if node.optional(3) is not None:
        axes = [normalize_axis(axis, x.rank) for axis in node.integers(3)]
    if len(widths) != 2 * len(axes):
        raise ValueError(f"{len(widths)} widths for {len(axes)} axes")
    before: list[Dim] = [0] * x.rank
    after: list[Dim] = [0] * x.rank
    for position, axis in enumerate(axes):
        before[axis], after[axis] = widths[position], widths[position + len(axes)]
    value = node.number(2) if node.optional(2) is not None else 0
    starts = [larger(expand(-width), 0) for width in before]
    ends = [larger(expand(-width), 0) for width in after]
    sizes = [expand(d - a - b) for d, a, b in zip(x.shape, starts, ends, strict=True)]
    x = take_window(context, x, starts, tuple(sizes), [1] * x.rank)
    added = (
        tuple(larger(width, 0) for width in before),
        tuple(larger(width, 0) for width in after),
    )
    if all(isinstance(width, int) and width == 0 for part in added for width in part):
        return x
    return context.op("pad", [x], {"before": added[0], "after": added[1], "value": value})
