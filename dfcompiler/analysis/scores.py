"""Attention scores: what lies between a softmax and the product of queries and keys."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from dfcompiler.analysis.visibility import Leaf
from dfcompiler.ir.dims import Shape, same_shape
from dfcompiler.ir.match import MismatchError, is_last_axis, scaled, through
from dfcompiler.ir.program import Op
from dfcompiler.ir.rewrite import StateRewriter
from dfcompiler.ir.types import DType


@dataclass(frozen=True)
class Added:
    """A mask whose values are added to the scores."""

    name: str
    rank: int


@dataclass(frozen=True)
class Hidden:
    """A mask that adds `fill` to the scores, or replaces them by it, where `visible` is false.

    `added` is the value that is added, if there is one; `shape` what `visible` is reshaped to, if
    it is.
    """

    visible: Leaf
    fill: float
    replaces: bool
    rank: int
    added: str = ""
    shape: Shape | None = None


Mask = Added | Hidden


@dataclass
class Weights:
    """``softmax(scale · product + masks)`` as an operand of the product with the values.

    Attributes:
        softmax: the softmax.
        product: the product of queries and keys.
        scale: what the product is multiplied by.
        masks: masks in the order in which they apply, with the rank of the scores they apply to.
        chain: the values from the product to the operand, side computations of the guard included.
    """

    softmax: Op
    product: Op
    scale: float = 1.0
    masks: list[Mask] = field(default_factory=list)
    chain: dict[str, None] = field(default_factory=dict)


def weights_of(state: StateRewriter, operand: str) -> Weights | None:
    """The attention weights that `operand` is, if it comes from a softmax.

    Raises:
        MismatchError: if the softmax is not over the scaled and masked product of two matrices.
    """
    chain: dict[str, None] = {}
    name, guards = operand, list[Op]()
    while (op := state.producer(name)) is not None and op.kind != "softmax":
        chain[name] = None
        if op.kind == "where":
            guards.append(op)
            name = op.inputs[1] if state.scalar(op.inputs[2]) == 0 else op.inputs[2]
        elif op.kind == "cast" or (op.kind == "reshape" and _keeps_matrices(state, op)):
            name = op.inputs[0]
        else:
            return None
    if op is None:
        return None
    if not is_last_axis(op, op.type.rank):
        raise MismatchError("the softmax does not run along the last axis")
    chain[op.result] = None
    found = Weights(op, op, chain=chain)
    _walk_scores(state, found)
    for guard in guards:
        chain |= dict.fromkeys(_guard_chain(state, guard, found))
    _check_readers(state, found, operand)
    return found


def _keeps_matrices(state: StateRewriter, reshape: Op) -> bool:
    return same_shape(state.type_of(reshape.inputs[0]).shape[-2:], reshape.type.shape[-2:])


def _walk_scores(state: StateRewriter, found: Weights) -> None:
    (name,) = found.softmax.inputs
    while (op := state.producer(name)) is not None and op.kind != "matmul":
        found.chain[name] = None
        multiple = scaled(state, name)
        if multiple is not None:
            name, found.scale = multiple[0], found.scale * multiple[1]
        elif op.kind == "cast" and op.type.dtype.is_float:
            name = op.inputs[0]
        elif op.kind == "reshape":
            name = op.inputs[0]
            if not _keeps_matrices(state, op):
                raise MismatchError("the scores are reshaped across queries and keys")
        elif op.kind in ("add", "where"):
            if found.scale != 1.0:
                raise MismatchError("the masked scores are scaled, not only the product")
            name, mask = _masked(state, op)
            found.masks += mask
        else:
            break
    if op is None or op.kind != "matmul":
        what = op.kind if op is not None else name
        raise MismatchError(f"its scores come from {what}, not from a product of matrices")
    found.chain[name] = None
    found.product = op
    found.masks.reverse()


def _masked(state: StateRewriter, op: Op) -> tuple[str, list[Mask]]:
    """The scores that a sum or a choice masks, and the mask (none when it adds zeros)."""
    if op.kind == "where":
        condition, shown, other = op.inputs
        fill, negated = state.scalar(other), False
        if fill is None:
            shown, fill, negated = other, state.scalar(shown), True
        if fill is None:
            raise MismatchError("the scores are chosen from two values, not masked")
        return shown, [Hidden(Leaf(condition, negated), float(fill), True, op.type.rank)]
    sides = [_reaches_product(state, name) for name in op.inputs]
    if sides[0] == sides[1]:
        where = "both sides" if sides[0] else "neither side"
        raise MismatchError(f"{where} of the masked sum come from a product of matrices")
    scores, mask = op.inputs if sides[0] else op.inputs[::-1]
    return scores, masks_of(state, mask, op.type.rank)


def masks_of(state: StateRewriter, mask: str, rank: int) -> list[Mask]:
    """What a mask of scores of some rank says: nothing, what is visible, or values to add."""
    if state.type_of(mask).dtype is DType.BOOL:
        return [Hidden(Leaf(mask), -math.inf, False, rank)]
    if state.scalar(mask) == 0:
        return []
    op = state.producer(through(state, mask, "expand", "copy"))
    if op is not None and op.kind == "reshape":
        return _reshaped_mask(state, op, rank) or [Added(mask, rank)]
    if op is not None and op.kind == "where":
        left, right = (state.scalar(name) for name in op.inputs[1:])
        if left == 0 and right is not None and right < 0:
            return [Hidden(Leaf(op.inputs[0]), float(right), False, rank, op.result)]
        if right == 0 and left is not None and left < 0:
            return [Hidden(Leaf(op.inputs[0], True), float(left), False, rank, op.result)]
    return [Added(mask, rank)]


def _reshaped_mask(state: StateRewriter, reshape: Op, rank: int) -> list[Mask] | None:
    """What a mask says that was chosen from zero and minus infinity before it was reshaped."""
    op = state.producer(reshape.inputs[0])
    if op is None or op.kind != "where":
        return None
    values = tuple(state.scalar(name) for name in op.inputs[1:])
    if values not in ((0, -math.inf), (-math.inf, 0)):
        return None
    if not same_shape(state.type_of(op.inputs[0]).shape, op.type.shape):
        return None
    visible = Leaf(op.inputs[0], values[0] != 0)
    return [Hidden(visible, -math.inf, False, rank, shape=reshape.type.shape)]


_SCORE_KINDS = ("add", "mul", "div", "where", "cast", "reshape")


def _reaches_product(state: StateRewriter, name: str, depth: int = 8) -> bool:
    op = state.producer(name)
    if op is None or not depth:
        return False
    if op.kind == "matmul":
        return True
    return op.kind in _SCORE_KINDS and any(
        _reaches_product(state, part, depth - 1) for part in op.inputs
    )


def _guard_chain(state: StateRewriter, guard: Op, found: Weights) -> set[str]:
    """The values that tell where `guard` sets weights to zero.

    Raises:
        MismatchError: if that is not where the weights are NaN or nothing is visible.
    """
    condition, left, right = guard.inputs
    seen: set[str] = set()
    zeroed = state.scalar(left) == 0
    if not zeroed and state.scalar(right) != 0:
        raise MismatchError("the weights are chosen from two values before they are used")
    op = state.producer(condition)
    while op is not None and op.kind in ("not", "expand", "reshape", "cast"):
        seen.add(op.result)
        zeroed ^= op.kind == "not"
        op = state.producer(op.inputs[0])
    if op is not None and op.kind == "isnan" and zeroed and op.inputs[0] in found.chain:
        return seen | {op.result}
    # Nothing visible: the least of (score = -inf) is true, or the greatest of its negation is not.
    if op is not None and is_last_axis(op, found.softmax.type.rank):
        if op.kind == "reduce_min" and zeroed:
            return seen | {op.result} | _minus_infinity(state, op.inputs[0], False, found)
        if op.kind == "reduce_max" and not zeroed:
            return seen | {op.result} | _minus_infinity(state, op.inputs[0], True, found)
    raise MismatchError("the weights are set to zero elsewhere than where nothing is visible")


def _minus_infinity(state: StateRewriter, name: str, negated: bool, found: Weights) -> set[str]:
    """The values that say where a score is minus infinity, or where it is not."""
    seen: set[str] = set()
    while (op := state.producer(name)) is not None:
        seen.add(name)
        if op.kind == "not":
            negated = not negated
        elif op.kind == ("not_equal" if negated else "equal"):
            for score, number in (op.inputs, op.inputs[::-1]):
                if score in found.chain and state.scalar(number) == -math.inf:
                    return seen
            break
        elif not (op.kind == "cast" and DType.BOOL in (op.type.dtype, _type(state, op))):
            break
        name = op.inputs[0]
    raise MismatchError("the weights are set to zero elsewhere than where nothing is visible")


def _type(state: StateRewriter, op: Op) -> DType:
    return state.type_of(op.inputs[0]).dtype


def _check_readers(state: StateRewriter, found: Weights, operand: str) -> None:
    """Raises MismatchError when scores or weights are read by others than the chain itself."""
    for name in found.chain:
        if name == operand:
            if len(state.users(name)) > 1:
                raise MismatchError("the weights are read elsewhere too")
            continue
        for user in state.users(name):
            if user.result not in found.chain:
                raise MismatchError(f"the scores or weights are read elsewhere, by {user.kind}")
