"""Which results are memory that is there already, read with another offset and other strides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from dfcompiler.ir.dims import Dim, Shape, as_dim, equal, expand, product, same_shape
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import PhysicalAxis, TensorType


@dataclass(frozen=True)
class View:
    """Where the elements of a value lie in a piece of memory.

    Attributes:
        offset: elements in front of the first one.
        strides: elements between neighbours along each axis; of a tiled layout along each physical
            axis, in their order.
    """

    offset: Dim
    strides: tuple[Dim, ...]


@cache
def whole(tensor: TensorType) -> View:
    """A value that has its memory for itself."""
    layout = tensor.layout
    if layout.is_tiled:
        return View(0, row_major_strides(layout.physical_shape(tensor.shape)))
    order = layout.permutation(tensor.rank)
    strides = row_major_strides(layout.physical_shape(tensor.shape))
    by_axis = dict(zip(order, strides, strict=True))
    return View(0, tuple(by_axis[axis] for axis in range(tensor.rank)))


@cache
def row_major_strides(shape: Shape) -> tuple[Dim, ...]:
    """Elements between neighbours along each axis when the last one is innermost."""
    return tuple(product(shape[axis + 1 :]) for axis in range(len(shape)))


def is_view(op: Op, source: TensorType) -> bool:
    """Whether the result can be the memory of its input, where that has its memory for itself."""
    return op.kind in _RULES and view_of(op, source, whole(source)) is not None


def view_of(op: Op, source: TensorType, base: View) -> View | None:
    """Where the result lies when it is the memory of its input; None if it cannot be that.

    A slice with steps of 1 always can, a transpose when the result's layout says so, a reshape when
    the axes that it joins follow each other without gaps. Kernels read vectors along the innermost
    axis, so its elements must stay neighbours.

    Args:
        op: any operator; only slices, reshapes and transposes can be views.
        source: the type of its input.
        base: where the input lies.
    """
    rule = _RULES.get(op.kind)
    found = rule(op, source, base) if rule else None
    return found if found is not None and _is_contiguous_inside(op.type, found) else None


def is_contiguous(tensor: TensorType, view: View) -> bool:
    """Whether the elements lie in the order of the type's layout without gaps."""
    shape = tensor.layout.physical_shape(tensor.shape) if tensor.layout.is_tiled else tensor.shape
    pairs = zip(shape, view.strides, whole(tensor).strides, strict=True)
    return all(_is_one(extent) or equal(a, b) for extent, a, b in pairs)


def _slice(op: Op, source: TensorType, base: View) -> View | None:
    starts, steps = op.attr("starts"), op.attr("steps") or ()
    if op.type.layout != source.layout or any(not equal(as_dim(step), 1) for step in steps):
        return None
    strides = dict(enumerate(base.strides))
    if source.layout.is_tiled:
        tiled = {axis.axis for axis in source.layout.order if axis.tile}
        if any(starts[a] != 0 or not equal(op.type.shape[a], source.shape[a]) for a in tiled):
            return None
        order = source.layout.order
        strides = {a.axis: s for a, s in zip(order, base.strides, strict=True) if not a.tile}
    offset = base.offset
    for axis, stride in strides.items():
        offset = offset + starts[axis] * stride
    return View(expand(as_dim(offset)), base.strides)


def _transpose(op: Op, source: TensorType, base: View) -> View | None:
    if op.type.layout.is_tiled or source.layout.is_tiled:
        return None
    perm = op.attr("perm")
    order = tuple(perm[axis] for axis in op.type.layout.permutation(op.type.rank))
    if order != source.layout.permutation(source.rank):
        return None
    return View(base.offset, tuple(base.strides[axis] for axis in perm))


def _reshape(op: Op, source: TensorType, base: View) -> View | None:
    if source.layout.is_tiled:
        return _without_unit_axes(op, source, base)
    if not (op.type.layout.is_row_major and source.layout.is_row_major):
        return None
    if base.strides == whole(source).strides:
        return View(base.offset, whole(op.type).strides)
    strides = _split_and_joined(source.shape, base.strides, op.type.shape)
    return None if strides is None else View(base.offset, strides)


def _split_and_joined(
    shape: Shape, strides: Sequence[Dim], wanted: Shape
) -> tuple[Dim, ...] | None:
    """The strides of the same elements under another shape; None where they have gaps in it.

    Runs of axes without gaps between them are cut into the wanted axes, from the last one back.
    """
    found: list[Dim] = [1] * len(wanted)
    axis = len(wanted) - 1
    for extent, step in _runs(shape, strides):
        taken: Dim = 1
        while axis >= 0 and (_is_one(wanted[axis]) or not equal(taken, extent)):
            found[axis] = expand(as_dim(taken * step))
            taken = expand(as_dim(taken * wanted[axis]))
            axis -= 1
        if not equal(taken, extent):
            return None
    return tuple(found) if axis < 0 else None


def _runs(shape: Shape, strides: Sequence[Dim]) -> list[tuple[Dim, Dim]]:
    """Elements and inner stride of the runs of axes that follow each other, the last run first."""
    axes = [pair for pair in zip(shape, strides, strict=True) if not _is_one(pair[0])]
    runs: list[tuple[Dim, Dim]] = []
    for extent, stride in reversed(axes):
        if runs and equal(stride, as_dim(runs[-1][0] * runs[-1][1])):
            runs[-1] = (product((runs[-1][0], extent)), runs[-1][1])
        else:
            runs.append((extent, stride))
    return runs or [(1, 1)]


def _without_unit_axes(op: Op, source: TensorType, base: View) -> View | None:
    """Tiles stay where they are when axes of extent 1, in front of them, are left out."""
    order = source.layout.order
    tiled = {axis.axis for axis in order if axis.tile}
    kept = [a for a, dim in enumerate(source.shape) if a in tiled or not _is_one(dim)]
    if not same_shape(op.type.shape, [source.shape[a] for a in kept]):
        return None
    number = {axis: position for position, axis in enumerate(kept)}
    walked = [i for i, axis in enumerate(order) if axis.axis in number]
    renamed: tuple[PhysicalAxis, ...] = tuple(
        replace(order[i], axis=number[order[i].axis]) for i in walked
    )
    if op.type.layout.order != renamed:
        return None
    return View(base.offset, tuple(base.strides[i] for i in walked))


def _is_contiguous_inside(tensor: TensorType, view: View) -> bool:
    """Whether neighbours along the innermost axis are neighbours in memory."""
    if tensor.layout.is_tiled:
        return True
    for axis in reversed(tensor.layout.permutation(tensor.rank)):
        if not _is_one(tensor.shape[axis]):
            return view.strides[axis] == 1
    return True


def _is_one(dim: Dim) -> bool:
    return isinstance(dim, int) and dim == 1


VIEW_KINDS = frozenset(("slice", "transpose", "reshape"))
"""Operators whose result may be memory that is there already."""

_RULES = {"slice": _slice, "transpose": _transpose, "reshape": _reshape}
