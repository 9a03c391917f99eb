"""Divisions by a root mean square: the common core of layer and RMS normalization."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dfcompiler.ir.dims import same_shape
from dfcompiler.ir.match import MismatchError, is_last_axis, parameter
from dfcompiler.ir.program import Op
from dfcompiler.ir.rewrite import StateRewriter


@dataclass(frozen=True)
class RootMeanSquare:
    """``user = divided · scale / √(mean(value²) + epsilon)``, the mean over the last axis.

    `scale` is a vector that was multiplied into the inverse root first, or empty.
    """

    value: str
    epsilon: float
    user: Op
    divided: str
    scale: str = ""


def root_mean_square(state: StateRewriter, root: Op) -> RootMeanSquare | None:
    """The division around a root (``sqrt``, ``rsqrt`` or ``pow`` by ±1/2), if it is one.

    Raises:
        MismatchError: if it takes the root of a mean square in a way that no normalization does.
    """
    exponent = state.scalar(root.inputs[1]) if root.kind == "pow" else None
    if root.kind not in ("sqrt", "rsqrt") and exponent not in (0.5, -0.5):
        return None
    shifted = state.producer(root.inputs[0])
    if shifted is not None and _mean_square_argument(state, shifted.result) is not None:
        raise MismatchError("the epsilon stands outside of the root, or is missing")
    if shifted is None or shifted.kind != "add":
        return None
    for mean, number in (shifted.inputs, shifted.inputs[::-1]):
        epsilon = state.scalar(number)
        if epsilon is None or state.scalar(mean) is not None:
            continue
        value = _mean_square_argument(state, mean)
        if value is None:
            return None
        user, divided, scale = _division(
            state, root, value, root.kind == "rsqrt" or exponent == -0.5
        )
        return RootMeanSquare(value, float(epsilon), user, divided, scale)
    return None


def mean_argument(state: StateRewriter, name: str) -> str | None:
    """Gives x when `name` is the mean of x over its last axis, the axis kept with extent 1.

    Raises:
        MismatchError: if it is a mean over other axes.
    """
    kept = state.type_of(name).shape
    op = state.producer(name)
    if op is not None and op.kind == "reshape":
        op = state.producer(op.inputs[0])
    if op is None or op.kind != "reduce_mean":
        return None
    (x,) = op.inputs
    shape = state.type_of(x).shape
    if not is_last_axis(op, len(shape)):
        axes = list(op.attr("axes"))
        raise MismatchError(f"the mean runs over axes {axes}, not over the last one alone")
    return x if same_shape(kept, (*shape[:-1], 1)) else None


def _mean_square_argument(state: StateRewriter, name: str) -> str | None:
    squares = mean_argument(state, name)
    if squares is not None:
        return _square_argument(state, squares)
    op = state.producer(name)
    if op is not None and op.kind == "sub":
        first = mean_argument(state, op.inputs[0])
        if first is not None and _square_argument(state, first) is not None:
            raise MismatchError("the variance is E[x²] − E[x]², which rounds unlike E[(x − E[x])²]")
    return None


def _square_argument(state: StateRewriter, name: str) -> str | None:
    op = state.producer(name)
    if op is not None and op.kind in ("reshape", "transpose"):
        # The square may have been taken before x itself was reshaped or transposed.
        moved = _square_argument(state, op.inputs[0])
        twins = (user for user in state.users(moved or "") if _moves_alike(user, op))
        return next((user.result for user in twins), None)
    if op is None or op.kind not in ("mul", "pow"):
        return None
    left, right = op.inputs
    if op.kind == "pow":
        return left if state.scalar(right) == 2 else None
    return left if left == right and state.is_stable(left) else None


def _moves_alike(a: Op, b: Op) -> bool:
    return a.kind == b.kind and a.attrs == b.attrs and a.type.same(b.type)


def _division(state: StateRewriter, root: Op, value: str, inverse: bool) -> tuple[Op, str, str]:
    """The operator that divides by the root, what it divides, and a vector multiplied in before."""
    scale = ""
    for name, user in _lone_users(state, root.result):
        other = user.inputs[0] if user.inputs[-1] == name else user.inputs[-1]
        if user.kind == "reciprocal" and not inverse:
            inverse = True
        elif user.kind == "div" and not inverse and user.inputs[1] == name:
            if state.scalar(other) != 1:
                return user, other, scale
            inverse = True
        elif user.kind == "mul" and inverse:
            vector = parameter(state, other, value)
            if vector is None or scale or state.type_of(value).rank == 1:
                return user, other, scale
            scale = vector
        else:
            break
    raise MismatchError("the root of the mean square has several readers, or divides nothing")


def _lone_users(state: StateRewriter, name: str) -> Iterator[tuple[str, Op]]:
    while (user := state.only_user(name)) is not None:
        yield name, user
        name = user.result
