"""Integers known at compile time: index ranges, extents, comparisons and gathers by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dfcompiler.ir import Dim, Op
from dfcompiler.ir.dims import as_dim, equal, expand, same_shape
from dfcompiler.ir.operators.spec import normalize_axis
from passes.rules.ranges import is_always_nonnegative, range_of
from passes.rules.sweep import Rule, Sweep, as_constant, as_kind


def plain_extent(sweep: Sweep, op: Op) -> Op | None:
    """The value of an expression without symbols is a constant."""
    value = op.attr("value")
    return as_constant(op, value) if isinstance(value, int) else None


def fold_extents(sweep: Sweep, op: Op) -> Op | None:
    """Integer arithmetic on extents is an extent: ``dim {S} + 1`` is ``dim {S + 1}``."""
    if op.type.shape or not op.type.dtype.is_integer:
        return None
    values = [_extent(sweep, name) for name in op.inputs]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    match op.kind, known:
        case "add", [a, b]:
            return as_kind(op, "dim", value=expand(as_dim(a + b)))
        case "sub", [a, b]:
            return as_kind(op, "dim", value=expand(as_dim(a - b)))
        case "mul", [a, b]:
            return as_kind(op, "dim", value=expand(as_dim(a * b)))
        case "neg", [a]:
            return as_kind(op, "dim", value=expand(as_dim(-a)))
        case "cast", [a]:
            return as_kind(op, "dim", value=a)
    return None


def _extent(sweep: Sweep, name: str) -> Dim | None:
    if sweep.type_of(name).shape or not sweep.type_of(name).dtype.is_integer:
        return None
    value = sweep.scalar(name)
    if isinstance(value, int):
        return int(value)
    producer = sweep.producer(name, "dim")
    return None if producer is None else as_dim(producer.attr("value"))


def fold_iota(sweep: Sweep, op: Op) -> Op | None:
    """An index range plus or times an extent, or in another integer type, is an index range."""
    ranges = [sweep.producer(name, "iota") for name in op.inputs[:1]]
    if not ranges or ranges[0] is None or not op.type.dtype.is_integer:
        return None
    start, step = range_of(ranges[0])
    amount = _extent(sweep, op.inputs[1]) if len(op.inputs) == 2 else 0
    if amount is None or op.type.rank != 1:
        return None
    match op.kind:
        case "add":
            return _iota(op, start + amount, step)
        case "sub":
            return _iota(op, start - amount, step)
        case "mul":
            return _iota(op, start * amount, step * amount)
        case "cast":
            return _iota(op, start, step)
    return None


def slice_counting_weight(sweep: Sweep, op: Op) -> Op | None:
    """A slice of a weight that counts up along one axis, such as position numbers."""
    data = sweep.index_weight(op.inputs[0])
    if data is None or op.attr("steps"):
        return None
    long = [axis for axis, size in enumerate(data.shape) if size != 1]
    if len(long) != 1 or data.dtype.kind == "b":
        return None
    flat, axis = data.reshape(-1), long[0]
    start, step = int(flat[0]), int(flat[1]) - int(flat[0])
    if step == 0 or not np.array_equal(flat, start + step * np.arange(flat.size)):
        return None
    attrs = {"start": expand(as_dim(start + step * op.attr("starts")[axis])), "step": step}
    counted = sweep.emit("iota", (), attrs, tensor=op.type.with_shape((op.type.shape[axis],)))
    return as_kind(op, "reshape", counted)


def slice_iota(sweep: Sweep, op: Op) -> Op | None:
    """A slice of an index range is an index range."""
    inner = sweep.producer(op.inputs[0], "iota")
    if inner is None:
        return None
    start, step = range_of(inner)
    (offset,), (stride,) = op.attr("starts"), op.attr("steps") or (1,)
    return _iota(op, start + offset * step, step * stride)


def _iota(op: Op, start: Dim, step: Dim) -> Op:
    """An index range in the place of `op`; attributes at their defaults are left out."""
    attrs = {"start": expand(as_dim(start)), "step": expand(as_dim(step))}
    kept = {k: v for k, v in attrs.items() if not equal(v, int(k == "step"))}
    return as_kind(op, "iota", **kept)


def gather_range(sweep: Sweep, op: Op) -> Op | None:
    """Gathering consecutive rows is a slice; gathering one row again and again, a broadcast."""
    data, index = op.inputs
    axis = normalize_axis(int(op.attr("axis")), len(sweep.shape_of(data)))
    value = sweep.scalar(index)
    if value is not None:
        return _gather_one(sweep, op, axis, int(value))
    producer = sweep.producer(index, "iota")
    if producer is None:
        return None
    start, step = range_of(producer)
    extent = sweep.shape_of(data)[axis]
    (size,) = producer.type.shape
    room = extent - start - size
    if (
        not equal(step, 1)
        or not is_always_nonnegative(sweep, start)
        or not is_always_nonnegative(sweep, room)
    ):
        return None
    zeros: list[Dim] = [0] * op.type.rank
    zeros[axis] = start
    return as_kind(op, "slice", data, starts=tuple(zeros))


def _gather_one(sweep: Sweep, op: Op, axis: int, value: int) -> Op | None:
    data = op.inputs[0]
    shape = sweep.shape_of(data)
    extent = shape[axis]
    if not isinstance(extent, int) or not -extent <= value < extent:
        return None
    starts = tuple(value % extent if i == axis else 0 for i in range(len(shape)))
    one = (*shape[:axis], 1, *shape[axis + 1 :])
    row = sweep.emit("slice", (data,), {"starts": starts}, shape=one, source=op.source)
    ones = (1,) * len(sweep.shape_of(op.inputs[1]))
    spread = (*shape[:axis], *ones, *shape[axis + 1 :])
    return as_kind(op, "expand", sweep.emit("reshape", (row,), shape=spread))


def gather_narrow(sweep: Sweep, op: Op) -> Op | None:
    """Gather by what was broadcast or reshaped, then broadcast or reshape."""
    data, index = op.inputs
    producer = sweep.producer(index, "expand", "reshape")
    if producer is None:
        return None
    axis = normalize_axis(int(op.attr("axis")), len(sweep.shape_of(data)))
    source = producer.inputs[0]
    missing = len(sweep.shape_of(index)) - len(sweep.shape_of(source))
    if producer.kind == "expand" and missing and axis:
        return None
    small = sweep.emit("gather", (data, source), {"axis": axis}, source=op.source)
    return as_kind(op, producer.kind, small)


def wrap_negative(sweep: Sweep, op: Op) -> Op | None:
    """A gather counts negative indices from the end by itself.

    ``gather(data, where(i < 0, i + n, i))`` becomes ``gather(data, i)``.
    """
    data, index = op.inputs
    choice = sweep.producer(index, "where")
    if choice is None:
        return None
    condition, wrapped, plain = choice.inputs
    negative, added = sweep.producer(condition, "less"), sweep.producer(wrapped, "add")
    if negative is None or added is None:
        return None
    axis = normalize_axis(int(op.attr("axis")), len(sweep.shape_of(data)))
    amount = _extent(sweep, added.inputs[1])
    if negative.inputs[0] != plain or added.inputs[0] != plain or amount is None:
        return None
    if sweep.scalar(negative.inputs[1]) != 0 or not equal(amount, sweep.shape_of(data)[axis]):
        return None
    same = same_shape(sweep.shape_of(plain), sweep.shape_of(index))
    return replace(op, inputs=(data, plain)) if same else None


RULES: dict[str, tuple[Rule, ...]] = {
    "dim": (plain_extent,),
    "add": (fold_extents, fold_iota),
    "sub": (fold_extents, fold_iota),
    "mul": (fold_extents, fold_iota),
    "neg": (fold_extents,),
    "cast": (fold_extents, fold_iota),
    "slice": (slice_counting_weight, slice_iota),
    "gather": (wrap_negative, gather_range, gather_narrow),
}
