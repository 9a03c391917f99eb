"""Which function lowers which operator for a processor."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dfcompiler.ir.program import Op
from dfcompiler.lowering import indexing, movement, normalization, reduction, rotary
from dfcompiler.lowering.attention import lower_attention
from dfcompiler.lowering.attention_bf16 import is_bf16_attention, lower_bf16_attention
from dfcompiler.lowering.backend import Lowering
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.elementwise import lower_elementwise
from dfcompiler.lowering.matmul import lower_linear, lower_matmul
from dfcompiler.lowering.matmul_bf16 import is_bf16_product, lower_bf16_product, lower_cast
from dfcompiler.lowering.portable import PORTABLE, by_kernel
from dfcompiler.lowering.row import lower_row


def lower_attention_of(context: Context, op: Op) -> None:
    """Attention by the kernel of its operands' type."""
    lower = lower_bf16_attention if is_bf16_attention(context, op) else lower_attention
    lower(context, op)


def lower_product(context: Context, op: Op) -> None:
    """A matrix product, or a fused one, by the kernel of its operands' type."""
    if is_bf16_product(context, op):
        lower_bf16_product(context, op)
    elif op.region:
        lower_linear(context, op)
    else:
        lower_matmul(context, op)


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        **PORTABLE,
        "reshape": movement.lower_reshape,
        "transpose": movement.lower_transpose,
        "gather": indexing.lower_gather,
        "index_copy": indexing.lower_index_copy,
        **dict.fromkeys(reduction.REDUCTIONS, reduction.lower_reduction),
        "argmax": reduction.lower_argmax,
        "cumsum": reduction.lower_cumsum,
        "softmax": normalization.lower_softmax,
        "layer_norm": normalization.lower_norm,
        "rms_norm": normalization.lower_norm,
        "rotary": rotary.lower_rotary,
        "matmul": lower_product,
        "cast": lower_cast,
        "attention": lower_attention_of,
        "fused": by_kernel(
            {"elementwise": lower_elementwise, "linear": lower_product, "row": lower_row}
        ),
    }
)
