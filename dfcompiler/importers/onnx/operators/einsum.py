"""Einsum of two operands, as one matrix product."""

from __future__ import annotations

from collections.abc import Sequence

from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.node import Node, operator
from dfcompiler.importers.onnx.operators.contraction import matmul
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir.dims import Dim, product


@operator("Einsum")
def _einsum(context: Context, node: Node) -> Value:
    equation = str(node.attr("equation")).replace(" ", "")
    values = node.values()
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if "." in equation:
        raise node.unsupported(f"an ellipsis in {equation}")
    if not arrow:
        letters = sorted(set(left) - {","})
        result = "".join(c for c in letters if left.count(c) == 1)
    if len(terms) != len(values) or len(values) > 2:
        raise node.unsupported(f"{len(values)} operands in {equation}")
    if any(len(set(term)) < len(term) for term in (*terms, result)):
        raise node.unsupported(f"a repeated index in {equation}")
    for term, value in zip(terms, values, strict=True):
        if len(term) != value.rank:
            raise ValueError(f"{term} names {len(term)} axes of a tensor of rank {value.rank}")
    if len(values) == 1:
        reduced = _summed(context, values[0], terms[0], result)
        kept = "".join(c for c in terms[0] if c in result)
        return context.transpose(reduced, [kept.index(c) for c in result])
    return _product(context, values, terms, result)


def _summed(context: Context, x: Value, term: str, needed: str) -> Value:
    """`x` summed over the axes that appear nowhere else."""
    axes = tuple(i for i, c in enumerate(term) if c not in needed)
    return context.op("reduce_sum", [x], {"axes": axes}) if axes else x


def _product(context: Context, values: Sequence[Value], terms: Sequence[str], result: str) -> Value:
    """[batch, rows, inner] · [batch, inner, columns], then the axes in the asked order."""
    a_term, b_term = terms
    a = _summed(context, values[0], a_term, b_term + result)
    b = _summed(context, values[1], b_term, a_term + result)
    a_term = "".join(c for c in a_term if c in b_term + result)
    b_term = "".join(c for c in b_term if c in a_term + result)
    sizes: dict[str, Dim] = {}
    for term, value in ((a_term, a), (b_term, b)):
        for letter, dim in zip(term, value.shape, strict=True):
            context.unify(sizes.setdefault(letter, dim), dim)
    batch = [c for c in a_term if c in b_term and c in result]
    inner = [c for c in a_term if c in b_term and c not in result]
    rows = [c for c in a_term if c not in b_term]
    columns = [c for c in b_term if c not in a_term]
    left = _matrices(context, a, a_term, (batch, rows, inner), sizes)
    right = _matrices(context, b, b_term, (batch, inner, columns), sizes)
    product_ = matmul(context, left, right)
    order = [*batch, *rows, *columns]
    shaped = context.reshape(product_, tuple(sizes[c] for c in order))
    return context.transpose(shaped, [order.index(c) for c in result])


def _matrices(
    context: Context, x: Value, term: str, groups: Sequence[list[str]], sizes: dict[str, Dim]
) -> Value:
    """Axes in the order of `groups`; the last two groups become one axis each."""
    letters = [c for group in groups for c in group]
    moved = context.transpose(x, [term.index(c) for c in letters])
    lead = tuple(sizes[c] for c in groups[0])
    merged = tuple(product(sizes[c] for c in group) for group in groups[1:])
    return context.reshape(moved, (*lead, *merged))
