"""Element-wise functions that are written with others.

Half-precision values are widened first, so that a formula rounds once and not at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.node import Handler, Node, operator
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir import DType


@dataclass
class _Arithmetic:
    """Operators on values and numbers; numbers take the element type `dtype`."""

    context: Context
    dtype: DType

    def __call__(self, kind: str, *operands: Value | float) -> Value:
        values = [
            x if isinstance(x, Value) else self.context.scalar(x, self.dtype) for x in operands
        ]
        return self.context.op(kind, values)


_Formula = Callable[[_Arithmetic, Value, Node], Value]


def _formula(*names: str) -> Callable[[_Formula], Handler]:
    """Registers a function of one tensor, computed in at least single precision."""

    def register(function: _Formula) -> Handler:
        def handler(context: Context, node: Node) -> Value:
            x = node[0]
            narrow = x.dtype in (DType.F16, DType.BF16)
            wide = context.cast(x, DType.F32) if narrow else x
            return context.cast(function(_Arithmetic(context, wide.dtype), wide, node), x.dtype)

        return operator(*names)(handler)

    return register


@_formula("Softplus")
def _softplus(f: _Arithmetic, x: Value, node: Node) -> Value:
    return _log_of_one_plus_exp(f, x)


def _log_of_one_plus_exp(f: _Arithmetic, x: Value) -> Value:
    # Without overflow: max(x, 0) + log(1 + exp(-|x|)).
    tail = f("log", f("add", f("exp", f("neg", f("abs", x))), 1.0))
    return f("add", f("max", x, 0.0), tail)


@_formula("Softsign")
def _softsign(f: _Arithmetic, x: Value, node: Node) -> Value:
    return f("div", x, f("add", f("abs", x), 1.0))


@operator("Swish")
def _swish(context: Context, node: Node) -> Value:
    x, alpha = node[0], node.attr("alpha", 1.0)
    if alpha == 1.0:
        return context.op("silu", [x])
    scaled = context.op("mul", [x, context.scalar(alpha, x.dtype)])
    return context.op("mul", [x, context.op("sigmoid", [scaled])])


@_formula("LeakyRelu")
def _leaky_relu(f: _Arithmetic, x: Value, node: Node) -> Value:
    return f("where", f("less", x, 0.0), f("mul", x, node.attr("alpha", 0.01)), x)


@operator("PRelu")
def _prelu(context: Context, node: Node) -> Value:
    x, slope = node.values()
    negative = context.op("less", [x, context.scalar(0, x.dtype)])
    return context.op("where", [negative, context.op("mul", [x, slope]), x])


@_formula("ThresholdedRelu")
def _thresholded_relu(f: _Arithmetic, x: Value, node: Node) -> Value:
    return f("where", f("greater", x, node.attr("alpha", 1.0)), x, 0.0)


@_formula("Elu", "Celu")
def _elu(f: _Arithmetic, x: Value, node: Node) -> Value:
    alpha = node.attr("alpha", 1.0)
    inner = x if node.op_type == "Elu" else f("div", x, alpha)
    negative = f("mul", f("sub", f("exp", inner), 1.0), alpha)
    return f("where", f("less", x, 0.0), negative, x)


@_formula("Selu")
def _selu(f: _Arithmetic, x: Value, node: Node) -> Value:
    alpha = node.attr("alpha", 1.67326319217681884765625)
    negative = f("mul", f("sub", f("exp", x), 1.0), alpha)
    kept = f("where", f("greater", x, 0.0), x, negative)
    return f("mul", kept, node.attr("gamma", 1.05070102214813232421875))


@_formula("HardSigmoid")
def _hard_sigmoid(f: _Arithmetic, x: Value, node: Node) -> Value:
    return _clipped_line(f, x, node.attr("alpha", 0.2), node.attr("beta", 0.5))


@_formula("HardSwish")
def _hard_swish(f: _Arithmetic, x: Value, node: Node) -> Value:
    return f("mul", x, _clipped_line(f, x, 1 / 6, 0.5))


def _clipped_line(f: _Arithmetic, x: Value, slope: float, offset: float) -> Value:
    return f("min", f("max", f("add", f("mul", x, slope), offset), 0.0), 1.0)


@_formula("Mish")
def _mish(f: _Arithmetic, x: Value, node: Node) -> Value:
    return f("mul", x, f("tanh", _log_of_one_plus_exp(f, x)))


@_formula("Shrink")
def _shrink(f: _Arithmetic, x: Value, node: Node) -> Value:
    bias, lambd = node.attr("bias", 0.0), node.attr("lambd", 0.5)
    low = f("where", f("less", x, -lambd), f("add", x, bias), 0.0)
    return f("where", f("greater", x, lambd), f("sub", x, bias), low)


@_formula("Tan")
def _tan(f: _Arithmetic, x: Value, node: Node) -> Value:
    return f("div", f("sin", x), f("cos", x))


@_formula("Cosh", "Sinh")
def _hyperbolic(f: _Arithmetic, x: Value, node: Node) -> Value:
    kind = "add" if node.op_type == "Cosh" else "sub"
    return f("mul", f(kind, f("exp", x), f("exp", f("neg", x))), 0.5)
