"""Element-wise operators: one result element from the elements at the same (broadcast) index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from dfcompiler.ir.dims import Dim
from dfcompiler.ir.operators.spec import (
    Array,
    OpClass,
    OpSpec,
    Types,
    broadcast_shapes,
    flops_per_result,
    no_flops,
    same_dtype,
)
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType, TensorType


def _erf(x: Array) -> Array:
    return np.asarray(_special().erf(x))


def _sigmoid(x: Array) -> Array:
    return np.asarray(_special().expit(x))


def _special() -> Any:
    """SciPy's functions, loaded by the first that needs one: that takes a tenth of a second."""
    return import_module("scipy.special")


def _unary(op: Op, types: Types) -> TensorType:
    return TensorType(types[0].dtype, types[0].shape)


def _float_unary(op: Op, types: Types) -> TensorType:
    if not types[0].dtype.is_float:
        raise ValueError(f"{op.kind} takes floating-point values, not {types[0].dtype.value}")
    return _unary(op, types)


def _predicate(op: Op, types: Types) -> TensorType:
    return TensorType(DType.BOOL, types[0].shape)


def _binary(op: Op, types: Types) -> TensorType:
    return TensorType(same_dtype(types), broadcast_shapes([t.shape for t in types]))


def _comparison(op: Op, types: Types) -> TensorType:
    return _binary(op, types).with_dtype(DType.BOOL)


def _logical(op: Op, types: Types) -> TensorType:
    if any(t.dtype is not DType.BOOL for t in types):
        raise ValueError(f"{op.kind} takes bool values")
    return _binary(op, types)


def _where(op: Op, types: Types) -> TensorType:
    if types[0].dtype is not DType.BOOL:
        raise ValueError(f"the condition is {types[0].dtype.value}, not bool")
    return TensorType(same_dtype(types[1:]), broadcast_shapes([t.shape for t in types]))


def _cast(op: Op, types: Types) -> TensorType:
    return TensorType(op.attr("to"), types[0].shape)


def _dequantize(op: Op, types: Types) -> TensorType:
    if not types[0].dtype.is_integer:
        raise ValueError(f"codes are {types[0].dtype.value}, not an integer type")
    broadcast_shapes([t.shape for t in types])
    return TensorType(types[1].dtype, types[0].shape)


def _rotary(op: Op, types: Types) -> TensorType:
    x, cos, sin = types
    if isinstance(x.shape[-1], int) and x.shape[-1] % 2:
        raise ValueError(f"the last axis has odd extent {x.shape[-1]}")
    broadcast_shapes([x.shape[:-1], cos.shape[:-1], sin.shape[:-1]])
    return TensorType(same_dtype(types), x.shape)


def _numpy(function: Callable[..., Array]) -> Callable[..., Array]:
    def reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
        return np.asarray(function(*inputs))

    return reference


def _divide(a: Array, b: Array) -> Array:
    """Division; of integers, rounded toward zero as in ONNX."""
    if not np.issubdtype(a.dtype, np.integer):
        return np.asarray(a / b)
    quotient = np.abs(a) // np.abs(b)
    return np.asarray((quotient * np.sign(a) * np.sign(b)).astype(a.dtype))


def _gelu_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    (x,) = inputs
    if op.attr("approximate", "none") == "tanh":
        inner = np.sqrt(2 / np.pi).astype(x.dtype) * (x + x.dtype.type(0.044715) * x**3)
        return np.asarray(x.dtype.type(0.5) * x * (1 + np.tanh(inner)))
    return np.asarray(x.dtype.type(0.5) * x * (1 + _erf(x / np.sqrt(x.dtype.type(2)))))


def _gelu_flops(op: Op, types: Types) -> Dim:
    return op.type.elements * (8 if op.attr("approximate", "none") == "tanh" else 5)


def _dequantize_flops(op: Op, types: Types) -> Dim:
    return op.type.elements * (len(types) - 1)


def _cast_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    return np.asarray(inputs[0].astype(op.attr("to").numpy))


def _dequantize_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    codes, scale = inputs[0].astype(inputs[1].dtype), inputs[1]
    if len(inputs) == 3:
        codes = codes - inputs[2].astype(scale.dtype)
    return np.asarray(codes * scale)


def _rotary_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    x, cos, sin = inputs
    half = x.shape[-1] // 2
    result = np.empty_like(x)
    interleaved = op.attr("interleaved", False)
    first = (..., slice(0, None, 2) if interleaved else slice(0, half))
    second = (..., slice(1, None, 2) if interleaved else slice(half, None))
    result[first] = x[first] * cos - x[second] * sin
    result[second] = x[second] * cos + x[first] * sin
    return result


def _row(
    kind: str,
    arity: int,
    infer: Callable[[Op, Types], TensorType],
    function: Callable[..., Array],
    flops: int = 1,
    doc: str = "",
) -> OpSpec:
    count = flops_per_result(flops) if flops else no_flops
    return OpSpec(
        kind, OpClass.ELEMENTWISE, (arity, arity), infer, count, _numpy(function), doc=doc
    )


ROWS = (
    _row("neg", 1, _unary, np.negative),
    _row("abs", 1, _unary, np.abs),
    _row("sign", 1, _unary, np.sign),
    _row("exp", 1, _float_unary, np.exp),
    _row("log", 1, _float_unary, np.log),
    _row("sqrt", 1, _float_unary, np.sqrt),
    _row("rsqrt", 1, _float_unary, lambda x: 1 / np.sqrt(x)),
    _row("reciprocal", 1, _float_unary, lambda x: 1 / x),
    _row("sin", 1, _float_unary, np.sin),
    _row("cos", 1, _float_unary, np.cos),
    _row("tanh", 1, _float_unary, np.tanh),
    _row("erf", 1, _float_unary, _erf),
    _row("sigmoid", 1, _float_unary, _sigmoid, 4),
    _row("silu", 1, _float_unary, lambda x: x * _sigmoid(x), 4, "x · sigmoid(x)"),
    _row("relu", 1, _unary, lambda x: np.maximum(x, 0)),
    _row("floor", 1, _float_unary, np.floor),
    _row("ceil", 1, _float_unary, np.ceil),
    _row("round", 1, _float_unary, np.round, 1, "to nearest, ties to even"),
    _row("not", 1, _unary, np.logical_not, 0),
    _row("isnan", 1, _predicate, np.isnan, 0),
    _row("isinf", 1, _predicate, np.isinf, 0),
    _row("add", 2, _binary, np.add),
    _row("sub", 2, _binary, np.subtract),
    _row("mul", 2, _binary, np.multiply),
    _row("div", 2, _binary, _divide, 1, "integers round toward zero"),
    _row("mod", 2, _binary, np.mod, 1, "the result has the sign of the divisor"),
    _row("pow", 2, _binary, np.power),
    _row("min", 2, _binary, np.minimum, 1, "NaN if either is NaN"),
    _row("max", 2, _binary, np.maximum, 1, "NaN if either is NaN"),
    _row("equal", 2, _comparison, np.equal, 0),
    _row("not_equal", 2, _comparison, np.not_equal, 0),
    _row("less", 2, _comparison, np.less, 0),
    _row("less_equal", 2, _comparison, np.less_equal, 0),
    _row("greater", 2, _comparison, np.greater, 0),
    _row("greater_equal", 2, _comparison, np.greater_equal, 0),
    _row("and", 2, _logical, np.logical_and, 0),
    _row("or", 2, _logical, np.logical_or, 0),
    _row("xor", 2, _logical, np.logical_xor, 0),
    _row("where", 3, _where, np.where, 0, "condition, value if true, value if false"),
    OpSpec(
        "gelu",
        OpClass.ELEMENTWISE,
        (1, 1),
        _float_unary,
        _gelu_flops,
        _gelu_reference,
        optional={"approximate": "none"},
        doc='Gaussian error linear unit; approximate is "none" (erf) or "tanh"',
    ),
    OpSpec(
        "cast",
        OpClass.ELEMENTWISE,
        (1, 1),
        _cast,
        no_flops,
        _cast_reference,
        attrs=("to",),
        doc="to another element type; floats to integers truncate",
    ),
    OpSpec(
        "dequantize",
        OpClass.ELEMENTWISE,
        (2, 3),
        _dequantize,
        _dequantize_flops,
        _dequantize_reference,
        doc="(codes - zero_point) · scale; codes, scale, zero_point broadcast",
    ),
    OpSpec(
        "rotary",
        OpClass.ELEMENTWISE,
        (3, 3),
        _rotary,
        flops_per_result(3),
        _rotary_reference,
        optional={"interleaved": False},
        doc="rotary position embedding of the last axis by cos, sin [..., D/2]; pairs are halves, "
        "or neighbours when interleaved",
    ),
)
