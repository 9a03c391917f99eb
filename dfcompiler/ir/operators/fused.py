"""The fused operator: its rules follow from the operators in its region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from dfcompiler.ir.dims import Dim
from dfcompiler.ir.operators.spec import Array, OpClass, OpSpec, Types
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import TensorType

Value = TypeVar("Value")


def region_scope(op: Op, values: Sequence[Value]) -> dict[str, Value]:
    """The names that a region's first operator may read, with what stands for them."""
    return dict(zip(op.inputs, values, strict=True))


def fused_row(table: Mapping[str, OpSpec]) -> OpSpec:
    """The row of ``fused`` over the operators of `table`."""

    def infer(op: Op, types: Types) -> TensorType:
        if not op.region:
            raise ValueError("a fused operator has at least one operator in its region")
        return op.region[-1].type

    def flops(op: Op, types: Types) -> Dim:
        scope, total = region_scope(op, types), 0
        for inner in op.region:
            total += table[inner.kind].flops(inner, [scope[name] for name in inner.inputs])
            scope[inner.result] = inner.type
        return total

    def reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
        scope = region_scope(op, inputs)
        for inner in op.region:
            arguments = [scope[name] for name in inner.inputs]
            scope[inner.result] = table[inner.kind].reference(inner, arguments, bindings)
        return scope[op.region[-1].result]

    return OpSpec(
        "fused",
        OpClass.ELEMENTWISE,
        (0, -1),
        infer,
        flops,
        reference,
        optional={"kernel": ""},
        doc="the operators in its region as one kernel",
    )


def op_class(op: Op, table: Mapping[str, OpSpec]) -> OpClass:
    """The class of an operator; of a fused one, that of its heaviest inner operator."""
    if not op.region:
        return table[op.kind].op_class
    classes = {op_class(inner, table) for inner in op.region}
    return next(c for c in OpClass if c in classes)
