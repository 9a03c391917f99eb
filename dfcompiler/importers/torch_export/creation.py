"""ATen operators that make tensors of numbers."""

from __future__ import annotations

from dfcompiler.importers.torch_export.context import Context, NotSupported, Tensor
from dfcompiler.importers.torch_export.registry import Arguments, handler
from dfcompiler.ir.dims import Dim
from dfcompiler.ir.types import DType, TensorType


def _filled(ctx: Context, value: int | float | bool | Dim) -> Tensor:
    """The current node's result with `value` in every element."""
    expected = ctx.result
    if isinstance(value, int | float):
        dtype = expected.dtype
        number = bool(value) if dtype is DType.BOOL else value
        number = float(number) if dtype.is_float else number
        return ctx.constant(number, dtype, expected.shape)
    return ctx.expand(ctx.number(value, expected.dtype), expected.shape)


@handler("full", "full_like", "new_full")
def _full(ctx: Context, a: Arguments) -> Tensor:
    value = a["fill_value"]
    if isinstance(value, Tensor):
        return ctx.expand(ctx.cast(value, ctx.result.dtype), ctx.result.shape)
    return _filled(ctx, value)


@handler("fill")
def _fill(ctx: Context, a: Arguments) -> Tensor:
    value = a["value"]
    if isinstance(value, Tensor):
        return ctx.expand(ctx.cast(value, ctx.result.dtype), ctx.result.shape)
    return _filled(ctx, value)


@handler("ones", "ones_like", "new_ones")
def _ones(ctx: Context, a: Arguments) -> Tensor:
    return _filled(ctx, 1)


@handler(
    *("zeros", "zeros_like", "new_zeros"),
    *("empty", "empty_like", "new_empty", "empty_permuted", "new_empty_strided"),
)
def _zeros(ctx: Context, a: Arguments) -> Tensor:
    return _filled(ctx, 0)


@handler("scalar_tensor")
def _scalar_tensor(ctx: Context, a: Arguments) -> Tensor:
    return _filled(ctx, a["s"])


@handler("arange")
def _arange(ctx: Context, a: Arguments) -> Tensor:
    start, step, expected = a.get("start", 0), a.get("step", 1), ctx.result
    if isinstance(start, float) or isinstance(step, float):
        raise NotSupported("counts in fractions")
    attrs = {} if start == 0 and step == 1 else {"start": start, "step": step}
    dtype = expected.dtype if expected.dtype.is_integer else DType.I64
    index = ctx.emit("iota", (), attrs, type=TensorType(dtype, expected.shape))
    return ctx.cast(index, expected.dtype)


@handler("tril")
def _tril(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    return _kept(ctx, x, ctx.emit("less_equal", _diagonals(ctx, x, a["diagonal"])))


@handler("triu")
def _triu(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    return _kept(ctx, x, ctx.emit("greater_equal", _diagonals(ctx, x, a["diagonal"])))


def _diagonals(ctx: Context, x: Tensor, diagonal: Dim) -> list[Tensor]:
    """Column numbers, and the column of each row's diagonal."""
    rows, columns = x.shape[-2:]
    column = ctx.emit("iota", type=TensorType(DType.I64, (columns,)))
    attrs = {"start": diagonal} if diagonal != 0 else {}
    row = ctx.emit("iota", (), attrs, type=TensorType(DType.I64, (rows,)))
    return [column, ctx.reshape(row, (rows, 1))]


def _kept(ctx: Context, x: Tensor, mask: Tensor) -> Tensor:
    if x.dtype is DType.BOOL:
        return ctx.emit("and", [mask, x])
    return ctx.emit("where", [mask, x, ctx.number(0, x.dtype)])
