"""Statistical normalizations and reductions: a result element depends on a whole axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dfcompiler.ir.dims import equal
from dfcompiler.ir.operators.spec import (
    Array,
    FlopRule,
    OpClass,
    OpSpec,
    Types,
    flops_per_input,
    normalize_axis,
)
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType, TensorType


def reduced_axes(op: Op, rank: int) -> tuple[int, ...]:
    """The axes that a reduction removes, counted from the front, in order."""
    return tuple(sorted(normalize_axis(axis, rank) for axis in op.attr("axes")))


def _reduction(op: Op, types: Types) -> TensorType:
    (x,) = types
    axes = reduced_axes(op, x.rank)
    if op.attr("keepdims", False):
        shape = tuple(1 if i in axes else dim for i, dim in enumerate(x.shape))
    else:
        shape = tuple(dim for i, dim in enumerate(x.shape) if i not in axes)
    return TensorType(x.dtype, shape)


def _argmax(op: Op, types: Types) -> TensorType:
    (x,) = types
    axis = normalize_axis(int(op.attr("axis")), x.rank)
    keep = op.attr("keepdims", False)
    middle = (1,) if keep else ()
    return TensorType(DType.I64, (*x.shape[:axis], *middle, *x.shape[axis + 1 :]))


def _along_axis(op: Op, types: Types) -> TensorType:
    x = types[0]
    normalize_axis(int(op.attr("axis")), x.rank)
    return TensorType(x.dtype, x.shape)


def _last_axis(op: Op, types: Types) -> TensorType:
    x = types[0]
    if not x.rank:
        raise ValueError(f"{op.kind} takes at least one axis, found {x}")
    for parameter in types[1:]:
        if parameter.rank != 1 or not equal(parameter.shape[0], x.shape[-1]):
            raise ValueError(f"scale and bias must be [{x.shape[-1]}], found {parameter}")
        if parameter.dtype is not x.dtype:
            raise ValueError(f"scale and bias must be {x.dtype.value}, found {parameter}")
    return TensorType(x.dtype, x.shape)


def _norm_flops(count: int) -> FlopRule:
    """`count` operations per element, and one for each parameter."""
    return lambda op, types: types[0].elements * (count + len(types) - 1)


def _reduce_with(function: Callable[..., Array]) -> Callable[..., Array]:
    def reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
        (x,) = inputs
        axes, keep = reduced_axes(op, x.ndim), bool(op.attr("keepdims", False))
        return np.asarray(function(x, axis=axes, keepdims=keep)).astype(x.dtype)

    return reference


def _argmax_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    axis, keep = op.attr("axis"), bool(op.attr("keepdims", False))
    return np.asarray(np.argmax(inputs[0], axis=axis, keepdims=keep))


def _cumsum_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    return np.cumsum(inputs[0], axis=op.attr("axis"), dtype=inputs[0].dtype)


def _softmax_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    (x,), axis = inputs, op.attr("axis")
    weights = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return np.asarray(weights / np.sum(weights, axis=axis, keepdims=True))


def _layer_norm_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    x = inputs[0]
    mean = np.mean(x, axis=-1, keepdims=True)
    variance = np.mean((x - mean) ** 2, axis=-1, keepdims=True)
    result = (x - mean) / np.sqrt(variance + x.dtype.type(op.attr("epsilon")))
    if len(inputs) > 1:
        result = result * inputs[1]
    return np.asarray(result + inputs[2] if len(inputs) > 2 else result)


def _rms_norm_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    x = inputs[0]
    mean_square = np.mean(x * x, axis=-1, keepdims=True)
    result = x / np.sqrt(mean_square + x.dtype.type(op.attr("epsilon")))
    return np.asarray(result * inputs[1] if len(inputs) > 1 else result)


def _reduction_row(kind: str, function: Callable[..., Array]) -> OpSpec:
    return OpSpec(
        kind,
        OpClass.NORMALIZATION,
        (1, 1),
        _reduction,
        flops_per_input(1),
        _reduce_with(function),
        attrs=("axes",),
        optional={"keepdims": False},
    )


ROWS = (
    _reduction_row("reduce_sum", np.sum),
    _reduction_row("reduce_mean", np.mean),
    _reduction_row("reduce_max", np.max),
    _reduction_row("reduce_min", np.min),
    _reduction_row("reduce_prod", np.prod),
    OpSpec(
        "argmax",
        OpClass.NORMALIZATION,
        (1, 1),
        _argmax,
        flops_per_input(1),
        _argmax_reference,
        attrs=("axis",),
        optional={"keepdims": False},
        doc="index of the first greatest element",
    ),
    OpSpec(
        "cumsum",
        OpClass.NORMALIZATION,
        (1, 1),
        _along_axis,
        flops_per_input(1),
        _cumsum_reference,
        attrs=("axis",),
        doc="inclusive running sum",
    ),
    OpSpec(
        "softmax",
        OpClass.NORMALIZATION,
        (1, 1),
        _along_axis,
        flops_per_input(5),
        _softmax_reference,
        attrs=("axis",),
    ),
    OpSpec(
        "layer_norm",
        OpClass.NORMALIZATION,
        (1, 3),
        _last_axis,
        _norm_flops(5),
        _layer_norm_reference,
        attrs=("epsilon",),
        doc="x, scale, bias: normalizes the last axis to mean 0 and variance 1",
    ),
    OpSpec(
        "rms_norm",
        OpClass.NORMALIZATION,
        (1, 2),
        _last_axis,
        _norm_flops(3),
        _rms_norm_reference,
        attrs=("epsilon",),
        doc="x, scale: divides the last axis by its root mean square",
    ),
)
