"""Queries, keys and values by batch and head, however a model lays them out around a product."""

from __future__ import annotations

from collections.abc import Sequence

from dfcompiler.ir.dims import Dim, Shape, equal, product, same_shape
from dfcompiler.ir.draft import Draft
from dfcompiler.ir.match import MismatchError, scaled, viewed
from dfcompiler.ir.program import Op
from dfcompiler.ir.rewrite import StateRewriter


def batch_and_heads(state: StateRewriter, values: Sequence[str]) -> tuple[Dim, Dim]:
    """Batch and heads, from whichever of the values around a product has them on their own axes.

    Raises:
        MismatchError: if there are more leading axes.
    """
    leading = state.type_of(values[-1]).shape[:-2]
    if len(leading) > 2:
        raise MismatchError(f"the product has {len(leading)} batch axes, expected 2 at most")
    for start in values:
        tail = state.type_of(start).shape[-2:]
        name: str | None = start
        while name is not None:
            shape = state.type_of(name).shape
            if len(shape) == 4 and same_shape(shape[-2:], tail):
                return shape[0], shape[1]
            op = state.producer(name)
            name = op.inputs[0] if op is not None and op.kind == "reshape" else None
    return (leading[0], 1) if leading else (1, 1)


def keys_of(state: StateRewriter, transposed: str) -> tuple[str, float, tuple[int, ...]]:
    """``(k, factor, perm)``: the product reads factor · kᵀ, or of k transposed by `perm`.

    Raises:
        MismatchError: if the right operand is no transpose.
    """
    name, factor = transposed, 1.0
    while (op := state.producer(name)) is not None:
        multiple = scaled(state, name)
        if multiple is not None:
            name, factor = multiple[0], factor * multiple[1]
        elif op.kind == "transpose":
            *perm, last, before = op.attr("perm")
            swapped = (*perm, before, last)
            plain = swapped == tuple(range(len(swapped)))
            return op.inputs[0], factor, () if plain else swapped
        elif op.kind == "reshape" and same_shape(
            state.type_of(op.inputs[0]).shape[-2:], op.type.shape[-2:]
        ):
            name = op.inputs[0]
        else:
            break
    raise MismatchError("the keys are stored transposed: attention would have to transpose them")


def unscaled(draft: Draft, name: str) -> tuple[str, float]:
    """``(x, c)`` with ``name = c · x`` up to a reshape; looks behind reshapes and transposes."""
    state, path, factor = draft.state, list[Op](), 1.0
    found, depth = name, 0
    while (op := state.producer(name)) is not None:
        multiple = scaled(state, name)
        if multiple is not None:
            name, factor = multiple[0], factor * multiple[1]
            found, depth = name, len(path)
        elif op.kind in ("reshape", "transpose") and state.only_user(name) is not None:
            path.append(op)
            name = op.inputs[0]
        else:
            break
    if all(moved.kind == "reshape" for moved in path[:depth]):
        return found, factor
    for moved in reversed(path[:depth]):
        found = draft.op(moved.kind, [found], moved.attrs, type=moved.type)
    return found, factor


def repeated(state: StateRewriter, name: str, heads: Dim) -> tuple[str, Dim] | None:
    """Keys or values before their heads were repeated for groups of queries, and how many."""
    op = state.producer(name)
    while op is not None and op.kind == "reshape":
        op = state.producer(op.inputs[0])
    if op is None or op.kind != "expand":
        return None
    outer, inner = op.type.shape, state.type_of(op.inputs[0]).shape
    if len(outer) == 4 and same_shape(inner, (outer[0], 1, *outer[2:])) and equal(outer[1], heads):
        return op.inputs[0], 1
    if len(outer) == 5 and same_shape(inner, (*outer[:2], 1, *outer[3:])):
        return (op.inputs[0], outer[1]) if equal(outer[1] * outer[2], heads) else None
    return None


def view(draft: Draft, name: str, shape: Shape) -> str:
    """`name` with `shape`: a value that it was reshaped from, or a reshape.

    Raises:
        MismatchError: if the number of elements differs.
    """
    found = draft.type_of(name).shape
    if not equal(product(found), product(shape)):
        raise MismatchError("queries, keys and values are broadcast against each other")
    drafted = draft.state.producer(name) is None and name.startswith("%")
    return (not drafted and viewed(draft.state, name, shape)) or draft.reshape(name, shape)
