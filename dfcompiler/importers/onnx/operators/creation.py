"""Tensors made from nothing but constants, shapes and indices."""

from __future__ import annotations

import numpy as np
import onnx

from dfcompiler.importers.onnx.contents import Grid, uniform
from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.dimension_arithmetic import is_nonnegative, larger
from dfcompiler.importers.onnx.external_data import ExternalData
from dfcompiler.importers.onnx.node import Node, operator
from dfcompiler.importers.onnx.tensors import dtype_of, tensor_array
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir import DType, TensorType
from dfcompiler.ir.dims import Dim, ceil_div, expand

_LONGEST = 1 << 20
"""Floating-point ranges are constants of the program; integer ones of any length are indices."""


@operator("Constant")
def _constant(context: Context, node: Node) -> Value:
    for name, value in node.attrs.items():
        match name:
            case "value":
                return context.array(_tensor(value), node.proto.output[0])
            case "value_float" | "value_floats":
                return context.array(np.asarray(value, np.float32))
            case "value_int" | "value_ints":
                return context.array(np.asarray(value, np.int64))
    raise node.unsupported(f"the attribute {', '.join(node.attrs) or 'none'}")


def _tensor(tensor: onnx.TensorProto) -> np.ndarray:
    return tensor_array(tensor, ExternalData(None))


@operator("ConstantOfShape")
def _constant_of_shape(context: Context, node: Node) -> Value:
    fill = node.attr("value")
    array = np.zeros(1, np.float32) if fill is None else _tensor(fill)
    if array.size != 1:
        raise ValueError(f"its value has {array.size} elements; expected 1")
    return context.expand(context.array(array.reshape(())), node.dims(0))


@operator("Range")
def _range(context: Context, node: Node) -> Value:
    ends = node.values()
    dtype = ends[0].dtype
    if dtype.is_float:
        start, limit, step = (node.number(i) for i in range(3))
        span = (limit - start) / step if step else np.nan
        if not abs(span) <= _LONGEST:
            raise ValueError(f"a range from {start} to {limit} by {step} cannot be made")
        count = max(int(np.ceil(span)), 0)
        return context.array((start + step * np.arange(count)).astype(dtype.numpy))
    first, last, stride = (node.dim(i) for i in range(3))
    if not isinstance(stride, int):
        raise node.unsupported("a step that is known only at run time")
    if stride == 0:
        raise ValueError("the step of a range is 0")
    span = expand(last - first) if stride > 0 else expand(first - last)
    size = ceil_div(larger(span, 0) if not is_nonnegative(span) else span, abs(stride))
    if isinstance(size, int) and size == 0:
        return context.filled(0, dtype, (0,))
    return context.known(TensorType(dtype, (size,)), Grid(first, (stride,)))


@operator("EyeLike")
def _eye_like(context: Context, node: Node) -> Value:
    x = node.ranked(0, 2, 2)
    dtype = dtype_of(int(node.attr("dtype")), "the result") if node.attr("dtype") else x.dtype
    rows, columns = context.iota(0, x.shape), context.iota(1, x.shape)
    offset = context.scalar(int(node.attr("k", 0)), DType.I64)
    hit = context.op("equal", [context.op("add", [rows, offset]), columns])
    return context.cast(hit, dtype)


@operator("Trilu")
def _trilu(context: Context, node: Node) -> Value:
    x = node.ranked(0, 2)
    diagonal: Dim = node.dim(1) if node.optional(1) is not None else 0
    shape = x.shape[-2:]
    offset = context.reshape(context.dims([diagonal]), ())
    row = context.reshape(context.iota(0, shape[:1]), (shape[0], 1))
    column = context.reshape(context.iota(0, shape[1:]), (1, shape[1]))
    edge = context.op("add", [row, offset])
    kind = "greater_equal" if node.attr("upper", 1) else "less_equal"
    kept = context.op(kind, [column, edge])
    decided = uniform(kept.content)
    if decided is not None:
        return x if decided else context.filled(0, x.dtype, x.shape)
    zero = False if x.dtype is DType.BOOL else 0
    if isinstance(x.content, Grid) and x.content.is_uniform and x.dtype is DType.BOOL:
        return context.expand(kept, x.shape) if x.content.offset else x
    return context.op("where", [kept, x, context.scalar(zero, x.dtype)])
