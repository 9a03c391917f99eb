"""Maps over rows whose tasklets call a row function."""

from __future__ import annotations

from collections.abc import Sequence

from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.loops import loops_over
from dfcompiler.lowering.maps import Access, MapBody, pointer
from dfcompiler.lowering.symbolic import element_count


def row_body(
    context: Context,
    op: Op,
    axis: int,
    code: str,
    work: int,
    parameters: Sequence[Access] = (),
) -> MapBody:
    """A map over the rows of an operator, in the order in which they lie in memory.

    Args:
        context: where to.
        op: an operator whose result has the shape of its first operand.
        axis: the axis along which a row lies.
        code: C++ on pointers to the row of the result, ``_o``, and of the operand, ``_x``.
        work: cost of one element in element-wise operations.
        parameters: what the code reads besides.
    """
    order = op.type.layout.permutation(op.type.rank)
    rows = loops_over(op.type, [a for a in order if a != axis])
    source = pointer(context, "_x", context.array(op.inputs[0]), rows.index, (axis,))
    return MapBody(
        label=op.kind,
        ranges=rows.ranges,
        reads=[source, *parameters],
        writes=[pointer(context, "_o", context.array(op.result), rows.index, (axis,))],
        code=code,
        work=element_count(op.type.shape) * work,
    )
