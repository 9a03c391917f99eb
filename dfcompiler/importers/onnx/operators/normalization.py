"""Softmax and the normalizations."""

from __future__ import annotations

from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.node import Node, operator
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir import DType
from dfcompiler.ir.dims import product, same_shape
from dfcompiler.ir.operators.spec import normalize_axis


@operator("Softmax")
def _softmax(context: Context, node: Node) -> Value:
    (x,) = node.values()
    return context.op("softmax", [x], {"axis": normalize_axis(node.attr("axis", -1), x.rank)})


@operator("LogSoftmax")
def _log_softmax(context: Context, node: Node) -> Value:
    (x,) = node.values()
    along = {"axes": (normalize_axis(node.attr("axis", -1), x.rank),), "keepdims": True}
    shifted = context.op("sub", [x, context.op("reduce_max", [x], along)])
    total = context.op("reduce_sum", [context.op("exp", [shifted])], along)
    return context.op("sub", [shifted, context.op("log", [total])])


@operator("LayerNormalization")
def _layer_norm(context: Context, node: Node) -> tuple[Value | None, ...]:
    x, parameters = node[0], _parameters(node)
    axis = normalize_axis(node.attr("axis", -1), x.rank)
    epsilon = node.attr("epsilon", 1e-5)
    result = _normalized(context, "layer_norm", x, parameters, axis, epsilon)
    mean = deviation = None
    if node.wants(1) or node.wants(2):
        mean, deviation = _statistics(context, x, axis, epsilon)
    return result, mean, deviation


@operator("RMSNormalization")
def _rms_norm(context: Context, node: Node) -> Value:
    x = node[0]
    axis = normalize_axis(node.attr("axis", -1), x.rank)
    epsilon = node.attr("epsilon", 1e-5)
    return _normalized(context, "rms_norm", x, _parameters(node), axis, epsilon)


def _parameters(node: Node) -> list[Value]:
    values = (node.optional(index) for index in range(1, len(node.inputs)))
    return [value for value in values if value is not None]


def _normalized(
    context: Context, kind: str, x: Value, parameters: list[Value], axis: int, epsilon: float
) -> Value:
    """Normalizes the axes from `axis` on, taken together, and applies scale and bias.

    Statistics of half-precision values are taken in single precision, as the standard asks.
    """
    width = x.shape[axis:]
    merged = (*x.shape[:axis], product(width))
    dtype = x.dtype if x.dtype in (DType.F32, DType.F64) else DType.F32
    flat = context.reshape(context.cast(x, dtype), merged)
    fits = [same_shape(p.shape, width) for p in parameters]
    if dtype is x.dtype and all(fits):
        packed = [context.reshape(p, (product(width),)) for p in parameters]
        result = context.op(kind, [flat, *packed], {"epsilon": epsilon})
        return context.reshape(result, x.shape)
    result = context.reshape(context.op(kind, [flat], {"epsilon": epsilon}), x.shape)
    result = context.cast(result, x.dtype)
    for p, step in zip(parameters, ("mul", "add"), strict=False):
        result = context.op(step, [result, context.cast(p, x.dtype)])
    return result


def _statistics(context: Context, x: Value, axis: int, epsilon: float) -> tuple[Value, Value]:
    """Mean and reciprocal standard deviation, in single precision."""
    wide = context.cast(x, DType.F32)
    along = {"axes": tuple(range(axis, x.rank)), "keepdims": True}
    mean = context.op("reduce_mean", [wide], along)
    centered = context.op("sub", [wide, mean])
    variance = context.op("reduce_mean", [context.op("mul", [centered, centered])], along)
    shifted = context.op("add", [variance, context.scalar(epsilon, DType.F32)])
    return mean, context.op("rsqrt", [shifted])


@operator("BatchNormalization")
def _batch_norm(context: Context, node: Node) -> Value:
    x, rest = node.ranked(0, 2), [node.ranked(index, 1, 1) for index in range(1, 5)]
    if node.attr("training_mode", 0):
        raise node.unsupported("training_mode = 1")
    column = (-1, *(1,) * (x.rank - 2))
    scale, bias, mean, variance = (
        context.cast(context.reshape(p, (p.shape[0], *column[1:])), x.dtype) for p in rest
    )
    shifted = context.op("add", [variance, context.scalar(node.attr("epsilon", 1e-5), x.dtype)])
    factor = context.op("div", [scale, context.op("sqrt", [shifted])])
    centered = context.op("sub", [x, mean])
    return context.op("add", [context.op("mul", [centered, factor]), bias])
