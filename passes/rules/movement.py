"""Data movement that does nothing, or that two operators do in two steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dfcompiler.ir import Op
from dfcompiler.ir.dims import Dim, Shape, as_dim, equal, expand, same_shape
from dfcompiler.ir.operators.spec import normalize_axis
from passes.rules.sweep import Rule, Sweep, as_constant, as_kind


def drop_unchanged(sweep: Sweep, op: Op) -> str | None:
    """A copy into a value, and a change of shape to the same shape."""
    (x,) = op.inputs
    if op.kind == "copy" and (not op.result.startswith("%") or not sweep.is_fixed(x)):
        return None
    return x if sweep.type_of(x).same(op.type) else None


def spread_constant(sweep: Sweep, op: Op) -> Op | None:
    """A constant whose elements are all the same, in another shape."""
    value = sweep.scalar(op.inputs[0])
    return None if value is None else as_constant(op, value)


def merge_reshapes(sweep: Sweep, op: Op) -> Op | None:
    """A reshape of a reshape is one; of a reduction, it may be what `keepdims` does."""
    inner = sweep.producer(op.inputs[0], "reshape")
    if inner is not None:
        return replace(op, inputs=inner.inputs)
    reduction = sweep.producer(op.inputs[0], *_REDUCTIONS)
    if reduction is None:
        return None
    flipped = not reduction.attr("keepdims", False)
    attrs = {**reduction.attrs, "keepdims": flipped}
    if not same_shape(_reduced(sweep, reduction, flipped), op.type.shape):
        return None
    return as_kind(op, reduction.kind, *reduction.inputs, **attrs)


_REDUCTIONS = ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod", "argmax")


def _reduced(sweep: Sweep, reduction: Op, keepdims: bool) -> Shape:
    shape = sweep.shape_of(reduction.inputs[0])
    listed = reduction.attr("axes") or (reduction.attr("axis"),)
    axes = {normalize_axis(axis, len(shape)) for axis in listed}
    if keepdims:
        return tuple(1 if i in axes else dim for i, dim in enumerate(shape))
    return tuple(dim for i, dim in enumerate(shape) if i not in axes)


def merge_expands(sweep: Sweep, op: Op) -> Op | None:
    """An expand of an expand is one; one that only adds axes of extent 1 is a reshape."""
    (x,) = op.inputs
    inner = sweep.producer(x, "expand")
    if inner is not None:
        return replace(op, inputs=inner.inputs)
    shape = sweep.shape_of(x)
    added = op.type.shape[: op.type.rank - len(shape)]
    if same_shape(op.type.shape[len(added) :], shape) and all(_is_one(dim) for dim in added):
        return as_kind(op, "reshape", x)
    return None


def merge_transposes(sweep: Sweep, op: Op) -> Op | str | None:
    """A transpose of a transpose is one; one that only moves axes of extent 1 is a reshape."""
    (x,), perm = op.inputs, op.attr("perm")
    if perm == tuple(range(len(perm))):
        return x
    inner = sweep.producer(x, "transpose")
    if inner is not None:
        first = inner.attr("perm")
        return as_kind(op, "transpose", *inner.inputs, perm=tuple(first[axis] for axis in perm))
    shape = sweep.shape_of(x)
    kept = [axis for axis in perm if not _is_one(shape[axis])]
    return as_kind(op, "reshape", x) if kept == sorted(kept) else None


def simplify_slice(sweep: Sweep, op: Op) -> Op | str | None:
    """Steps of 1 are the default; a slice of a slice is one; a whole slice is nothing."""
    (x,) = op.inputs
    starts, steps = _starts(op), _steps(op)
    if all(step == 1 for step in steps):
        if "steps" in op.attrs:
            return as_kind(op, "slice", x, starts=starts)
        if all(equal(s, 0) for s in starts) and sweep.type_of(x).same(op.type):
            return x
    inner = sweep.producer(x, "slice")
    if inner is None:
        return None
    first, strides = _starts(inner), _steps(inner)
    merged = tuple(
        expand(as_dim(a + b * s)) for a, b, s in zip(first, strides, starts, strict=True)
    )
    both = tuple(a * b for a, b in zip(strides, steps, strict=True))
    return as_kind(op, "slice", *inner.inputs, starts=merged, steps=both)


def slice_part(sweep: Sweep, op: Op) -> Op | None:
    """A slice that lies in one input of a concatenation reads that input."""
    inner = sweep.producer(op.inputs[0], "concat")
    if inner is None:
        return None
    axis = normalize_axis(int(inner.attr("axis")), op.type.rank)
    starts, steps, size = _starts(op), _steps(op), op.type.shape[axis]
    start = starts[axis]
    if steps[axis] != 1 or not isinstance(start, int) or not isinstance(size, int):
        return None
    offset = 0
    for part in inner.inputs:
        extent = sweep.shape_of(part)[axis]
        if not isinstance(extent, int):
            return None
        if offset <= start and start + size <= offset + extent:
            moved = (*starts[:axis], start - offset, *starts[axis + 1 :])
            return as_kind(op, "slice", part, starts=moved, steps=steps)
        offset += extent
    return None


def slice_expanded(sweep: Sweep, op: Op) -> Op | None:
    """A slice of a broadcast broadcasts a slice."""
    inner = sweep.producer(op.inputs[0], "expand")
    if inner is None:
        return None
    (source,) = inner.inputs
    shape, missing = sweep.shape_of(source), op.type.rank - len(sweep.shape_of(source))
    kept = [_is_one(dim) and not _is_one(whole) for dim, whole in _pairs(shape, inner)]
    starts, steps, sizes = _starts(op)[missing:], _steps(op)[missing:], op.type.shape[missing:]
    small = sweep.emit(
        "slice",
        (source,),
        {
            "starts": tuple(0 if k else s for k, s in zip(kept, starts, strict=True)),
            "steps": tuple(1 if k else s for k, s in zip(kept, steps, strict=True)),
        },
        shape=tuple(1 if k else s for k, s in zip(kept, sizes, strict=True)),
        source=op.source,
    )
    return as_kind(op, "expand", small)


def slice_unsqueezed(sweep: Sweep, op: Op) -> Op | None:
    """A slice of a value with axes of extent 1 added in front adds them to a slice."""
    inner = sweep.producer(op.inputs[0], "reshape")
    if inner is None:
        return None
    (source,) = inner.inputs
    shape = sweep.shape_of(source)
    added = inner.type.rank - len(shape)
    if added <= 0 or not same_shape(inner.type.shape, (*(1,) * added, *shape)):
        return None
    small = sweep.emit(
        "slice",
        (source,),
        {"starts": _starts(op)[added:], "steps": _steps(op)[added:]},
        shape=op.type.shape[added:],
        source=op.source,
    )
    return as_kind(op, "reshape", small)


def _pairs(shape: Shape, expanded: Op) -> list[tuple[Dim, Dim]]:
    return list(zip(shape, expanded.type.shape[expanded.type.rank - len(shape) :], strict=True))


def simplify_concat(sweep: Sweep, op: Op) -> Op | str | None:
    """One input is no concatenation; nested ones are one; empty inputs add nothing."""
    axis = normalize_axis(int(op.attr("axis")), op.type.rank)
    if len(op.inputs) == 1:
        return op.inputs[0]
    inputs: list[str] = []
    for name in op.inputs:
        inner = sweep.producer(name, "concat")
        if inner is not None and normalize_axis(int(inner.attr("axis")), op.type.rank) == axis:
            inputs += inner.inputs
        elif not equal(sweep.shape_of(name)[axis], 0):
            inputs.append(name)
    if tuple(inputs) != op.inputs and inputs:
        return replace(op, inputs=tuple(inputs))
    return as_kind(op, "concat", *inputs, axis=axis) if op.attr("axis") != axis else None


def join_slices(sweep: Sweep, op: Op) -> Op | None:
    """Neighbouring slices of one value, concatenated, are one slice of it."""
    parts = [sweep.producer(name, "slice") for name in op.inputs]
    slices = [part for part in parts if part is not None]
    if len(slices) < len(parts):
        return None
    first, axis = slices[0], int(op.attr("axis"))
    stop = _starts(first)[axis]
    for part in slices:
        starts = _starts(part)
        others = [i for i in range(op.type.rank) if i != axis]
        aligned = all(equal(starts[i], _starts(first)[i]) for i in others)
        if part.inputs != first.inputs or not aligned or not equal(starts[axis], stop):
            return None
        if any(step != 1 for step in _steps(part)):
            return None
        stop = starts[axis] + part.type.shape[axis]
    return as_kind(op, "slice", *first.inputs, starts=_starts(first))


def drop_padding(sweep: Sweep, op: Op) -> str | None:
    """Padding by nothing."""
    widths: Sequence[Dim] = (*op.attr("before"), *op.attr("after"))
    return op.inputs[0] if all(equal(width, 0) for width in widths) else None


def _starts(op: Op) -> tuple[Dim, ...]:
    return tuple(op.attr("starts"))


def _steps(op: Op) -> tuple[int, ...]:
    return tuple(op.attr("steps") or (1,) * op.type.rank)


def _is_one(dim: Dim) -> bool:
    return isinstance(dim, int) and dim == 1


RULES: dict[str, tuple[Rule, ...]] = {
    "copy": (drop_unchanged,),
    "reshape": (drop_unchanged, spread_constant, merge_reshapes),
    "expand": (drop_unchanged, spread_constant, merge_expands),
    "transpose": (spread_constant, merge_transposes),
    "slice": (spread_constant, simplify_slice, slice_part, slice_expanded, slice_unsqueezed),
    "concat": (simplify_concat, join_slices),
    "pad": (drop_padding,),
}
