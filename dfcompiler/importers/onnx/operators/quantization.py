"""Linear quantization."""

from __future__ import annotations

from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.node import Node, operator
from dfcompiler.importers.onnx.tensors import dtype_of
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir import DType
from dfcompiler.ir.dims import Dim
from dfcompiler.ir.operators.spec import normalize_axis

_RANGES = {
    DType.I8: (-128, 127),
    DType.U8: (0, 255),
    DType.I16: (-32768, 32767),
    DType.U16: (0, 65535),
}


@operator("DequantizeLinear")
def _dequantize(context: Context, node: Node) -> Value:
    codes, scale, zero = node[0], node[1], node.optional(2)
    parameters = [_along_axis(context, node, codes, p) for p in (scale, zero) if p is not None]
    number = int(node.attr("output_dtype", 0))
    dtype = dtype_of(number, "the result") if number else scale.dtype
    return context.cast(context.op("dequantize", [codes, *parameters]), dtype)


@operator("QuantizeLinear")
def _quantize(context: Context, node: Node) -> Value:
    x, scale, zero = node[0], node[1], node.optional(2)
    number = int(node.attr("output_dtype", 0))
    dtype = dtype_of(number, "the result") if number else DType.U8
    dtype = dtype if zero is None else zero.dtype
    if dtype not in _RANGES:
        raise node.unsupported(f"codes of type {dtype.value}")
    wide = _along_axis(context, node, x, scale)
    rounded = context.op("round", [context.op("div", [x, context.cast(wide, x.dtype)])])
    if zero is not None:
        shift = context.cast(_along_axis(context, node, x, zero), x.dtype)
        rounded = context.op("add", [rounded, shift])
    low, high = _RANGES[dtype]
    bounded = context.op("max", [rounded, context.scalar(low, x.dtype)])
    bounded = context.op("min", [bounded, context.scalar(high, x.dtype)])
    return context.cast(bounded, dtype)


def _along_axis(context: Context, node: Node, x: Value, parameter: Value) -> Value:
    """A scale or zero point in a shape that broadcasts to `x`."""
    if parameter.rank == 0:
        return parameter
    if parameter.rank == 1 and parameter.shape == (1,):
        return context.reshape(parameter, ())
    axis = normalize_axis(int(node.attr("axis", 1)), x.rank)
    if parameter.rank == 1:
        column = tuple(parameter.shape[0] if a == axis else 1 for a in range(x.rank))
        return context.reshape(parameter, column)
    return _repeated(context, x, parameter, axis, int(node.attr("block_size", 0)))


def _repeated(context: Context, x: Value, parameter: Value, axis: int, block: int) -> Value:
    """One scale for each block along `axis`, repeated for the elements of the block."""
    if not block or parameter.rank != x.rank:
        raise ValueError(f"scales of shape {list(parameter.shape)} for {x.type}")
    shape = parameter.shape
    single: tuple[Dim, ...] = (*shape[: axis + 1], 1, *shape[axis + 1 :])
    wide: tuple[Dim, ...] = (*shape[: axis + 1], block, *shape[axis + 1 :])
    rows = tuple(dim * block if a == axis else dim for a, dim in enumerate(shape))
    blocks = context.expand(context.reshape(parameter, single), wide)
    return context.slice(context.reshape(blocks, rows), (0,) * x.rank, x.shape)
