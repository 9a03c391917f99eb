"""Matching patterns in a state: scalar factors, polynomials, gates and views."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dfcompiler.ir.dims import Shape, equal, same_shape
from dfcompiler.ir.program import Op
from dfcompiler.ir.rewrite import StateRewriter

Polynomial = tuple[float, float, float, float]
"""Coefficients of 1, x, x² and x³."""


class MismatchError(Exception):
    """A site that looks like the pattern and is not; the message says why."""


def close(value: float, expected: float) -> bool:
    """Whether a constant is the expected one, written with five digits or more."""
    return math.isclose(value, expected, rel_tol=1e-5, abs_tol=1e-9)


def through(state: StateRewriter, name: str, *kinds: str) -> str:
    """The value behind a chain of one-input operators of these kinds."""
    while (op := state.producer(name)) is not None and op.kind in kinds:
        name = op.inputs[0]
    return name


def scaled(state: StateRewriter, name: str) -> tuple[str, float] | None:
    """``(x, c)`` when `name` is ``x · c``, ``x / c`` or ``-x``, with x of the same shape."""
    op = state.producer(name)
    if op is None or op.kind not in ("mul", "div", "neg"):
        return None
    if op.kind == "neg":
        return op.inputs[0], -1.0
    left, right = op.inputs
    factor, value = state.scalar(right), left
    if factor is None and op.kind == "mul":
        factor, value = state.scalar(left), right
    if factor is None or not same_shape(state.type_of(value).shape, op.type.shape):
        return None
    if op.kind == "div":
        return (value, 1.0 / factor) if factor else None
    return value, float(factor)


def multiples(state: StateRewriter, name: str) -> Iterator[tuple[str, float]]:
    """Pairs ``(x, c)`` with ``name = c · x``, from `name` itself inward."""
    factor = 1.0
    yield name, factor
    while (found := scaled(state, name)) is not None:
        name, factor = found[0], factor * found[1]
        yield name, factor


def polynomial(state: StateRewriter, name: str, variable: str, depth: int = 8) -> Polynomial | None:
    """The polynomial of degree 3 at most that computes `name` from `variable`."""
    if name == variable:
        return (0.0, 1.0, 0.0, 0.0)
    number = state.scalar(name)
    if number is not None:
        return (float(number), 0.0, 0.0, 0.0)
    op = state.producer(name)
    if op is None or not depth or op.kind not in ("neg", "add", "sub", "mul", "div", "pow"):
        return None
    parts = []
    for operand in op.inputs:
        part = polynomial(state, operand, variable, depth - 1)
        if part is None:
            return None
        parts.append(part)
    return _combined(op.kind, parts)


def _combined(kind: str, parts: Sequence[Polynomial]) -> Polynomial | None:
    left = parts[0]
    if kind == "neg":
        return _times(left, (-1.0, 0.0, 0.0, 0.0))
    right = parts[1]
    match kind:
        case "add":
            return _plus(left, right, 1.0)
        case "sub":
            return _plus(left, right, -1.0)
        case "mul":
            return _times(left, right)
        case "div" if right[0] and not any(right[1:]):
            return _times(left, (1.0 / right[0], 0.0, 0.0, 0.0))
        case "pow" if right[0] in (1, 2, 3) and not any(right[1:]):
            result: Polynomial | None = left
            for _ in range(int(right[0]) - 1):
                result = result and _times(result, left)
            return result
    return None


def _plus(a: Polynomial, b: Polynomial, sign: float) -> Polynomial:
    return (a[0] + sign * b[0], a[1] + sign * b[1], a[2] + sign * b[2], a[3] + sign * b[3])


def _times(a: Polynomial, b: Polynomial) -> Polynomial | None:
    result = [0.0] * 4
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            if x and y:
                if i + j > 3:
                    return None
                result[i + j] += x * y
    return (result[0], result[1], result[2], result[3])


@dataclass(frozen=True)
class Gate:
    """``op = factor · (slope · f + offset)`` for the result f of some operator."""

    op: Op
    factor: str
    slope: float
    offset: float


def gates(state: StateRewriter, function: Op) -> Iterator[Gate]:
    """Every product that the result f of `function` flows into alone, innermost first.

    ``f → slope · f + offset → · factor → · c …``: the chain ends at the first operator that is
    neither, or at a value with two readers.
    """
    name, slope, offset, factor = function.result, 1.0, 0.0, ""
    while (user := state.only_user(name)) is not None and user.kind in _AFFINE:
        if not same_shape(user.type.shape, function.type.shape):
            return
        step = _step(state, user, name, factor)
        if step is None:
            return
        slope, offset = slope * step[0], offset * step[0] + step[1]
        factor, name = step[2], user.result
        if factor:
            yield Gate(user, factor, slope, offset)


_AFFINE = ("add", "sub", "mul", "div", "neg")


def _step(
    state: StateRewriter, user: Op, name: str, factor: str
) -> tuple[float, float, str] | None:
    """How `user` changes ``factor · (slope · f + offset)``: times, plus, and the factor."""
    if user.kind == "neg":
        return -1.0, 0.0, factor
    left, right = user.inputs
    if left == right:
        return None
    other = right if left == name else left
    number = state.scalar(other)
    if user.kind in ("add", "sub"):
        # x + x·f is x · (f + 1): the factor counts as one.
        plus = 1.0 if factor and other == factor else number if not factor else None
        if plus is None:
            return None
        if user.kind == "add":
            return 1.0, float(plus), factor
        return (1.0, -float(plus), factor) if left == name else (-1.0, float(plus), factor)
    if user.kind == "div":
        return (1.0 / number, 0.0, factor) if number and left == name else None
    if number is not None:
        return float(number), 0.0, factor
    return None if factor else (1.0, 0.0, other)


def viewed(state: StateRewriter, name: str, shape: Shape) -> str | None:
    """The value of `shape` behind the reshapes that give `name`; row-major order makes it equal."""
    while not same_shape(state.type_of(name).shape, shape):
        op = state.producer(name)
        if op is None or op.kind != "reshape":
            return None
        name = op.inputs[0]
    return name


def is_last_axis(op: Op, rank: int) -> bool:
    """Whether a reduction or a softmax runs along the last axis alone."""
    axes = op.attr("axes", (op.attr("axis"),))
    return tuple(axes) in ((-1,), (rank - 1,))


def parameter(state: StateRewriter, name: str, value: str) -> str | None:
    """The vector behind an operand that broadcasts along the last axis of `value`."""
    width = state.type_of(value).shape[-1]
    while True:
        found = state.type_of(name)
        if found.rank == 1:
            return name if equal(found.shape[0], width) and state.is_stable(name) else None
        op = state.producer(name)
        if op is None or op.kind not in ("reshape", "expand") or not equal(found.shape[-1], width):
            return None
        name = op.inputs[0]
