"""Which function lowers which operator for a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dfcompiler.ir.program import Op
from dfcompiler.lowering.backend import Lowering
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda import indexing, normalization, reduction
from dfcompiler.lowering.cuda.attention import lower_attention
from dfcompiler.lowering.cuda.matmul import lower_product
from dfcompiler.lowering.cuda.rotary import lower_rotary
from dfcompiler.lowering.cuda.row import lower_row
from dfcompiler.lowering.elementwise import ELEMENTWISE, lower_elementwise
from dfcompiler.lowering.indexing import lower_take_along
from dfcompiler.lowering.movement import lower_concat, lower_indexed, lower_pad
from dfcompiler.lowering.reduction import REDUCTIONS
from dfcompiler.lowering.registry import by_kernel


def lower_fused(context: Context, op: Op) -> None:
    """A fused operator by the kernel that its pass made it for."""
    by_kernel(CUDA_FUSED, op)(context, op)


CUDA_FUSED: Mapping[str, Lowering] = MappingProxyType(
    {"elementwise": lower_elementwise, "linear": lower_product, "row": lower_row}
)

CUDA_LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        **dict.fromkeys(ELEMENTWISE, lower_elementwise),
        **dict.fromkeys(
            (
                *("copy", "expand", "slice", "constant", "dim", "iota"),
                *("reshape", "transpose", "cast"),
            ),
            lower_indexed,
        ),
        "concat": lower_concat,
        "pad": lower_pad,
        "gather": indexing.lower_gather,
        "take_along": lower_take_along,
        "index_copy": indexing.lower_index_copy,
        **dict.fromkeys(REDUCTIONS, reduction.lower_reduction),
        "argmax": reduction.lower_argmax,
        "cumsum": reduction.lower_cumsum,
        "softmax": normalization.lower_softmax,
        "layer_norm": normalization.lower_norm,
        "rms_norm": normalization.lower_norm,
        "rotary": lower_rotary,
        "attention": lower_attention,
        "matmul": lower_product,
        "fused": lower_fused,
    }
)
