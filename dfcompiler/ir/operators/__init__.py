"""The operator table: one row per operator, read by every part that must know operators."""

from dfcompiler.ir.operators import contraction, elementwise, movement, normalization
from dfcompiler.ir.operators.fused import fused_row
from dfcompiler.ir.operators.spec import OpClass, OpSpec

OPERATORS: dict[str, OpSpec] = {
    spec.kind: spec
    for spec in (*contraction.ROWS, *normalization.ROWS, *elementwise.ROWS, *movement.ROWS)
}
OPERATORS["fused"] = fused_row(OPERATORS)

__all__ = ["OPERATORS", "OpClass", "OpSpec"]
