"""Which function lowers which operator for a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dfcompiler.lowering.backend import Lowering
from dfcompiler.lowering.cuda import along_axis, indexing, normalization
from dfcompiler.lowering.cuda.attention import lower_attention
from dfcompiler.lowering.cuda.attention_step import lower_attention_step
from dfcompiler.lowering.cuda.matmul import lower_product
from dfcompiler.lowering.cuda.reduction import lower_reduction
from dfcompiler.lowering.cuda.rotary import lower_rotary
from dfcompiler.lowering.cuda.row import lower_row
from dfcompiler.lowering.elementwise import lower_elementwise
from dfcompiler.lowering.movement import lower_indexed
from dfcompiler.lowering.portable import PORTABLE, by_kernel
from dfcompiler.lowering.reduction import REDUCTIONS

CUDA_LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        **PORTABLE,
        **dict.fromkeys(("reshape", "transpose", "cast"), lower_indexed),
        "gather": indexing.lower_gather,
        "index_copy": indexing.lower_index_copy,
        **dict.fromkeys(REDUCTIONS, lower_reduction),
        "argmax": along_axis.lower_argmax,
        "cumsum": along_axis.lower_cumsum,
        "softmax": normalization.lower_softmax,
        "layer_norm": normalization.lower_norm,
        "rms_norm": normalization.lower_norm,
        "rotary": lower_rotary,
        "attention": lower_attention,
        "matmul": lower_product,
        "fused": by_kernel(
            {
                "elementwise": lower_elementwise,
                "linear": lower_product,
                "row": lower_row,
                "attention": lower_attention_step,
            }
        ),
    }
)
