"""Which function lowers which operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from dfcompiler.errors import InternalError
from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.elementwise import ELEMENTWISE, lower_elementwise

Lowering: TypeAlias = Callable[[Context, Op], None]


def lower_fused(context: Context, op: Op) -> None:
    """A fused operator by the kernel that its pass made it for."""
    kernel = str(op.attr("kernel", ""))
    if kernel not in FUSED_KERNELS:
        raise InternalError(
            f"{op.result} is fused for the kernel {kernel!r}, which the lowering does not have"
        )
    FUSED_KERNELS[kernel](context, op)


FUSED_KERNELS: Mapping[str, Lowering] = MappingProxyType({"elementwise": lower_elementwise})

LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        **dict.fromkeys(ELEMENTWISE, lower_elementwise),
        "fused": lower_fused,
    }
)
