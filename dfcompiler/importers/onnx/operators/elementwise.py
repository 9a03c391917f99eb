"""Element-wise operators that have a row in the IR's table."""

from __future__ import annotations

from functools import reduce

from dfcompiler.importers.onnx.content_arithmetic import select
from dfcompiler.importers.onnx.contents import uniform
from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.node import Node, operator
from dfcompiler.importers.onnx.tensors import dtype_of
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir import DType

_SAME = {
    "Abs": "abs",
    "Ceil": "ceil",
    "Cos": "cos",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "IsNaN": "isnan",
    "Log": "log",
    "Neg": "neg",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Sqrt": "sqrt",
    "Tanh": "tanh",
    "Add": "add",
    "Div": "div",
    "Mul": "mul",
    "Sub": "sub",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
}


@operator(*_SAME)
def _same(context: Context, node: Node) -> Value:
    return context.op(_SAME[node.op_type], node.values())


@operator("Equal")
def _equal(context: Context, node: Node) -> Value:
    a, b = node.values()
    if a.dtype is DType.BOOL:
        return _not(context, context.op("xor", [a, b]))
    return context.op("equal", [a, b])


@operator("Max", "Min")
def _extreme(context: Context, node: Node) -> Value:
    kind = node.op_type.lower()
    return reduce(lambda a, b: context.op(kind, [a, b]), node.values())


@operator("Sum")
def _sum(context: Context, node: Node) -> Value:
    return _total(context, node)


def _total(context: Context, node: Node) -> Value:
    return reduce(lambda a, b: context.op("add", [a, b]), node.values())


@operator("Mean")
def _mean(context: Context, node: Node) -> Value:
    total = _total(context, node)
    return context.op("div", [total, context.scalar(len(node.inputs), total.dtype)])


@operator("And")
def _and(context: Context, node: Node) -> Value:
    return _absorb(context, "and", node, neutral=True)


@operator("Or")
def _or(context: Context, node: Node) -> Value:
    return _absorb(context, "or", node, neutral=False)


def _absorb(context: Context, kind: str, node: Node, neutral: bool) -> Value:
    """A conjunction or disjunction, one operand of which may be the same everywhere."""
    a, b = node.values()
    shape = context.broadcast([a.shape, b.shape])
    for known, other in ((a, b), (b, a)):
        value = uniform(known.content)
        if value is None:
            continue
        if bool(value) is neutral:
            return context.expand(other, shape)
        return context.filled(bool(value), DType.BOOL, shape)
    return context.op(kind, [a, b])


@operator("Xor")
def _xor(context: Context, node: Node) -> Value:
    return context.op("xor", node.values())


@operator("Not")
def _logical_not(context: Context, node: Node) -> Value:
    return _not(context, node[0])


def _not(context: Context, value: Value) -> Value:
    known = uniform(value.content)
    if known is not None:
        return context.filled(not known, DType.BOOL, value.shape)
    return context.op("not", [value])


@operator("Where")
def _where(context: Context, node: Node) -> Value:
    condition, a, b = node.values()
    known = uniform(condition.content)
    shape = context.broadcast([condition.shape, a.shape, b.shape])
    if known is not None:
        return context.expand(a if known else b, shape)
    if a.dtype.is_integer:
        chosen = select(condition.content, a.content, b.content)
        if chosen is not None:
            return context.known(a.type.with_shape(shape), chosen)
    return context.op("where", [condition, a, b])


@operator("Cast")
def _cast(context: Context, node: Node) -> Value:
    return context.cast(node[0], dtype_of(int(node.attr("to", 0)), "the result of Cast"))


@operator("CastLike")
def _cast_like(context: Context, node: Node) -> Value:
    return context.cast(node[0], node[1].dtype)


@operator("Identity")
def _identity(context: Context, node: Node) -> Value:
    return node[0]


@operator("Pow")
def _pow(context: Context, node: Node) -> Value:
    base, exponent = node.values()
    if base.dtype.is_integer and exponent.dtype.is_float:
        wide = context.op("pow", [context.cast(base, exponent.dtype), exponent])
        return context.cast(wide, base.dtype)
    return context.op("pow", [base, context.cast(exponent, base.dtype)])


@operator("Mod")
def _mod(context: Context, node: Node) -> Value:
    a, b = node.values()
    if not node.attr("fmod", 0):
        return context.op("mod", [a, b])
    # The result has the sign of the dividend: |a| mod |b| is exact, and the sign is put back.
    size = context.op("mod", [context.op("abs", [a]), context.op("abs", [b])])
    return context.op("mul", [context.op("sign", [a]), size])


@operator("IsInf")
def _isinf(context: Context, node: Node) -> Value:
    (x,) = node.values()
    negative, positive = node.attr("detect_negative", 1), node.attr("detect_positive", 1)
    found = context.op("isinf", [x])
    if negative and positive:
        return found
    if not negative and not positive:
        return context.filled(False, DType.BOOL, x.shape)
    kind = "less" if negative else "greater"
    return context.op("and", [found, context.op(kind, [x, context.scalar(0, x.dtype)])])


@operator("Gelu")
def _gelu(context: Context, node: Node) -> Value:
    return context.op("gelu", node.values(), {"approximate": node.attr("approximate", "none")})


@operator("Clip")
def _clip(context: Context, node: Node) -> Value:
    x = node[0]
    for index, kind in ((1, "max"), (2, "min")):
        limit = node.optional(index)
        if limit is not None:
            x = context.op(kind, [x, context.reshape(limit, ())])
    return x
