"""What is known about the range of integers: bounds of extents, and comparisons they decide."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import sympy

from dfcompiler.analysis.affine import affine
from dfcompiler.ir import Dim, DType, Op, TensorType
from dfcompiler.ir.dims import as_dim, evaluate, free_symbols, symbol
from passes.rules.sweep import Rule, Sweep, as_constant, evaluate_scalar

Interval: TypeAlias = "tuple[Dim, Dim]"
"""Least and greatest value, both included."""

DEPTH_LIMIT = 8
"""How many operators `interval` looks through, so that a rule takes constant time."""


def is_nonnegative(sweep: Sweep, dim: Dim) -> bool:
    """Whether a polynomial in symbols of at least 1, loop variables of at least 0, is ≥ 0."""
    if isinstance(dim, int):
        return dim >= 0
    if not dim.is_polynomial(*dim.free_symbols):
        return False
    declared = {s.name for s in sweep.program.symbols}
    shift = {symbol(n): symbol(n) + 1 for n in free_symbols(dim) if n in declared}
    shifted = sympy.expand(dim.subs(shift, simultaneous=True))
    terms = sympy.Add.make_args(shifted)
    return all(not term.as_coeff_Mul()[0].is_negative for term in terms)


def is_always_nonnegative(sweep: Sweep, dim: Dim) -> bool:
    """Whether a dimension is never negative, symbols being at most their maximum."""
    maxima = {s.name: s.maximum for s in sweep.program.symbols}
    worst = {name: maxima.get(name) for name in free_symbols(dim)}
    if is_nonnegative(sweep, dim):
        return True
    bounds = {name: most for name, most in worst.items() if most is not None}
    if len(bounds) < len(worst) or not _falls(dim):
        return False
    return evaluate(dim, bounds) >= 0


def _falls(dim: Dim) -> bool:
    """Whether a polynomial never grows when a symbol does."""
    if isinstance(dim, int):
        return True
    terms = sympy.Add.make_args(sympy.expand(dim))
    return all(term.is_number or term.as_coeff_Mul()[0].is_negative for term in terms) and bool(
        dim.is_polynomial(*dim.free_symbols)
    )


def range_of(op: Op) -> tuple[Dim, Dim]:
    """Start and step of an index range."""
    return as_dim(op.attr("start", 0)), as_dim(op.attr("step", 1))


def interval(sweep: Sweep, name: str, depth: int = DEPTH_LIMIT) -> Interval | None:
    """The range of an integer value, where producers tell it."""
    value = sweep.scalar(name)
    if isinstance(value, int):
        return int(value), int(value)
    producer = sweep.producer(name)
    if producer is None or depth == 0 or not producer.type.dtype.is_integer:
        return None
    match producer.kind:
        case "dim":
            return producer.attr("value"), producer.attr("value")
        case "iota":
            start, step = range_of(producer)
            last = as_dim(start + step * (producer.type.shape[0] - 1))
            if is_nonnegative(sweep, step):
                return start, last
            return (last, start) if is_nonnegative(sweep, as_dim(-step)) else None
        case "reshape" | "expand" | "transpose" | "slice" | "gather":
            return interval(sweep, producer.inputs[0], depth - 1)
        case "add" | "sub":
            a, b = (interval(sweep, n, depth - 1) for n in producer.inputs)
            if a is None or b is None:
                return None
            if producer.kind == "add":
                return as_dim(a[0] + b[0]), as_dim(a[1] + b[1])
            return as_dim(a[0] - b[1]), as_dim(a[1] - b[0])
    return None


def decide(sweep: Sweep, op: Op) -> Op | None:
    """A comparison whose sides do not overlap is a constant: ``iota >= 0`` is true."""
    a, b = (interval(sweep, name) for name in op.inputs)
    if a is None or b is None:
        return None

    def below(left: Interval, right: Interval, gap: int) -> bool:
        return is_nonnegative(sweep, as_dim(right[0] - left[1] - gap))

    always = {
        "less": below(a, b, 1),
        "less_equal": below(a, b, 0),
        "greater": below(b, a, 1),
        "greater_equal": below(b, a, 0),
        "equal": False,
        "not_equal": below(a, b, 1) or below(b, a, 1),
    }
    never = {
        "less": always["greater_equal"],
        "less_equal": always["greater"],
        "greater": always["less_equal"],
        "greater_equal": always["less"],
        "equal": always["not_equal"],
        "not_equal": False,
    }
    if always[op.kind]:
        return as_constant(op, True)
    return as_constant(op, False) if never[op.kind] else None


def decide_by_difference(sweep: Sweep, op: Op) -> Op | None:
    """A comparison of integers that differ by the same number everywhere is a constant."""
    if not all(sweep.type_of(name).dtype.is_integer for name in op.inputs):
        return None
    a, b = (affine(sweep, name) for name in op.inputs)
    if a is None or b is None:
        return None
    difference = a.plus(b, -1)
    if difference.slopes or not isinstance(difference.offset, int):
        return None
    boolean = replace(op, type=TensorType(DType.BOOL))
    zero = TensorType(DType.I64)
    return as_constant(op, evaluate_scalar(boolean, (difference.offset, 0), (zero, zero)))


_COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")

RULES: dict[str, tuple[Rule, ...]] = dict.fromkeys(_COMPARISONS, (decide, decide_by_difference))
