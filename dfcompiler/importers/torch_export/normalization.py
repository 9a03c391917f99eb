"""ATen operators that reduce or normalize along axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from dfcompiler.importers.torch_export.context import Context, NotSupported, Tensor
from dfcompiler.importers.torch_export.elementwise import as_float
from dfcompiler.importers.torch_export.registry import HANDLERS, Arguments, Handler, handler
from dfcompiler.importers.torch_export.symbols import torch_dtype
from dfcompiler.ir.dims import product
from dfcompiler.ir.types import DType


def reduce(
    ctx: Context, kind: str, x: Tensor, axes: Sequence[int] | int | None, keep: bool
) -> Tensor:
    """A reduction; without axes over all of them."""
    if x.rank == 0:
        return x
    given = [axes] if isinstance(axes, int) else axes or range(x.rank)
    found = tuple(sorted(x.axis(axis) for axis in given))
    return ctx.emit(kind, [x], {"axes": found, "keepdims": keep} if keep else {"axes": found})


def _reduction(kind: str, before: DType | None = None) -> Handler:
    def run(ctx: Context, a: Arguments) -> Tensor:
        x = a["self"] if before is None else ctx.cast(a["self"], before)
        return reduce(ctx, kind, x, a.get("dim"), a.get("keepdim", False))

    return run


def _accumulation(kind: str) -> Handler:
    def run(ctx: Context, a: Arguments) -> Tensor:
        x = ctx.cast(a["self"], ctx.result.dtype)
        return reduce(ctx, kind, x, a.get("dim"), a.get("keepdim", False))

    return run


HANDLERS["sum"] = _accumulation("reduce_sum")
HANDLERS["mean"] = _accumulation("reduce_mean")
HANDLERS["prod"] = _accumulation("reduce_prod")
HANDLERS["amax"] = HANDLERS["max.default"] = _reduction("reduce_max")
HANDLERS["amin"] = HANDLERS["min.default"] = _reduction("reduce_min")
HANDLERS["any"] = _reduction("reduce_max", DType.BOOL)
HANDLERS["all"] = _reduction("reduce_min", DType.BOOL)


@handler("max.other")
def _max_of_two(ctx: Context, a: Arguments) -> Tensor:
    return ctx.elementwise("max", a["self"], a["other"])


@handler("min.other")
def _min_of_two(ctx: Context, a: Arguments) -> Tensor:
    return ctx.elementwise("min", a["self"], a["other"])


@handler("max.dim")
def _max_dim(ctx: Context, a: Arguments) -> tuple[Tensor, Tensor]:
    x, axis, keep = a["self"], a["dim"], a["keepdim"]
    return reduce(ctx, "reduce_max", x, axis, keep), _argmax(ctx, x, axis, keep)


@handler("argmax")
def _argmax_of(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    if a["dim"] is not None:
        return _argmax(ctx, x, a["dim"], a["keepdim"])
    flat = _argmax(ctx, ctx.reshape(x, (product(x.shape),)), 0, False)
    return ctx.reshape(flat, ctx.result.shape)


def _argmax(ctx: Context, x: Tensor, axis: int, keep: bool) -> Tensor:
    return ctx.emit("argmax", [x], {"axis": x.axis(axis), **({"keepdims": True} if keep else {})})


@handler("cumsum")
def _cumsum(ctx: Context, a: Arguments) -> Tensor:
    x = ctx.cast(a["self"], ctx.result.dtype)
    return ctx.emit("cumsum", [x], {"axis": x.axis(a["dim"])})


@handler("_safe_softmax")
def _safe_softmax(ctx: Context, a: Arguments) -> Tensor:
    """A row of minus infinities, with nothing to attend to, gives zeros."""
    weights = _softmax(ctx, a)
    peak = reduce(ctx, "reduce_max", a["self"], a["dim"], True)
    masked = ctx.elementwise("equal", peak, -math.inf)
    return ctx.emit("where", [masked, ctx.number(0, weights.dtype), weights])


@handler("softmax", "_softmax")
def _softmax(ctx: Context, a: Arguments) -> Tensor:
    x = ctx.cast(a["self"], ctx.result.dtype)
    return ctx.emit("softmax", [x], {"axis": x.axis(a["dim"])})


@handler("log_softmax", "_log_softmax")
def _log_softmax(ctx: Context, a: Arguments) -> Tensor:
    x = ctx.cast(a["self"], ctx.result.dtype)
    shifted = ctx.emit("sub", [x, reduce(ctx, "reduce_max", x, a["dim"], True)])
    total = reduce(ctx, "reduce_sum", ctx.emit("exp", [shifted]), a["dim"], True)
    return ctx.emit("sub", [shifted, ctx.emit("log", [total])])


@handler("layer_norm", "native_layer_norm")
def _layer_norm(ctx: Context, a: Arguments) -> Tensor | tuple[Tensor, ...]:
    x: Tensor = a["input"]
    axes = len(a["normalized_shape"])
    shape = (*x.shape[: x.rank - axes], product(x.shape[x.rank - axes :]))
    flat, parameters = ctx.reshape(x, shape), [a["weight"], a["bias"]]
    parameters = [p if p is None else ctx.reshape(p, (shape[-1],)) for p in parameters]
    scale, bias = parameters
    inputs = [flat] if scale is None else [flat, scale] if bias is None else [flat, scale, bias]
    result = ctx.emit("layer_norm", inputs, {"epsilon": float(a["eps"])})
    if scale is None and bias is not None:
        result = ctx.emit("add", [result, bias])
    result = ctx.reshape(result, x.shape)
    if not isinstance(ctx.expected, tuple | list):
        return result
    return (result, *_statistics(ctx, flat, float(a["eps"])))


def _statistics(ctx: Context, x: Tensor, epsilon: float) -> list[Tensor]:
    """Mean and reciprocal deviation; they vanish when nobody reads them."""
    mean = reduce(ctx, "reduce_mean", x, -1, True)
    variance = _variance(ctx, x, mean, [x.rank - 1], 0)
    deviation = ctx.emit("rsqrt", [ctx.elementwise("add", variance, epsilon)])
    shapes = [ctx.symbols.type(fake).shape for fake in ctx.expected[1:]]
    return [ctx.reshape(t, s) for t, s in zip([mean, deviation], shapes, strict=True)]


@handler("rms_norm")
def _rms_norm(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["input"]
    if len(a["normalized_shape"]) != 1:
        raise NotSupported("normalizes over several axes")
    epsilon = a["eps"] if a["eps"] is not None else torch.finfo(torch_dtype(x.dtype)).eps
    inputs = [x] if a["weight"] is None else [x, a["weight"]]
    return ctx.emit("rms_norm", inputs, {"epsilon": float(epsilon)})


@handler("std")
def _std(ctx: Context, a: Arguments) -> Tensor:
    variance = _var(ctx, a)
    assert isinstance(variance, Tensor)
    return ctx.emit("sqrt", [variance])


@handler("var", "var_mean")
def _var(ctx: Context, a: Arguments) -> Tensor | tuple[Tensor, Tensor]:
    x = as_float(ctx, a["self"])
    given = a.get("dim")
    axes = [x.axis(i) for i in (given if given else range(x.rank))]
    mean = reduce(ctx, "reduce_mean", x, axes, True)
    correction = a["correction"] if "correction" in a else int(a["unbiased"])
    variance = _variance(ctx, x, mean, axes, 1 if correction is None else correction)
    if isinstance(ctx.expected, tuple | list):
        shape = ctx.symbols.type(ctx.expected[0]).shape
        return ctx.reshape(variance, shape), ctx.reshape(mean, shape)
    return ctx.reshape(variance, ctx.result.shape)


def _variance(
    ctx: Context, x: Tensor, mean: Tensor, axes: Sequence[int], correction: int | float
) -> Tensor:
    centred = ctx.emit("sub", [x, mean])
    squares = ctx.emit("mul", [centred, centred])
    if not correction:
        return reduce(ctx, "reduce_mean", squares, axes, True)
    count = product(x.shape[axis] for axis in axes)
    total = reduce(ctx, "reduce_sum", squares, axes, True)
    return ctx.elementwise("div", total, count - correction)


@handler("norm", "linalg_vector_norm")
def _norm(ctx: Context, a: Arguments) -> Tensor:
    order = a["ord"] if "ord" in a else a["p"]
    x, axes, keep = as_float(ctx, a["self"]), a.get("dim"), a.get("keepdim", False)
    match 2 if order is None else order:
        case 1:
            return reduce(ctx, "reduce_sum", ctx.emit("abs", [x]), axes, keep)
        case 2:
            squares = ctx.emit("mul", [x, x])
            return ctx.emit("sqrt", [reduce(ctx, "reduce_sum", squares, axes, keep)])
        case math.inf:
            return reduce(ctx, "reduce_max", ctx.emit("abs", [x]), axes, keep)
    raise NotSupported(f"is a norm of order {order}")
