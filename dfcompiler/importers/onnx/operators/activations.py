"""Element-wise functions that are written with others."""

from __future__ import annotations

from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.node import Node, operator
from dfcompiler.importers.onnx.values import Value


class _Formula:
    """Arithmetic on values, numbers taking the element type of `like`."""

    def __init__(self, context: Context, like: Value) -> None:
        self.context, self.like = context, like

    def __call__(self, kind: str, *operands: Value | float) -> Value:
        values = [
            x if isinstance(x, Value) else self.context.scalar(x, self.like.dtype) for x in operands
        ]
        return self.context.op(kind, values)


@operator("Softplus")
def _softplus(context: Context, node: Node) -> Value:
    (x,) = node.values()
    f = _Formula(context, x)
    # log(1 + exp(x)) without overflow: max(x, 0) + log(1 + exp(-|x|)).
    tail = f("log", f("add", f("exp", f("neg", f("abs", x))), 1.0))
    return f("add", f("max", x, 0.0), tail)


@operator("Softsign")
def _softsign(context: Context, node: Node) -> Value:
    (x,) = node.values()
    f = _Formula(context, x)
    return f("div", x, f("add", f("abs", x), 1.0))


@operator("Swish")
def _swish(context: Context, node: Node) -> Value:
    (x,), alpha = node.values(), node.attr("alpha", 1.0)
    f = _Formula(context, x)
    if alpha == 1.0:
        return f("silu", x)
    return f("mul", x, f("sigmoid", f("mul", x, alpha)))


@operator("LeakyRelu")
def _leaky_relu(context: Context, node: Node) -> Value:
    (x,) = node.values()
    f = _Formula(context, x)
    return f("where", f("less", x, 0.0), f("mul", x, node.attr("alpha", 0.01)), x)


@operator("PRelu")
def _prelu(context: Context, node: Node) -> Value:
    x, slope = node.values()
    f = _Formula(context, x)
    return f("where", f("less", x, 0.0), f("mul", x, slope), x)


@operator("ThresholdedRelu")
def _thresholded_relu(context: Context, node: Node) -> Value:
    (x,) = node.values()
    f = _Formula(context, x)
    return f("where", f("greater", x, node.attr("alpha", 1.0)), x, 0.0)


@operator("Elu", "Celu")
def _elu(context: Context, node: Node) -> Value:
    (x,), alpha = node.values(), node.attr("alpha", 1.0)
    f = _Formula(context, x)
    inner = x if node.op_type == "Elu" else f("div", x, alpha)
    negative = f("mul", f("sub", f("exp", inner), 1.0), alpha)
    return f("where", f("less", x, 0.0), negative, x)


@operator("Selu")
def _selu(context: Context, node: Node) -> Value:
    (x,) = node.values()
    alpha = node.attr("alpha", 1.67326319217681884765625)
    f = _Formula(context, x)
    negative = f("mul", f("sub", f("exp", x), 1.0), alpha)
    kept = f("where", f("greater", x, 0.0), x, negative)
    return f("mul", kept, node.attr("gamma", 1.05070102214813232421875))


@operator("HardSigmoid")
def _hard_sigmoid(context: Context, node: Node) -> Value:
    (x,) = node.values()
    return _hard(context, x, node.attr("alpha", 0.2), node.attr("beta", 0.5))


@operator("HardSwish")
def _hard_swish(context: Context, node: Node) -> Value:
    (x,) = node.values()
    return context.op("mul", [x, _hard(context, x, 1 / 6, 0.5)])


def _hard(context: Context, x: Value, alpha: float, beta: float) -> Value:
    f = _Formula(context, x)
    return f("min", f("max", f("add", f("mul", x, alpha), beta), 0.0), 1.0)


@operator("Mish")
def _mish(context: Context, node: Node) -> Value:
    softplus = _softplus(context, node)
    return context.op("mul", [node[0], context.op("tanh", [softplus])])


@operator("Shrink")
def _shrink(context: Context, node: Node) -> Value:
    (x,), bias, lambd = node.values(), node.attr("bias", 0.0), node.attr("lambd", 0.5)
    f = _Formula(context, x)
    low = f("where", f("less", x, -lambd), f("add", x, bias), 0.0)
    return f("where", f("greater", x, lambd), f("sub", x, bias), low)


@operator("Tan")
def _tan(context: Context, node: Node) -> Value:
    (x,) = node.values()
    return context.op("div", [context.op("sin", [x]), context.op("cos", [x])])


@operator("Cosh", "Sinh")
def _hyperbolic(context: Context, node: Node) -> Value:
    (x,) = node.values()
    f = _Formula(context, x)
    kind = "add" if node.op_type == "Cosh" else "sub"
    return f("mul", f(kind, f("exp", x), f("exp", f("neg", x))), 0.5)
