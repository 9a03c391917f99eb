"""Which operators change nothing but how memory is read."""

from __future__ import annotations

from dfcompiler.ir.program import Op
from dfcompiler.ir.types import TensorType


def is_view(op: Op, source: TensorType) -> bool:
    """Whether a reshape or a transpose gives the elements of `source` in the order they lie in."""
    if op.type.layout.is_tiled or source.layout.is_tiled:
        return False
    match op.kind:
        case "reshape":
            return op.type.layout.is_row_major and source.layout.is_row_major
        case "transpose":
            perm = op.attr("perm")
            order = tuple(perm[axis] for axis in op.type.layout.permutation(op.type.rank))
            return order == source.layout.permutation(source.rank)
    return False
