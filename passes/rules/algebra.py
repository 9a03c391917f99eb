"""Algebraic identities of element-wise operators; constants and weights stand second."""

from __future__ import annotations

from dataclasses import replace
from math import frexp, isfinite

from dfcompiler.ir import DType, Op, Role
from passes.rules.sweep import Number, Rule, Sweep, as_constant, as_kind

_FLIPPED = {
    "less": "greater",
    "less_equal": "greater_equal",
    "greater": "less",
    "greater_equal": "less_equal",
}
_NEUTRAL: dict[str, Number] = {"add": 0, "sub": 0, "mul": 1, "div": 1, "pow": 1}
_MANTISSA = {DType.F64: 53, DType.F32: 24, DType.F16: 11, DType.BF16: 8}


def constants_second(sweep: Sweep, op: Op) -> Op | None:
    """``add(2, x)`` becomes ``add(x, 2)``, ``less(2, x)`` becomes ``greater(x, 2)``."""
    a, b = op.inputs
    if _rank(sweep, a) <= _rank(sweep, b):
        return None
    return replace(op, kind=_FLIPPED.get(op.kind, op.kind), inputs=(b, a))


def _rank(sweep: Sweep, name: str) -> int:
    if sweep.scalar(name) is not None:
        return 2
    container = sweep.containers.get(name)
    return int(container is not None and container.role is Role.WEIGHT)


def drop_neutral(sweep: Sweep, op: Op) -> str | None:
    """``x + 0``, ``x - 0``, ``x · 1``, ``x / 1`` and ``x ** 1`` are x."""
    x, c = op.inputs
    same = sweep.scalar(c) == _NEUTRAL[op.kind] and sweep.type_of(x).same(op.type)
    return x if same else None


def subtract(sweep: Sweep, op: Op) -> Op | None:
    """``x - c`` is ``x + (-c)``; ``x - (-y)`` is ``x + y``."""
    x, y = op.inputs
    value, tensor = sweep.scalar(y), sweep.type_of(y)
    if value is not None and (tensor.dtype.is_float or tensor.dtype in (DType.I64, DType.I32)):
        return as_kind(op, "add", x, sweep.constant(-value, tensor))
    negated = sweep.producer(y, "neg")
    return None if negated is None else as_kind(op, "add", x, negated.inputs[0])


def add_negated(sweep: Sweep, op: Op) -> Op | None:
    """``x + (-y)`` is ``x - y``; so is ``(-y) + x``."""
    for x, y in (op.inputs, op.inputs[::-1]):
        negated = sweep.producer(y, "neg")
        if negated is not None and sweep.scalar(x) is None:
            return as_kind(op, "sub", x, negated.inputs[0])
    return None


def multiply(sweep: Sweep, op: Op) -> Op | None:
    """``x · (-1)`` is ``-x``."""
    x, c = op.inputs
    return as_kind(op, "neg", x) if sweep.scalar(c) == -1 else None


def divide(sweep: Sweep, op: Op) -> Op | None:
    """``1 / x`` is a reciprocal; ``x / c`` is ``x · (1 / c)`` where that is exact."""
    x, c = op.inputs
    if not op.type.dtype.is_float:
        return None
    if sweep.scalar(x) == 1 and sweep.type_of(c).same(op.type):
        return as_kind(op, "reciprocal", c)
    value = sweep.scalar(c)
    if value is None or not isfinite(value) or abs(frexp(value)[0]) != 0.5:
        return None
    if not 2.0**-14 <= abs(value) <= 2.0**14:  # the reciprocal is a normal number in every dtype
        return None
    return as_kind(op, "mul", x, sweep.constant(1 / value, sweep.type_of(c)))


def power(sweep: Sweep, op: Op) -> Op | None:
    """Powers 2, ½, -½ and -1 are products, roots and reciprocals."""
    x, c = op.inputs
    value = sweep.scalar(c)
    if value == 2:
        return as_kind(op, "mul", x, x)
    if not op.type.dtype.is_float:
        return None
    kinds = {0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    return as_kind(op, kinds[value], x) if value in kinds else None


def invert_root(sweep: Sweep, op: Op) -> Op | None:
    """``1 / sqrt(x)`` is one operator."""
    root = sweep.producer(op.inputs[0], "sqrt")
    return None if root is None else as_kind(op, "rsqrt", root.inputs[0])


def twice(sweep: Sweep, op: Op) -> str | None:
    """``-(-x)`` and ``not not x`` are x."""
    inner = sweep.producer(op.inputs[0], op.kind)
    return None if inner is None else inner.inputs[0]


def rectify(sweep: Sweep, op: Op) -> Op | None:
    """``max(x, 0)`` is ``relu(x)``."""
    x, c = op.inputs
    return as_kind(op, "relu", x) if sweep.scalar(c) == 0 else None


def logic(sweep: Sweep, op: Op) -> Op | str | None:
    """``and``, ``or`` and ``xor`` with a constant or with itself."""
    x, c = op.inputs
    value = sweep.scalar(c)
    if not sweep.type_of(x).same(op.type):
        return None
    if x == c and op.kind != "xor":
        return x
    if value is None:
        return None
    if op.kind == "xor":
        return as_kind(op, "not", x) if value else x
    decisive = op.kind == "or"
    return as_constant(op, decisive) if bool(value) is decisive else x


def select(sweep: Sweep, op: Op) -> Op | str | None:
    """``where`` with a known or inverted condition, or with equal branches."""
    condition, yes, no = op.inputs
    value = sweep.scalar(condition)
    picked = yes if yes == no else None if value is None else yes if value else no
    if picked is not None:
        if sweep.type_of(picked).same(op.type):
            return picked
        return as_kind(op, "expand", picked)
    inverted = sweep.producer(condition, "not")
    if inverted is not None:
        return as_kind(op, "where", inverted.inputs[0], no, yes)
    return None


def truth(sweep: Sweep, op: Op) -> Op | str | None:
    """Comparisons of a bool or of a number with zero are casts to bool."""
    x, c = op.inputs
    value, dtype = sweep.scalar(c), sweep.type_of(x).dtype
    if value is None:
        return None
    cast = sweep.producer(x, "cast")
    inner = cast.inputs[0] if cast is not None else x
    if sweep.type_of(inner).dtype is DType.BOOL and value in (0, 1):
        return inner if (op.kind == "equal") == bool(value) else as_kind(op, "not", inner)
    if op.kind == "not_equal" and value == 0 and dtype is not DType.BOOL:
        return as_kind(op, "cast", x, to=DType.BOOL)
    return None


def drop_cast(sweep: Sweep, op: Op) -> Op | str | None:
    """A cast to the same element type, and a cast of a cast that lost nothing."""
    (x,) = op.inputs
    if sweep.type_of(x).dtype is op.type.dtype:
        return x
    inner = sweep.producer(x, "cast")
    if inner is None:
        return None
    source = inner.inputs[0]
    if not _is_exact(sweep.type_of(source).dtype, inner.type.dtype):
        return None
    return replace(op, inputs=(source,))


def _is_exact(source: DType, target: DType) -> bool:
    """Whether every value of one element type is a value of the other."""
    if source is DType.BOOL:
        return True
    if source.is_float or target is DType.BOOL:
        narrow = (DType.F16, DType.BF16)
        return target.is_float and source.bytes < target.bytes and source in (*narrow, DType.F32)
    signed = source.value.startswith("i")
    bits = 8 * source.bytes - int(signed)
    if target.is_float:
        return bits <= _MANTISSA[target]
    if signed and target.value.startswith("u"):
        return False
    return bits <= 8 * target.bytes - int(target.value.startswith("i"))


def sum_zeros(sweep: Sweep, op: Op) -> Op | None:
    """Zeros add up to zeros."""
    value = sweep.scalar(op.inputs[0])
    return as_constant(op, value) if value is not None and value == 0 else None


RULES: dict[str, tuple[Rule, ...]] = {
    "cumsum": (sum_zeros,),
    "reduce_sum": (sum_zeros,),
    "add": (constants_second, drop_neutral, add_negated),
    "sub": (drop_neutral, subtract),
    "mul": (constants_second, drop_neutral, multiply),
    "div": (drop_neutral, divide),
    "pow": (drop_neutral, power),
    "neg": (twice,),
    "not": (twice,),
    "reciprocal": (invert_root,),
    "min": (constants_second,),
    "max": (constants_second, rectify),
    "and": (constants_second, logic),
    "or": (constants_second, logic),
    "xor": (constants_second, logic),
    "where": (select,),
    "equal": (constants_second, truth),
    "not_equal": (constants_second, truth),
    "less": (constants_second,),
    "less_equal": (constants_second,),
    "greater": (constants_second,),
    "greater_equal": (constants_second,),
    "cast": (drop_cast,),
}
