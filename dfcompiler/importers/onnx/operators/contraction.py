"""Matrix products and what reduces to one."""

from __future__ import annotations

from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.node import Node, operator
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir.dims import product


def matmul(context: Context, a: Value, b: Value) -> Value:
    """The product of matrices, batch axes broadcast."""
    context.unify(a.shape[-1], b.shape[-2])
    context.broadcast([a.shape[:-2], b.shape[:-2]])
    return context.op("matmul", [a, b])


@operator("MatMul")
def _matmul(context: Context, node: Node) -> Value:
    a, b = node.values()
    if not a.rank or not b.rank:
        raise ValueError("MatMul takes no scalar")
    left = context.reshape(a, (1, *a.shape)) if a.rank == 1 else a
    right = context.reshape(b, (*b.shape, 1)) if b.rank == 1 else b
    result = matmul(context, left, right)
    shape = result.shape
    if a.rank == 1:
        shape = (*shape[:-2], shape[-1])
    if b.rank == 1:
        shape = shape[:-1]
    return context.reshape(result, shape)


@operator("Gemm")
def _gemm(context: Context, node: Node) -> Value:
    a, b, c = node[0], node[1], node.optional(2)
    if a.rank != 2 or b.rank != 2:
        raise ValueError(f"Gemm takes matrices, found ranks {a.rank} and {b.rank}")
    a = context.transpose(a, (1, 0)) if node.attr("transA", 0) else a
    b = context.transpose(b, (1, 0)) if node.attr("transB", 0) else b
    result = _scaled(context, matmul(context, a, b), node.attr("alpha", 1.0))
    if c is None:
        return result
    return context.op("add", [result, _scaled(context, c, node.attr("beta", 1.0))])


def _scaled(context: Context, x: Value, factor: float) -> Value:
    return x if factor == 1.0 else context.op("mul", [x, context.scalar(factor, x.dtype)])


@operator("Conv")
def _patches(context: Context, node: Node) -> Value:
    """A convolution of patches that do not overlap: cut, lay flat, multiply."""
    x, w, bias = node.ranked(0, 3), node.ranked(1, 3), node.optional(2)
    if x.rank != w.rank:
        raise ValueError(f"an image of rank {x.rank} and a kernel of rank {w.rank}")
    spatial = x.rank - 2
    kernel = w.shape[2:]
    strides = tuple(node.attr("strides", (1,) * spatial))
    padded = any(node.attr("pads", ())) or node.attr("auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
    )
    dilated = set(node.attr("dilations", (1,))) != {1}
    if strides != kernel or padded or dilated or node.attr("group", 1) != 1:
        raise node.unsupported("overlapping, padded, dilated or grouped windows")
    context.unify(x.shape[1], w.shape[1])
    channels, filters = w.shape[1], w.shape[0]
    grid = tuple(extent // size for extent, size in zip(x.shape[2:], strides, strict=True))
    if not all(isinstance(extent, int) for extent in x.shape[2:]):
        raise node.unsupported("an image of unknown size")
    used = tuple(count * size for count, size in zip(grid, strides, strict=True))
    x = context.slice(x, (0,) * x.rank, (x.shape[0], channels, *used))
    cut = [extent for pair in zip(grid, strides, strict=True) for extent in pair]
    blocks = context.reshape(x, (x.shape[0], channels, *cut))
    places = tuple(range(2, 2 + 2 * spatial, 2))
    inner = tuple(range(3, 3 + 2 * spatial, 2))
    blocks = context.transpose(blocks, (0, *places, 1, *inner))
    width = product((channels, *strides))
    rows = context.reshape(blocks, (x.shape[0], product(grid), width))
    flat = context.transpose(context.reshape(w, (filters, width)), (1, 0))
    result = matmul(context, rows, flat)
    if bias is not None:
        result = context.op("add", [result, bias])
    result = context.transpose(result, (0, 2, 1))
    return context.reshape(result, (x.shape[0], filters, *grid))
