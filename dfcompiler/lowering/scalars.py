"""Element-wise operators as C++ expressions of one element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType

_CTYPES = {
    DType.F64: "double",
    DType.F32: "float",
    # 16-bit floats are stored; arithmetic on them is in float.
    DType.F16: "float",
    DType.BF16: "float",
    DType.I64: "int64_t",
    DType.I32: "int32_t",
    DType.I16: "int16_t",
    DType.I8: "int8_t",
    DType.U64: "uint64_t",
    DType.U32: "uint32_t",
    DType.U16: "uint16_t",
    DType.U8: "uint8_t",
    DType.BOOL: "bool",
}
_STORED = {**_CTYPES, DType.F16: "dace::float16", DType.BF16: "dace::bfloat16"}

_FUNCTIONS = {
    **{
        name: name
        for name in (
            *("exp", "log", "sqrt", "rsqrt", "sin", "cos", "tanh", "erf", "sigmoid", "silu"),
            *("floor", "ceil", "round", "neg", "abs", "sign", "pow"),
        )
    },
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "div": "div",
    "min": "minimum",
    "max": "maximum",
    "mod": "modulo",
    "isnan": "is_nan",
    "isinf": "is_inf",
}
_FLOAT_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_COMPARISONS = {
    "equal": "==",
    "not_equal": "!=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
}
_LOGICAL = {"and": "&", "or": "|", "xor": "^"}
# What numpy makes of arithmetic on truth values; it refuses the others.
_BOOLEAN_ARITHMETIC = {"add": "|", "mul": "&", "max": "|", "min": "&"}
# Cost of one element in units of an addition, for choosing threads.
_COSTS = {
    **dict.fromkeys(("exp", "log", "tanh", "erf", "sigmoid", "silu", "gelu", "pow"), 12),
    **dict.fromkeys(("sin", "cos", "mod"), 40),
    **dict.fromkeys(("div", "sqrt", "rsqrt", "reciprocal"), 4),
}


def compute_type(dtype: DType) -> str:
    """The C++ type in which arithmetic on `dtype` happens."""
    return _CTYPES[dtype]


def stored_type(dtype: DType) -> str:
    """The C++ type of an element of `dtype` in memory."""
    return _STORED[dtype]


def cost(op: Op) -> int:
    """Work of one element in units of an addition."""
    return _COSTS.get(op.kind, 1)


def literal(value: object, dtype: DType) -> str:
    """`value` as a C++ constant of the compute type of `dtype`."""
    ctype = compute_type(dtype)
    number = dtype.numpy.type(value).item()
    if dtype is DType.BOOL:
        return "true" if number else "false"
    if not dtype.is_float:
        # The most negative integer has no literal: 9223372036854775808 does not fit.
        if number == -(2**63):
            return f"{ctype}(-9223372036854775807 - 1)"
        return f"{ctype}({number}{'u' if number >= 2**63 else ''})"
    if math.isnan(number):
        return f"std::numeric_limits<{ctype}>::quiet_NaN()"
    if math.isinf(number):
        sign = "-" if number < 0 else ""
        return f"{sign}std::numeric_limits<{ctype}>::infinity()"
    return f"{number!r}{'f' if ctype == 'float' else ''}"


def scalar_expression(
    op: Op, arguments: Sequence[str], dtypes: Sequence[DType], constants: Sequence[object]
) -> str:
    """The C++ expression of one element.

    Args:
        op: an element-wise operator.
        arguments: C++ names of the operands, in their compute types.
        dtypes: element types of the operands.
        constants: the operands that are numbers known now; None for the others.

    Raises:
        UnsupportedError: if the operator has no meaning for these element types.
    """
    kind, dtype = op.kind, dtypes[0]
    special = _SPECIAL.get(kind)
    if special is not None:
        return special(op, arguments, dtypes, constants)
    if kind in _COMPARISONS:
        return f"{arguments[0]} {_COMPARISONS[kind]} {arguments[1]}"
    if kind in _LOGICAL:
        return _logical(_LOGICAL[kind], arguments)
    if dtype is DType.BOOL:
        return _boolean_arithmetic(op, arguments)
    if dtype.is_float and kind in _FLOAT_OPERATORS:
        return f"{arguments[0]} {_FLOAT_OPERATORS[kind]} {arguments[1]}"
    if kind in _FUNCTIONS:
        return f"dfc::{_FUNCTIONS[kind]}({', '.join(arguments)})"
    raise UnsupportedError(f"{kind} has no element-wise code", (f"> {op.result}", op.source))


def _boolean_arithmetic(op: Op, arguments: Sequence[str]) -> str:
    if op.kind not in _BOOLEAN_ARITHMETIC:
        raise UnsupportedError(
            f"{op.kind} of bool values has no meaning",
            (f"> {op.result}: {op.type} = {op.kind} {', '.join(op.inputs)}",),
            "cast them to an integer type first",
        )
    return _logical(_BOOLEAN_ARITHMETIC[op.kind], arguments)


def _logical(operator: str, arguments: Sequence[str]) -> str:
    return f"(dfc::flag({arguments[0]}) {operator} dfc::flag({arguments[1]})) > 0"


Special = Callable[[Op, Sequence[str], Sequence[DType], Sequence[object]], str]


def _cast(op: Op, args: Sequence[str], dtypes: Sequence[DType], _: Sequence[object]) -> str:
    source, target = dtypes[0], op.type.dtype
    if target is DType.BOOL:
        return args[0] if source is DType.BOOL else f"{args[0]} != 0"
    if target in (DType.F16, DType.BF16):
        # Rounded here, because what follows computes in float.
        return f"float({stored_type(target)}(float({args[0]})))"
    return f"{compute_type(target)}({args[0]})"


def _pow(op: Op, args: Sequence[str], dtypes: Sequence[DType], constants: Sequence[object]) -> str:
    x, y = args
    exponent = constants[1]
    if not dtypes[0].is_float or not isinstance(exponent, int | float):
        return f"dfc::pow({x}, {y})"
    one = literal(1, dtypes[0])
    known = {
        1.0: x,
        2.0: f"{x} * {x}",
        3.0: f"{x} * {x} * {x}",
        0.5: f"dfc::sqrt({x})",
        -0.5: f"dfc::rsqrt({x})",
        -1.0: f"{one} / {x}",
    }
    return known.get(float(exponent), f"dfc::pow({x}, {y})")


def _relu(op: Op, args: Sequence[str], dtypes: Sequence[DType], _: Sequence[object]) -> str:
    if dtypes[0].is_float:
        return f"dfc::relu({args[0]})"
    return f"dfc::maximum({args[0]}, {literal(0, dtypes[0])})"


def _gelu(op: Op, args: Sequence[str], dtypes: Sequence[DType], _: Sequence[object]) -> str:
    function = "gelu_tanh" if op.attr("approximate", "none") == "tanh" else "gelu"
    return f"dfc::{function}({args[0]})"


def _dequantize(op: Op, args: Sequence[str], dtypes: Sequence[DType], _: Sequence[object]) -> str:
    ctype = compute_type(dtypes[1])
    codes = f"{ctype}({args[0]})"
    if len(args) == 3:
        codes = f"({codes} - {ctype}({args[2]}))"
    return f"{codes} * {args[1]}"


_SPECIAL: dict[str, Special] = {
    "cast": _cast,
    "pow": _pow,
    "gelu": _gelu,
    "dequantize": _dequantize,
    "copy": lambda op, args, dtypes, _: args[0],
    "relu": _relu,
    "not": lambda op, args, dtypes, _: f"dfc::flag({args[0]}) < 1",
    "where": lambda op, args, dtypes, _: f"dfc::flag({args[0]}) > 0 ? {args[1]} : {args[2]}",
    "reciprocal": lambda op, args, dtypes, _: f"{literal(1, dtypes[0])} / {args[0]}",
}
