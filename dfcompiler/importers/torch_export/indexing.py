"""ATen operators that read or write at positions given by tensors."""

from __future__ import annotations

from collections.abc import Sequence

from dfcompiler.importers.torch_export.context import Context, NotSupported, Tensor
from dfcompiler.importers.torch_export.movement import slice_start
from dfcompiler.importers.torch_export.ranges import Range
from dfcompiler.importers.torch_export.registry import Arguments, handler
from dfcompiler.ir.dims import Dim, Shape, equal, expand, product
from dfcompiler.ir.operators.spec import broadcast_shapes
from dfcompiler.ir.types import DType, TensorType


@handler("embedding")
def _embedding(ctx: Context, a: Arguments) -> Tensor:
    return ctx.gather(a["weight"], a["indices"], 0)


@handler("index_select")
def _index_select(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    return ctx.gather(x, a["index"], x.axis(a["dim"]))


@handler("gather")
def _gather(ctx: Context, a: Arguments) -> Tensor:
    x, index = a["self"], a["index"]
    axis = x.axis(a["dim"])
    for other, (extent, size) in enumerate(zip(x.shape, index.shape, strict=True)):
        if other != axis and not equal(extent, size):
            x = ctx.slice(x, other, 0, size)
    return ctx.emit("take_along", [x, ctx.cast(index, DType.I64)], {"axis": axis})


@handler("index")
def _index(ctx: Context, a: Arguments) -> Tensor:
    x, indices = a["self"], a["indices"]
    given = {axis: index for axis, index in enumerate(indices) if index is not None}
    if any(index.dtype is DType.BOOL for index in given.values()):
        raise NotSupported("selects by a mask: the size of its result depends on values")
    if len(given) == 1:
        ((axis, index),) = given.items()
        return ctx.gather(x, index, axis)
    axes = list(given)
    adjacent = axes == list(range(axes[0], axes[0] + len(axes)))
    rest = [axis for axis in range(x.rank) if axis not in given]
    # NumPy's rule: the joint index stands where its axes stood, or first if they were apart.
    first = axes[0] if adjacent else 0
    order = [*rest[:first], *axes, *rest[first:]]
    moved = ctx.transpose(x, order)
    return _index_adjacent(ctx, moved, first, [given[axis] for axis in axes])


def _index_adjacent(ctx: Context, x: Tensor, first: int, indices: Sequence[Tensor]) -> Tensor:
    """`x` indexed jointly by `indices` at the axes from `first` on."""
    joint = broadcast_shapes([index.shape for index in indices])
    orthogonal = _orthogonal(ctx, x, first, indices, joint)
    if orthogonal is not None:
        return orthogonal
    extents = x.shape[first : first + len(indices)]
    position: Tensor | None = None
    for extent, index in zip(extents, indices, strict=True):
        wrapped = _counted_from_front(ctx, ctx.cast(index, DType.I64), extent)
        if position is None:
            position = wrapped
            continue
        scaled = ctx.elementwise("mul", position, extent)
        position = ctx.elementwise("add", scaled, wrapped)
    assert position is not None
    after = x.shape[first + len(indices) :]
    flat = ctx.reshape(x, (*x.shape[:first], product(extents), *after))
    return ctx.gather(flat, position, first)


def _counted_from_front(ctx: Context, index: Tensor, extent: Dim) -> Tensor:
    if index.range is not None:
        start, step = index.range.start, index.range.step
        if isinstance(start, int) and start >= 0 and isinstance(step, int) and step >= 0:
            return index
    wrapped = ctx.elementwise("add", index, extent)
    return ctx.emit("where", [ctx.elementwise("less", index, 0), wrapped, index])


def _orthogonal(
    ctx: Context, x: Tensor, first: int, indices: Sequence[Tensor], joint: Shape
) -> Tensor | None:
    """The result when every index is a range along an axis of its own: slices, no gather."""
    ranges: list[tuple[Range, int, Dim]] = []
    for index in indices:
        found = index.range
        if found is None or found.axis is None or not isinstance(found.step, int):
            return None
        if found.step < 1 or (isinstance(found.start, int) and found.start < 0):
            return None
        ranges.append((found, found.axis + len(joint) - index.rank, index.shape[found.axis]))
    places = [place for _, place, _ in ranges]
    covered = product(size for _, _, size in ranges)
    if len(set(places)) < len(places) or not equal(covered, product(joint)):
        return None
    for offset, (found, _, size) in enumerate(ranges):
        assert isinstance(found.step, int)
        x = ctx.slice(x, first + offset, found.start, size, found.step)
    inner = sorted(range(len(ranges)), key=lambda i: places[i])
    after = range(first + len(ranges), x.rank)
    x = ctx.transpose(x, [*range(first), *(first + i for i in inner), *after])
    return ctx.reshape(x, (*x.shape[:first], *joint, *x.shape[first + len(ranges) :]))


@handler("index_copy")
def _index_copy(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    axis = x.axis(a["dim"])
    return _write(ctx, x, axis, a["index"], a["source"])


@handler("index_put", "_unsafe_index_put")
def _index_put(ctx: Context, a: Arguments) -> Tensor:
    x, indices = a["self"], a["indices"]
    given = {axis: index for axis, index in enumerate(indices) if index is not None}
    if a["accumulate"]:
        raise NotSupported("adds to the positions that it writes")
    if len(given) != 1:
        raise NotSupported("writes at positions given by several tensors")
    ((axis, index),) = given.items()
    if index.dtype is DType.BOOL or index.rank > 1:
        raise NotSupported("writes at positions given by a mask or a matrix")
    return _write(ctx, x, axis, index, a["values"])


@handler("slice_scatter")
def _slice_scatter(ctx: Context, a: Arguments) -> Tensor:
    x, source = a["self"], a["src"]
    axis = x.axis(a["dim"])
    size, start = source.shape[axis], slice_start(x.shape[axis], a["start"])
    if equal(size, x.shape[axis]):
        return ctx.cast(source, x.dtype)
    attrs = {"start": start, "step": a["step"]}
    index = ctx.emit("iota", (), attrs, type=TensorType(DType.I64, (size,)))
    return _write(ctx, x, axis, index, source)


@handler("select_scatter")
def _select_scatter(ctx: Context, a: Arguments) -> Tensor:
    x, position = a["self"], a["index"]
    axis = x.axis(a["dim"])
    if isinstance(position, int) and position < 0:
        position = expand(x.shape[axis] + position)
    index = ctx.reshape(ctx.number(position, DType.I64), (1,))
    return _write(ctx, x, axis, index, ctx.reshape(a["src"], _with(x.shape, axis, 1)))


@handler("copy")
def _copy(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    return ctx.expand(ctx.cast(a["src"], x.dtype), x.shape)


def _write(ctx: Context, x: Tensor, axis: int, index: Tensor, source: Tensor) -> Tensor:
    """`x` with its slices at `index` replaced."""
    vector = ctx.reshape(ctx.cast(index, DType.I64), index.shape or (1,))
    shape = _with(x.shape, axis, vector.shape[0])
    values = ctx.expand(ctx.cast(source, x.dtype), shape)
    return ctx.emit("index_copy", [x, vector, values], {"axis": axis})


def _with(shape: Shape, axis: int, size: Dim) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])
