"""Lowerings that no kind of machine does in a way of its own: maps that the backend places."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dfcompiler.errors import InternalError
from dfcompiler.ir.program import Op
from dfcompiler.lowering.backend import Lowering
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.elementwise import ELEMENTWISE, lower_elementwise
from dfcompiler.lowering.indexing import lower_take_along
from dfcompiler.lowering.movement import lower_concat, lower_indexed, lower_pad

PORTABLE: Mapping[str, Lowering] = MappingProxyType(
    {
        **dict.fromkeys(ELEMENTWISE, lower_elementwise),
        **dict.fromkeys(("copy", "expand", "slice", "constant", "dim", "iota"), lower_indexed),
        "concat": lower_concat,
        "pad": lower_pad,
        "take_along": lower_take_along,
    }
)


def by_kernel(kernels: Mapping[str, Lowering]) -> Lowering:
    """What lowers a fused operator: the one of `kernels` that its pass made it for.

    Raises:
        InternalError: when it lowers one whose kernel is not among them.
    """

    def lower_fused(context: Context, op: Op) -> None:
        kernel = str(op.attr("kernel", ""))
        if kernel not in kernels:
            raise InternalError(
                f"{op.result} is fused for the kernel {kernel!r}, which the lowering does not have",
                where=(f"kernels of {context.backend.name}: {', '.join(sorted(kernels))}",),
            )
        kernels[kernel](context, op)

    return lower_fused
