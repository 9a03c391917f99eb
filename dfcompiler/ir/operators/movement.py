"""Data movement: results whose elements are elements of the inputs, or of nothing but indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dfcompiler.ir.dims import Dim, equal, evaluate, product, same_shape, show_dim
from dfcompiler.ir.operators.spec import (
    Array,
    InferRule,
    OpClass,
    OpSpec,
    Reference,
    Types,
    broadcast_shapes,
    no_flops,
    normalize_axis,
    same_dtype,
)
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import TensorType


def _declared(op: Op, types: Types) -> TensorType:
    return op.type


def _copy(op: Op, types: Types) -> TensorType:
    return TensorType(types[0].dtype, types[0].shape)


def _reshape(op: Op, types: Types) -> TensorType:
    (x,) = types
    if not equal(product(x.shape), product(op.type.shape)):
        raise ValueError(
            f"{x} has {show_dim(product(x.shape))} elements and the result "
            f"{show_dim(product(op.type.shape))}"
        )
    return TensorType(x.dtype, op.type.shape)


def _expand(op: Op, types: Types) -> TensorType:
    (x,) = types
    if not same_shape(broadcast_shapes([x.shape, op.type.shape]), op.type.shape):
        raise ValueError(f"{x} does not broadcast to {op.type}")
    return TensorType(x.dtype, op.type.shape)


def _transpose(op: Op, types: Types) -> TensorType:
    (x,), perm = types, op.attr("perm")
    if sorted(perm) != list(range(x.rank)):
        raise ValueError(f"perm {perm} is no permutation of {x.rank} axes")
    return TensorType(x.dtype, tuple(x.shape[axis] for axis in perm))


def _slice(op: Op, types: Types) -> TensorType:
    x = types[0]
    starts, steps = op.attr("starts"), op.attr("steps", (1,) * x.rank)
    if not len(starts) == len(steps) == op.type.rank == x.rank:
        raise ValueError(f"starts, steps and result must have the rank of {x}")
    for start, step, size, extent in zip(starts, steps, op.type.shape, x.shape, strict=True):
        known = all(isinstance(v, int) for v in (start, step, size, extent))
        if not known or size == 0:
            continue
        if not (0 <= start < extent and 0 <= start + (size - 1) * step < extent):
            raise ValueError(f"{size} elements from {start} by {step} do not lie in 0..{extent}")
    return TensorType(x.dtype, op.type.shape)


def _concat(op: Op, types: Types) -> TensorType:
    first = types[0]
    axis = normalize_axis(int(op.attr("axis")), first.rank)
    total: Dim = 0
    for t in types:
        if t.rank != first.rank:
            raise ValueError(f"{t} and {first} have different ranks")
        rest = (*t.shape[:axis], *t.shape[axis + 1 :])
        if not same_shape(rest, (*first.shape[:axis], *first.shape[axis + 1 :])):
            raise ValueError(f"{t} and {first} differ outside axis {axis}")
        total = total + t.shape[axis]
    return TensorType(same_dtype(types), (*first.shape[:axis], total, *first.shape[axis + 1 :]))


def _pad(op: Op, types: Types) -> TensorType:
    (x,), before, after = types, op.attr("before"), op.attr("after")
    if not len(before) == len(after) == x.rank:
        raise ValueError(f"before and after must have {x.rank} entries")
    shape = tuple(b + d + a for b, d, a in zip(before, x.shape, after, strict=True))
    return TensorType(x.dtype, shape)


def _gather(op: Op, types: Types) -> TensorType:
    x, index = types
    if not index.dtype.is_integer:
        raise ValueError(f"the index is {index.dtype.value}, not an integer type")
    axis = normalize_axis(int(op.attr("axis")), x.rank)
    return TensorType(x.dtype, (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def _take_along(op: Op, types: Types) -> TensorType:
    x, index = types
    if x.rank != index.rank:
        raise ValueError(f"the index has rank {index.rank}, the data {x.rank}")
    normalize_axis(int(op.attr("axis")), x.rank)
    return TensorType(x.dtype, index.shape)


def _index_copy(op: Op, types: Types) -> TensorType:
    data, index, source = types
    x = data
    if op.attr("part") is not None:
        if data.rank < 2:
            raise ValueError(f"{data} has no parts along its first axis")
        x = TensorType(data.dtype, data.shape[1:])
    axis = normalize_axis(int(op.attr("axis")), x.rank)
    if index.rank != 1 or not equal(index.shape[0], source.shape[axis]):
        raise ValueError(f"the index must be [{show_dim(source.shape[axis])}], found {index}")
    rest = (*source.shape[:axis], *source.shape[axis + 1 :])
    if not same_shape(rest, (*x.shape[:axis], *x.shape[axis + 1 :])):
        raise ValueError(f"{source} and {x} differ outside axis {axis}")
    return TensorType(same_dtype([x, source]), data.shape)


def _dim(op: Op, types: Types) -> TensorType:
    return TensorType(op.type.dtype)


def _iota(op: Op, types: Types) -> TensorType:
    if op.type.rank != 1 or not op.type.dtype.is_integer:
        raise ValueError(f"iota gives a vector of integers, not {op.type}")
    return TensorType(op.type.dtype, op.type.shape)


def _shape_of(op: Op, bindings: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(evaluate(dim, bindings) for dim in op.type.shape)


def _copy_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    return inputs[0]


def _reshape_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    return inputs[0].reshape(_shape_of(op, bindings))


def _expand_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    return np.broadcast_to(inputs[0], _shape_of(op, bindings))


def _transpose_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    return np.transpose(inputs[0], op.attr("perm"))


def _slice_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    starts, steps = op.attr("starts"), op.attr("steps", (1,) * inputs[0].ndim)
    picks = [
        evaluate(start, bindings) + step * np.arange(size)
        for start, step, size in zip(starts, steps, _shape_of(op, bindings), strict=True)
    ]
    return inputs[0][np.ix_(*picks)] if picks else inputs[0]


def _concat_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    return np.concatenate(inputs, axis=op.attr("axis"))


def _pad_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    widths = [
        (evaluate(b, bindings), evaluate(a, bindings))
        for b, a in zip(op.attr("before"), op.attr("after"), strict=True)
    ]
    if not widths:
        return inputs[0]  # numpy pads no rank-0 array
    return np.pad(inputs[0], widths, constant_values=op.attr("value", 0))


def _gather_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    return np.take(inputs[0], inputs[1], axis=op.attr("axis"))


def _take_along_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    return np.take_along_axis(inputs[0], inputs[1], axis=op.attr("axis"))


def _index_copy_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    x, index, source = inputs
    result = x.copy()
    part = op.attr("part")
    changed = result if part is None else result[evaluate(part, bindings)]
    axis = normalize_axis(int(op.attr("axis")), changed.ndim)
    changed[(slice(None),) * axis + (index,)] = source
    return result


def _constant_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    value = np.asarray(op.attr("value"), dtype=op.type.dtype.numpy)
    return np.broadcast_to(value, _shape_of(op, bindings))


def _dim_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    return np.asarray(evaluate(op.attr("value"), bindings), dtype=op.type.dtype.numpy)


def _iota_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    (size,) = _shape_of(op, bindings)
    start = evaluate(op.attr("start", 0), bindings)
    step = evaluate(op.attr("step", 1), bindings)
    return (start + step * np.arange(size)).astype(op.type.dtype.numpy)


def _row(
    kind: str,
    arity: tuple[int, int],
    infer: InferRule,
    reference: Reference,
    attrs: tuple[str, ...] = (),
    optional: Mapping[str, Any] | None = None,
    doc: str = "",
) -> OpSpec:
    return OpSpec(kind, OpClass.MOVEMENT, arity, infer, no_flops, reference, attrs, optional, doc)


ROWS = (
    _row("copy", (1, 1), _copy, _copy_reference, doc="the value itself, for writing a container"),
    _row("reshape", (1, 1), _reshape, _reshape_reference, doc="row-major order kept"),
    _row("expand", (1, 1), _expand, _expand_reference, doc="numpy broadcast to the result's shape"),
    _row("transpose", (1, 1), _transpose, _transpose_reference, ("perm",)),
    _row(
        "slice",
        (1, 1),
        _slice,
        _slice_reference,
        ("starts",),
        {"steps": None},
        "element i of axis a is starts[a] + i · steps[a]; extents come from the result's type",
    ),
    _row("concat", (1, -1), _concat, _concat_reference, ("axis",)),
    _row("pad", (1, 1), _pad, _pad_reference, ("before", "after"), {"value": 0}),
    _row(
        "gather",
        (2, 2),
        _gather,
        _gather_reference,
        ("axis",),
        doc="data, index: slices of data along axis; negative indices count from the end",
    ),
    _row(
        "take_along",
        (2, 2),
        _take_along,
        _take_along_reference,
        ("axis",),
        doc="data, index of the same rank: one element along axis per index",
    ),
    _row(
        "index_copy",
        (3, 3),
        _index_copy,
        _index_copy_reference,
        ("axis",),
        {"part": None},
        doc="data, index [n], source: data with its slices index[i] along axis replaced, or with "
        "part those of data[part]; written to the container that it reads, it happens in place",
    ),
    _row(
        "constant",
        (0, 0),
        _declared,
        _constant_reference,
        ("value",),
        doc="a number broadcast to the shape, or nested lists of numbers",
    ),
    _row("dim", (0, 0), _dim, _dim_reference, ("value",), doc="the value of an expression"),
    _row(
        "iota",
        (0, 0),
        _iota,
        _iota_reference,
        (),
        {"start": 0, "step": 1},
        "start + step · i",
    ),
)
