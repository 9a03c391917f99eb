"""Element-wise ATen operators."""

from __future__ import annotations

import torch

from dfcompiler.importers.torch_export.context import (
    Context,
    NotSupported,
    Operand,
    Tensor,
    promoted,
)
from dfcompiler.importers.torch_export.registry import HANDLERS, Arguments, Handler, handler
from dfcompiler.importers.torch_export.symbols import dtype_of
from dfcompiler.ir.types import DType

_SAME_DTYPE = {"neg": "neg", "abs": "abs", "sign": "sign", "relu": "relu"}
_FLOAT = {
    name: name
    for name in (
        *("exp", "log", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tanh", "erf"),
        *("sigmoid", "silu"),
    )
}
_ROUNDING = {"floor": "floor", "ceil": "ceil", "round": "round"}
_PREDICATES = {"isnan": "isnan", "isinf": "isinf"}
_BINARY = {"mul": "mul", "maximum": "max", "minimum": "min", "pow": "pow"}
_COMPARISONS = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
_LOGICAL = {"logical_and": "and", "logical_or": "or", "logical_xor": "xor"}
_BITWISE = {
    "bitwise_and": "and",
    "bitwise_or": "or",
    "bitwise_xor": "xor",
    "__and__": "and",
    "__or__": "or",
    "__xor__": "xor",
}


def as_float(ctx: Context, x: Tensor) -> Tensor:
    """`x` in floating point: integers and bools in torch's default dtype."""
    return x if x.dtype.is_float else ctx.cast(x, dtype_of(torch.get_default_dtype()))


def _unary(kind: str) -> Handler:
    return lambda ctx, a: ctx.emit(kind, [a["self"]])


def _float_unary(kind: str) -> Handler:
    return lambda ctx, a: ctx.emit(kind, [as_float(ctx, a["self"])])


def _rounding(kind: str) -> Handler:
    def run(ctx: Context, a: Arguments) -> Tensor:
        x: Tensor = a["self"]
        if a.get("decimals"):
            raise NotSupported("rounds to decimals")
        return ctx.emit(kind, [x]) if x.dtype.is_float else x

    return run


def _predicate(kind: str) -> Handler:
    def run(ctx: Context, a: Arguments) -> Tensor:
        x: Tensor = a["self"]
        return ctx.emit(kind, [x]) if x.dtype.is_float else ctx.constant(False, DType.BOOL, x.shape)

    return run


def _binary(kind: str) -> Handler:
    return lambda ctx, a: ctx.elementwise(kind, *_operands(a))


def _operands(a: Arguments) -> tuple[Operand, Operand]:
    """The two operands of a binary operator; `pow` calls the second one exponent."""
    return a["self"], a["exponent"] if "exponent" in a else a["other"]


def _logical(kind: str) -> Handler:
    def run(ctx: Context, a: Arguments) -> Tensor:
        return ctx.emit(kind, [_as_bool(ctx, x) for x in _operands(a)])

    return run


def _as_bool(ctx: Context, x: Operand) -> Tensor:
    return ctx.as_tensor(x, DType.BOOL)


def _bitwise(kind: str) -> Handler:
    def run(ctx: Context, a: Arguments) -> Tensor:
        for x in _operands(a):
            if not isinstance(x, bool) and not (isinstance(x, Tensor) and x.dtype is DType.BOOL):
                raise NotSupported("combines the bits of integers")
        return ctx.emit(kind, [_as_bool(ctx, x) for x in _operands(a)])

    return run


HANDLERS.update({name: _unary(kind) for name, kind in _SAME_DTYPE.items()})
HANDLERS.update({name: _float_unary(kind) for name, kind in _FLOAT.items()})
HANDLERS.update({name: _rounding(kind) for name, kind in _ROUNDING.items()})
HANDLERS.update({name: _predicate(kind) for name, kind in _PREDICATES.items()})
HANDLERS.update({name: _binary(kind) for name, kind in (_BINARY | _COMPARISONS).items()})
HANDLERS.update({name: _logical(kind) for name, kind in _LOGICAL.items()})
HANDLERS.update({name: _bitwise(kind) for name, kind in _BITWISE.items()})


@handler("logical_not")
def _not(ctx: Context, a: Arguments) -> Tensor:
    return ctx.emit("not", [_as_bool(ctx, a["self"])])


@handler("bitwise_not")
def _bitwise_not(ctx: Context, a: Arguments) -> Tensor:
    if a["self"].dtype is not DType.BOOL:
        raise NotSupported("inverts the bits of integers")
    return ctx.emit("not", [a["self"]])


def _scaled(ctx: Context, x: Operand, alpha: int | float) -> Operand:
    if alpha == 1:
        return x
    return ctx.elementwise("mul", x, alpha) if isinstance(x, Tensor) else x * alpha


@handler("add")
def _add(ctx: Context, a: Arguments) -> Tensor:
    return ctx.elementwise("add", a["self"], _scaled(ctx, a["other"], a.get("alpha", 1)))


@handler("sub")
def _sub(ctx: Context, a: Arguments) -> Tensor:
    return ctx.elementwise("sub", a["self"], _scaled(ctx, a["other"], a.get("alpha", 1)))


@handler("rsub")
def _rsub(ctx: Context, a: Arguments) -> Tensor:
    return ctx.elementwise("sub", a["other"], _scaled(ctx, a["self"], a.get("alpha", 1)))


@handler("addcmul")
def _addcmul(ctx: Context, a: Arguments) -> Tensor:
    product = ctx.elementwise("mul", a["tensor1"], a["tensor2"])
    return ctx.elementwise("add", a["self"], _scaled(ctx, product, a["value"]))


@handler("div")
def _div(ctx: Context, a: Arguments) -> Tensor:
    x, y = _operands(a)
    match a.get("rounding_mode"):
        case "floor":
            return _floor_div(ctx, x, y)
        case "trunc":
            return _truncated_div(ctx, x, y)
    dtype = promoted([x, y])
    if not dtype.is_float:
        dtype = dtype_of(torch.get_default_dtype())
    return ctx.emit("div", [ctx.as_tensor(x, dtype), ctx.as_tensor(y, dtype)])


@handler("floor_divide")
def _floor_divide(ctx: Context, a: Arguments) -> Tensor:
    return _floor_div(ctx, *_operands(a))


def _floor_div(ctx: Context, x: Operand, y: Operand) -> Tensor:
    if promoted([x, y]).is_float:
        return ctx.emit("floor", [ctx.elementwise("div", x, y)])
    # Integer `div` rounds toward zero; without the remainder it is exact, and nothing is rounded.
    remainder = ctx.elementwise("mod", x, y)
    return ctx.elementwise("div", ctx.elementwise("sub", x, remainder), y)


def _truncated_div(ctx: Context, x: Operand, y: Operand) -> Tensor:
    quotient = ctx.elementwise("div", x, y)
    if not quotient.dtype.is_float:
        return quotient
    magnitude = ctx.emit("floor", [ctx.emit("abs", [quotient])])
    return ctx.elementwise("mul", ctx.emit("sign", [quotient]), magnitude)


@handler("remainder")
def _remainder(ctx: Context, a: Arguments) -> Tensor:
    return ctx.elementwise("mod", *_operands(a))


@handler("fmod")
def _fmod(ctx: Context, a: Arguments) -> Tensor:
    """The remainder with the sign of the dividend."""
    x, y = _operands(a)
    dtype = promoted([x, y])
    dividend, divisor = ctx.as_tensor(x, dtype), ctx.as_tensor(y, dtype)
    magnitude = ctx.emit("mod", [ctx.emit("abs", [dividend]), ctx.emit("abs", [divisor])])
    return ctx.emit("mul", [ctx.emit("sign", [dividend]), magnitude])


@handler("log1p")
def _log1p(ctx: Context, a: Arguments) -> Tensor:
    return ctx.emit("log", [ctx.elementwise("add", as_float(ctx, a["self"]), 1)])


@handler("square")
def _square(ctx: Context, a: Arguments) -> Tensor:
    return ctx.elementwise("mul", a["self"], a["self"])


@handler("gelu")
def _gelu(ctx: Context, a: Arguments) -> Tensor:
    return ctx.emit("gelu", [a["self"]], {"approximate": a["approximate"]})


@handler("leaky_relu")
def _leaky_relu(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    scaled = ctx.elementwise("mul", x, float(a["negative_slope"]))
    return ctx.emit("where", [ctx.elementwise("greater", x, 0.0), x, scaled])


@handler("clamp", "clamp_min", "clamp_max", "hardtanh")
def _clamp(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    lower = a.get("min", a.get("min_val"))
    upper = a.get("max", a.get("max_val"))
    if lower is not None:
        x = ctx.elementwise("max", x, lower)
    return x if upper is None else ctx.elementwise("min", x, upper)


@handler("relu6")
def _relu6(ctx: Context, a: Arguments) -> Tensor:
    return ctx.elementwise("min", ctx.emit("relu", [a["self"]]), 6)


@handler("where")
def _where(ctx: Context, a: Arguments) -> Tensor:
    condition, x, y = _as_bool(ctx, a["condition"]), a["self"], a["other"]
    dtype = promoted([x, y])
    return ctx.emit("where", [condition, ctx.as_tensor(x, dtype), ctx.as_tensor(y, dtype)])


@handler("masked_fill")
def _masked_fill(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    return ctx.emit("where", [a["mask"], ctx.as_tensor(a["value"], x.dtype), x])


@handler("to", "_to_copy", "type_as")
def _to(ctx: Context, a: Arguments) -> Tensor:
    return ctx.cast(a["self"], ctx.result.dtype)


@handler(
    *("alias", "clone", "contiguous", "detach", "detach_", "lift_fresh", "lift_fresh_copy"),
    *("positive", "resolve_conj", "resolve_neg", "_conj"),
)
def _identity(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    return x


@handler("dropout", "native_dropout", "feature_dropout", "alpha_dropout")
def _dropout(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["input"]
    if a["train"] and a["p"]:
        raise NotSupported("drops values at random; export the module after module.eval()")
    return x
