"""ATen operators that multiply matrices, attention among them."""

from __future__ import annotations

import math

from dfcompiler.importers.torch_export.context import Context, NotSupported, Tensor
from dfcompiler.importers.torch_export.registry import Arguments, handler
from dfcompiler.ir.dims import Dim, equal
from dfcompiler.ir.types import DType, TensorType


@handler("linear")
def _linear(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["input"]
    weight: Tensor = a["weight"]
    result = matmul(ctx, x, ctx.swap(weight, 0, 1) if weight.rank == 2 else weight)
    return result if a["bias"] is None else ctx.elementwise("add", result, a["bias"])


@handler("matmul")
def _matmul(ctx: Context, a: Arguments) -> Tensor:
    return matmul(ctx, a["self"], a["other"])


def matmul(ctx: Context, x: Tensor, y: Tensor) -> Tensor:
    """torch.matmul: a vector is a row on the left and a column on the right."""
    left = ctx.reshape(x, (1, *x.shape)) if x.rank == 1 else x
    right = ctx.reshape(y, (*y.shape, 1)) if y.rank == 1 else y
    result = ctx.emit("matmul", [left, right])
    shape = list(result.shape)
    if y.rank == 1:
        del shape[-1]
    if x.rank == 1:
        del shape[-1 if y.rank == 1 else -2]
    return ctx.reshape(result, tuple(shape))


@handler("mm", "bmm")
def _mm(ctx: Context, a: Arguments) -> Tensor:
    return ctx.emit("matmul", [a["self"], a["mat2"]])


@handler("addmm", "baddbmm")
def _addmm(ctx: Context, a: Arguments) -> Tensor:
    left = a["mat1"] if "mat1" in a else a["batch1"]
    right = a["mat2"] if "mat2" in a else a["batch2"]
    product, addend = ctx.emit("matmul", [left, right]), a["self"]
    if a["alpha"] != 1:
        product = ctx.elementwise("mul", product, a["alpha"])
    if a["beta"] == 0:
        return product
    if a["beta"] != 1:
        addend = ctx.elementwise("mul", addend, a["beta"])
    return ctx.elementwise("add", product, addend)


@handler("scaled_dot_product_attention")
def _attention(ctx: Context, a: Arguments) -> Tensor:
    if a["dropout_p"]:
        raise NotSupported("drops values at random; export the module after module.eval()")
    q, k, v = (_as_rank_4(ctx, a[name]) for name in ("query", "key", "value"))
    if not isinstance(q.shape[3], int):
        raise NotSupported("has heads of symbolic width")
    if not equal(q.shape[1], k.shape[1]) and not a["enable_gqa"]:
        raise NotSupported("has fewer key heads than query heads without enable_gqa")
    scale = a["scale"] if a["scale"] is not None else 1 / math.sqrt(q.shape[3])
    attrs: dict[str, float | bool] = {"scale": float(scale)}
    inputs, mask = [q, k, v], a["attn_mask"]
    if a["is_causal"]:
        if equal(q.shape[2], k.shape[2]):
            attrs["causal"] = True
        else:
            mask = _causal_from_first(ctx, q.shape[2], k.shape[2])
    if mask is not None:
        inputs.append(mask if mask.dtype is DType.BOOL else ctx.cast(mask, q.dtype))
    result = ctx.emit("attention", inputs, attrs)
    return ctx.reshape(result, (*a["query"].shape[:-1], a["value"].shape[-1]))


def _as_rank_4(ctx: Context, x: Tensor) -> Tensor:
    if x.rank > 4:
        raise NotSupported(f"attends over tensors of rank {x.rank}")
    return ctx.reshape(x, (1,) * (4 - x.rank) + x.shape)


def _causal_from_first(ctx: Context, queries: Dim, keys: Dim) -> Tensor:
    """Torch aligns the first query with the first key, the IR the last ones."""
    row = ctx.emit("iota", type=TensorType(DType.I64, (queries,)))
    column = ctx.emit("iota", type=TensorType(DType.I64, (keys,)))
    return ctx.emit("less_equal", [column, ctx.reshape(row, (queries, 1))])


@handler("conv2d", "convolution")
def _convolution(ctx: Context, a: Arguments) -> Tensor:
    """A convolution whose windows do not overlap is a product of patches with the weight."""
    x: Tensor = a["input"]
    weight: Tensor = a["weight"]
    if x.rank != 4 or weight.rank != 4 or a.get("transposed"):
        raise NotSupported("is a convolution, and not of two dimensions")
    batch, channels, height, width = x.shape
    filters, _, *kernel = weight.shape
    stride, padding, dilation = (list(a[n]) for n in ("stride", "padding", "dilation"))
    if stride * (2 // len(stride)) != kernel or any(padding) or set(dilation) != {1}:
        raise NotSupported("is a convolution with windows that overlap")
    if a["groups"] != 1:
        raise NotSupported("is a convolution in groups")
    rows, columns = ctx.result.shape[2:]
    if not equal(rows * kernel[0], height) or not equal(columns * kernel[1], width):
        raise NotSupported("is a convolution that leaves a border of its input unread")
    depth = channels * kernel[0] * kernel[1]
    patches = ctx.reshape(x, (batch, channels, rows, kernel[0], columns, kernel[1]))
    patches = ctx.transpose(patches, (0, 2, 4, 1, 3, 5))
    patches = ctx.reshape(patches, (batch, rows * columns, depth))
    matrix = ctx.swap(ctx.reshape(weight, (filters, depth)), 0, 1)
    result = ctx.emit("matmul", [patches, matrix])
    if a["bias"] is not None:
        result = ctx.emit("add", [result, a["bias"]])
    return ctx.reshape(ctx.swap(result, 1, 2), (batch, filters, rows, columns))


@handler("_scaled_dot_product_flash_attention_for_cpu")
def _flash_attention(ctx: Context, a: Arguments) -> tuple[Tensor, None]:
    """What torch makes of attention on a CPU; the logarithms of the sums are for training."""
    return _attention(ctx, {**a, "enable_gqa": True}), None
