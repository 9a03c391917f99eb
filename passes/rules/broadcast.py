"""Rules for all element-wise operators: constants, broadcasts and changes of shape pass through."""

from __future__ import annotations

from dataclasses import replace

from dfcompiler.ir import OPERATORS, Op, OpClass
from dfcompiler.ir.dims import Shape, equal, same_shape
from dfcompiler.ir.operators.spec import broadcast_shapes
from passes.rules.sweep import Rule, Sweep, as_constant, as_kind, evaluate_scalar

BROADCASTING = tuple(
    kind
    for kind, spec in OPERATORS.items()
    if spec.op_class is OpClass.ELEMENTWISE and kind not in ("fused", "rotary", "dequantize")
)
"""Operators whose result has the numpy broadcast of their inputs' shapes."""


def fold_scalars(sweep: Sweep, op: Op) -> Op | None:
    """Compute an operator on rank-0 constants."""
    if op.type.shape:
        return None
    values = [sweep.scalar(name) for name in op.inputs]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return as_constant(op, evaluate_scalar(op, known, [sweep.type_of(n) for n in op.inputs]))


def absorb_broadcasts(sweep: Sweep, op: Op) -> Op | None:
    """Read what was broadcast, and broadcast the result where it is still too small.

    ``add(expand(b), x)`` becomes ``add(b, x)``; ``exp(expand(b))`` becomes ``expand(exp(b))``.
    """
    inputs = tuple(_narrow(sweep, name) for name in op.inputs)
    if inputs == op.inputs:
        return None
    shape = broadcast_shapes([sweep.shape_of(name) for name in inputs])
    if same_shape(shape, op.type.shape):
        return replace(op, inputs=inputs)
    small = sweep.emit(op.kind, inputs, op.attrs, source=op.source)
    return as_kind(op, "expand", small)


def _narrow(sweep: Sweep, name: str) -> str:
    """The smallest value that broadcasts to the same elements as `name`."""
    value, tensor = sweep.scalar(name), sweep.type_of(name)
    if value is not None:
        return name if _is_plain_scalar(name, tensor.shape) else sweep.constant(value, tensor)
    producer = sweep.producer(name, "expand", "reshape")
    if producer is None:
        return name
    source = producer.inputs[0]
    if producer.kind == "expand" or _only_leading_ones(sweep.shape_of(source), tensor.shape):
        return source
    return name


def _is_plain_scalar(name: str, shape: Shape) -> bool:
    return not shape and name.startswith("%")


def _only_leading_ones(source: Shape, result: Shape) -> bool:
    added = len(result) - len(source)
    ones = all(isinstance(dim, int) and dim == 1 for dim in result[: max(added, 0)])
    return added > 0 and ones and same_shape(source, result[added:])


def sink_reshape(sweep: Sweep, op: Op) -> Op | None:
    """Compute before a reshape, so that reshapes meet and vanish.

    ``gelu(reshape(x))`` becomes ``reshape(gelu(x))``; other inputs may be scalars, vectors along
    a last axis that the reshape keeps, or reshapes of the same kind.
    """
    first = _first_moved(sweep, op, "reshape")
    if first is None:
        return None
    shape = sweep.shape_of(first.inputs[0])
    keeps_last = bool(shape) and bool(op.type.shape) and equal(shape[-1], op.type.shape[-1])
    inputs: list[str] = []
    for name in op.inputs:
        other, found = sweep.producer(name, "reshape"), sweep.shape_of(name)
        moves = other is not None and same_shape(found, op.type.shape)
        if other is not None and moves and same_shape(sweep.shape_of(other.inputs[0]), shape):
            inputs.append(other.inputs[0])
        elif not found or (keeps_last and len(found) == 1 and equal(found[0], shape[-1])):
            inputs.append(name)
        else:
            return None
    return as_kind(op, "reshape", sweep.emit(op.kind, inputs, op.attrs, source=op.source))


def sink_transpose(sweep: Sweep, op: Op) -> Op | None:
    """Compute before a transpose: ``mul(transpose(x), 2)`` becomes ``transpose(mul(x, 2))``."""
    first = _first_moved(sweep, op, "transpose")
    if first is None:
        return None
    inputs: list[str] = []
    for name in op.inputs:
        if not sweep.shape_of(name):
            inputs.append(name)
            continue
        other = sweep.producer(name, "transpose")
        if other is None or other.attr("perm") != first.attr("perm"):
            return None
        inputs.append(other.inputs[0])
    moved = sweep.emit(op.kind, inputs, op.attrs, source=op.source)
    return as_kind(op, "transpose", moved, perm=first.attr("perm"))


def _first_moved(sweep: Sweep, op: Op, kind: str) -> Op | None:
    """The first producer of an input of the result's shape that is of one kind."""
    for name in op.inputs:
        producer = sweep.producer(name, kind)
        if producer is not None and same_shape(sweep.shape_of(name), op.type.shape):
            return producer
    return None


_EVERY: tuple[Rule, ...] = (fold_scalars, absorb_broadcasts, sink_reshape, sink_transpose)

RULES: dict[str, tuple[Rule, ...]] = dict.fromkeys(BROADCASTING, _EVERY)
