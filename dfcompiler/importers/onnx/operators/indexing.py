"""Elements picked by tensors of indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dfcompiler.importers.onnx.contents import Elements, elements, grid, uniform
from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.dimension_arithmetic import is_nonnegative
from dfcompiler.importers.onnx.node import Node, operator
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir import DType
from dfcompiler.ir.dims import Dim, Shape, equal, expand, product
from dfcompiler.ir.operators.spec import normalize_axis


@operator("Gather")
def _gather(context: Context, node: Node) -> Value:
    x, index = node.values()
    axis = normalize_axis(int(node.attr("axis", 0)), x.rank)
    shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    if isinstance(x.content, Elements) and isinstance(index.content, Elements):
        return _gather_known(context, x, x.content, index.content, axis)
    run = _run(context, index, x.shape[axis])
    if run is not None:
        starts: list[Dim] = [0] * x.rank
        starts[axis] = run.start
        sizes = tuple(run.size if a == axis else dim for a, dim in enumerate(x.shape))
        return context.reshape(context.slice(x, starts, sizes), shape)
    if isinstance(x.shape[axis], int) and x.shape[axis] == 0 and product(index.shape) != 0:
        raise ValueError("an element is taken out of an axis of extent 0")
    return context.op("gather", [x, context.cast(index, DType.I64)], {"axis": axis})


def _gather_known(context: Context, x: Value, data: Elements, index: Elements, axis: int) -> Value:
    if not index.is_numeric:
        return context.op("gather", [x, context.known(x.type, index)], {"axis": axis})
    try:
        taken = np.take(data.array, index.array, axis=axis)
    except IndexError as error:
        raise ValueError(f"an index is out of range for extent {x.shape[axis]}") from error
    taken = np.asarray(taken)
    type_ = x.type.with_shape(tuple(taken.shape))
    if x.dtype.is_integer:
        return context.known(type_, elements(taken, tuple(taken.shape)))
    return context.array(taken)


@dataclass(frozen=True)
class _Run:
    """Indices ``start, start + 1, …``, `size` of them."""

    start: Dim
    size: Dim


def _run(context: Context, index: Value, extent: Dim) -> _Run | None:
    """The indices as a run inside ``0..extent``; the extent of a table bounds its symbol."""
    single = uniform(index.content)
    if single is not None and equal(product(index.shape), 1):
        start = expand(single + extent) if is_nonnegative(expand(-single - 1)) else single
        return _Run(start, 1) if _inside(context, start, 1, extent) else None
    mesh = grid(index.content, index.shape, index.rank)
    if mesh is None:
        return None
    axes = [a for a, step in enumerate(mesh.steps) if not (isinstance(step, int) and step == 0)]
    if len(axes) != 1 or not equal(mesh.steps[axes[0]], 1):
        return None
    size = index.shape[axes[0]]
    if not equal(product(index.shape), size):
        return None
    return _Run(mesh.offset, size) if _inside(context, mesh.offset, size, extent) else None


def _inside(context: Context, start: Dim, size: Dim, extent: Dim) -> bool:
    if not is_nonnegative(start):
        return False
    end = expand(start + size)
    if is_nonnegative(expand(extent - end)):
        return True
    return isinstance(extent, int) and context.symbols.bound(end, extent)


@operator("GatherElements")
def _gather_elements(context: Context, node: Node) -> Value:
    x = node.ranked(0, 1)
    index = node.ranked(1, x.rank, x.rank)
    axis = normalize_axis(int(node.attr("axis", 0)), x.rank)
    sizes = tuple(
        dim if a == axis else want
        for a, (dim, want) in enumerate(zip(x.shape, index.shape, strict=True))
    )
    x = context.slice(x, (0,) * x.rank, sizes)
    return context.op("take_along", [x, context.cast(index, DType.I64)], {"axis": axis})


@operator("GatherND")
def _gather_nd(context: Context, node: Node) -> Value:
    x, index = node.ranked(0, 1), node.ranked(1, 1)
    batch = int(node.attr("batch_dims", 0))
    width = index.shape[-1]
    if not isinstance(width, int) or not 0 <= batch <= batch + width <= x.rank:
        raise ValueError(f"rows of {width} indices for rank {x.rank}")
    for a in range(batch):
        context.unify(x.shape[a], index.shape[a])
    outer = index.shape[:-1]
    columns = index.columns or tuple(_column(context, index, i) for i in range(width))
    columns = tuple(context.reshape(column, outer) for column in columns)
    leading = [context.iota(a, outer) for a in range(batch)]
    picked = [*leading, *columns]
    result = _mesh(context, x, picked, outer)
    if result is not None:
        return result
    extents = x.shape[: len(picked)]
    position = _position(context, picked, extents)
    flat = context.reshape(x, (product(extents), *x.shape[len(picked) :]))
    return context.op("gather", [flat, position], {"axis": 0})


def _column(context: Context, index: Value, number: int) -> Value:
    starts = (*(0,) * (index.rank - 1), number)
    return context.slice(index, starts, (*index.shape[:-1], 1))


def _mesh(context: Context, x: Value, columns: Sequence[Value], outer: Shape) -> Value | None:
    """The result when every index is a run along an axis of its own: a slice, axes permuted."""
    runs: list[_Run] = []
    places: list[int] = []
    for column, extent in zip(columns, x.shape, strict=False):
        mesh = grid(column.content, column.shape, column.rank)
        if mesh is None:
            return None
        axes = [a for a, step in enumerate(mesh.steps) if not (isinstance(step, int) and not step)]
        if len(axes) != 1 or not equal(mesh.steps[axes[0]], 1) or axes[0] in places:
            return None
        size = outer[axes[0]]
        if not _inside(context, mesh.offset, size, extent):
            return None
        runs.append(_Run(mesh.offset, size))
        places.append(axes[0])
    if not equal(product(run.size for run in runs), product(outer)):
        return None
    count = len(runs)
    starts = [*(run.start for run in runs), *(0,) * (x.rank - count)]
    sizes = (*(run.size for run in runs), *x.shape[count:])
    order = sorted(range(count), key=places.__getitem__)
    window = context.slice(x, starts, sizes)
    moved = context.transpose(window, (*order, *range(count, x.rank)))
    return context.reshape(moved, (*outer, *x.shape[count:]))


def _position(context: Context, columns: Sequence[Value], extents: Shape) -> Value:
    """The place of each row of indices in the flattened axes, counted from the front."""
    total: Value | None = None
    for column, extent in zip(columns, extents, strict=True):
        size = context.reshape(context.dims([extent]), ())
        wrapped = _from_front(context, context.cast(column, DType.I64), size)
        if total is not None:
            wrapped = context.op("add", [context.op("mul", [total, size]), wrapped])
        total = wrapped
    if total is None:
        raise ValueError("rows of indices are empty")
    return total


def _from_front(context: Context, index: Value, size: Value) -> Value:
    negative = context.op("less", [index, context.scalar(0, DType.I64)])
    if uniform(negative.content) is False:
        return index
    return context.op("where", [negative, context.op("add", [index, size]), index])


@operator("OneHot")
def _one_hot(context: Context, node: Node) -> Value:
    index, values = node[0], node.ranked(2, 1, 1)
    depth = node.dim(1)
    axis = normalize_axis(int(node.attr("axis", -1)), index.rank + 1)
    shape = (*index.shape[:axis], depth, *index.shape[axis:])
    column = context.reshape(index, (*index.shape[:axis], 1, *index.shape[axis:]))
    whole = context.cast(column, DType.I64)
    place = context.iota(axis, shape)
    size = context.reshape(context.dims([depth]), ())
    wrapped = _from_front(context, whole, size)
    hit = context.op("equal", [wrapped, place])
    off = context.reshape(context.slice(values, (0,), (1,)), ())
    on = context.reshape(context.slice(values, (1,), (1,)), ())
    return context.op("where", [hit, on, off])
