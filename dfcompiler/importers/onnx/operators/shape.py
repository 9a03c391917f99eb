"""Shapes as values, and operators that change nothing but the shape."""

from __future__ import annotations

from collections.abc import Sequence

import sympy

from dfcompiler.errors import UnsupportedError
from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.node import Node, operator
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir import DType
from dfcompiler.ir.dims import Dim, Shape, as_dim, equal, expand, product, show_dim
from dfcompiler.ir.operators.spec import normalize_axis


@operator("Shape")
def _shape(context: Context, node: Node) -> Value:
    x = node[0]
    window = slice(int(node.attr("start", 0)), node.attr("end"))
    return context.dims(x.shape[window])


@operator("Size")
def _size(context: Context, node: Node) -> Value:
    return context.reshape(context.dims([product(node[0].shape)]), ())


@operator("Reshape")
def _reshape(context: Context, node: Node) -> Value:
    x = node[0]
    return context.reshape(x, target_shape(context, x.shape, node.dims(1), _copies_zero(node)))


def _copies_zero(node: Node) -> bool:
    return not node.attr("allowzero", 0)


def target_shape(context: Context, old: Shape, new: Sequence[Dim], copies_zero: bool) -> Shape:
    """The shape that a Reshape asks for: 0 copies an extent, −1 takes what is left."""
    shape = list(new)
    for axis, dim in enumerate(shape):
        if copies_zero and isinstance(dim, int) and dim == 0:
            if axis >= len(old):
                raise ValueError(f"axis {axis} of the new shape copies an extent that is not there")
            shape[axis] = old[axis]
    free = [axis for axis, dim in enumerate(shape) if isinstance(dim, int) and dim == -1]
    if len(free) > 1 or any(isinstance(dim, int) and dim < -1 for dim in shape):
        raise ValueError(f"[{', '.join(map(show_dim, new))}] is no shape")
    if free:
        rest = [dim for axis, dim in enumerate(shape) if axis != free[0]]
        shape[free[0]] = divided(old, rest)
        return tuple(shape)
    left, right = cancelled(old, shape)
    if not equal(product(left), product(right)):
        context.unify(product(left), product(right))
    return tuple(shape)


def cancelled(above: Sequence[Dim], below: Sequence[Dim]) -> tuple[list[Dim], list[Dim]]:
    """The two products without the extents that both have."""
    left, right = list(above), []
    for dim in below:
        found = next((i for i, other in enumerate(left) if equal(other, dim)), None)
        if found is None or (isinstance(dim, int) and dim == 0):
            right.append(dim)
        else:
            del left[found]
    return left, right


def divided(above: Sequence[Dim], below: Sequence[Dim]) -> Dim:
    """The product of `above` divided by that of `below`.

    Raises:
        ValueError: if the division leaves a remainder.
        UnsupportedError: if it does so for some values of the symbols only.
    """
    left, right = cancelled(above, below)
    total, parts = product(left), product(right)
    if isinstance(parts, int) and parts == 0:
        raise ValueError("-1 stands for any extent beside an extent of 0")
    if isinstance(total, int) and isinstance(parts, int):
        if total % parts:
            raise ValueError(f"{total} elements do not divide into rows of {parts}")
        return total // parts
    quotient = expand(as_dim(sympy.cancel(sympy.sympify(total) / parts)))
    whole = isinstance(quotient, int) or (
        not quotient.as_numer_denom()[1].free_symbols
        and all(term.as_coeff_Mul()[0].is_Integer for term in sympy.Add.make_args(quotient))
    )
    if not whole:
        raise UnsupportedError(
            f"{show_dim(total)} elements divide into rows of {show_dim(parts)} for some sizes only",
            hint="export the model with fixed sizes",
        )
    return quotient


@operator("Flatten")
def _flatten(context: Context, node: Node) -> Value:
    x = node[0]
    axis = int(node.attr("axis", 1))
    if not -x.rank <= axis <= x.rank:
        raise ValueError(f"axis {axis} is out of range for rank {x.rank}")
    axis = axis + x.rank if axis < 0 else axis
    return context.reshape(x, (product(x.shape[:axis]), product(x.shape[axis:])))


@operator("Squeeze")
def _squeeze(context: Context, node: Node) -> Value:
    x = node[0]
    if node.optional(1) is not None:
        axes = {normalize_axis(axis, x.rank) for axis in node.integers(1)}
    else:
        axes = {a for a, dim in enumerate(x.shape) if isinstance(dim, int) and dim == 1}
    for axis in axes:
        context.unify(x.shape[axis], 1)
    return context.reshape(x, tuple(dim for a, dim in enumerate(x.shape) if a not in axes))


@operator("Unsqueeze")
def _unsqueeze(context: Context, node: Node) -> Value:
    x = node[0]
    given = node.integers(1)
    rank = x.rank + len(given)
    axes = {normalize_axis(axis, rank) for axis in given}
    if len(axes) != len(given):
        raise ValueError(f"axes {list(given)} name one axis twice")
    rest = iter(x.shape)
    return context.reshape(x, tuple(1 if a in axes else next(rest) for a in range(rank)))


@operator("Expand")
def _expand(context: Context, node: Node) -> Value:
    x = node[0]
    return context.expand(x, context.broadcast([x.shape, node.dims(1)]))


@operator("Tile")
def _tile(context: Context, node: Node) -> Value:
    x, repeats = node[0], node.dims(1)
    if len(repeats) != x.rank:
        raise ValueError(f"{len(repeats)} repeats for rank {x.rank}")
    result = tuple(expand(dim * count) for dim, count in zip(x.shape, repeats, strict=True))
    blocks: list[Dim] = []
    single: list[Dim] = []
    for dim, count in zip(x.shape, repeats, strict=True):
        blocks += [count, dim]
        single += [1, dim]
    return context.reshape(context.expand(context.reshape(x, tuple(single)), tuple(blocks)), result)


@operator("Transpose")
def _transpose(context: Context, node: Node) -> Value:
    x = node[0]
    perm = node.attr("perm", tuple(reversed(range(x.rank))))
    if sorted(perm) != list(range(x.rank)):
        raise ValueError(f"perm {list(perm)} is no permutation of {x.rank} axes")
    return context.transpose(x, perm)


@operator("DepthToSpace")
def _depth_to_space(context: Context, node: Node) -> Value:
    x, size = node.ranked(0, 4, 4), int(node.attr("blocksize"))
    n, c, h, w = x.shape
    depth = divided([c], [size, size])
    if node.attr("mode", "DCR") == "DCR":
        split, perm = (n, size, size, depth, h, w), (0, 3, 4, 1, 5, 2)
    else:
        split, perm = (n, depth, size, size, h, w), (0, 1, 4, 2, 5, 3)
    blocks = context.transpose(context.reshape(x, split), perm)
    return context.reshape(blocks, (n, depth, expand(h * size), expand(w * size)))


@operator("SpaceToDepth")
def _space_to_depth(context: Context, node: Node) -> Value:
    (x,), size = node.values(), int(node.attr("blocksize"))
    if node.attr("mode", "DCR") != "DCR":
        raise node.unsupported(f"mode = {node.attr('mode')}")
    n, c, h, w = x.shape
    rows, columns = divided([h], [size]), divided([w], [size])
    split = context.reshape(x, (n, c, rows, size, columns, size))
    blocks = context.transpose(split, (0, 3, 5, 1, 2, 4))
    return context.reshape(blocks, (n, expand(c * size * size), rows, columns))


@operator("Dropout")
def _dropout(context: Context, node: Node) -> tuple[Value | None, ...]:
    x = node[0]
    if (
        node.optional(2) is not None
        and node.number(2)
        and (node.optional(1) is None or node.number(1))
    ):
        raise node.unsupported("training_mode = 1")
    mask = context.filled(True, DType.BOOL, x.shape) if node.wants(1) else None
    return x, mask
