"""The named pipelines: which passes run, in which order."""

from __future__ import annotations

from dfcompiler.errors import UsageError
from dfcompiler.pipeline import Pipeline, assemble, extended
from dfcompiler.target import CpuTarget

DEFAULT = (
    "canonicalize",
    "fold-constants",
    "canonicalize",
    "eliminate-common-subexpressions",
    "recover-dequantize",
    "recover-attention",
    "recover-layer-norm",
    "recover-rms-norm",
    "recover-gelu",
    "recover-silu",
    "recover-rotary",
    "hoist-gather",
    "canonicalize",
    "fold-constants",
    "eliminate-common-subexpressions",
    "eliminate-dead-code",
    "fuse-epilogue",
    "merge-products",
    "fuse-rows",
    "fuse-elementwise",
    "select-layout",
    "pack-weights",
    "tile-for-io",
    "pad-rows",
    "roll-layers",
    "plan-buffers",
)
"""Everything: what `dfc compile` runs."""

GENERATION = ("make-generation-loop", *DEFAULT)
"""For the step of a decoder that keeps its KV cache: what `dfc generate` needs."""

PIPELINES: dict[str, tuple[str, ...]] = {"default": DEFAULT, "generation": GENERATION}


PRECISIONS = ("f32", "bf16")
"""What products multiply in: as the model says, or in bfloat16 with sums in float."""


def named(name: str, target: CpuTarget | None = None, precision: str = "f32") -> Pipeline:
    """The pipeline called `name`, with the passes that other packages add to it.

    Raises:
        UsageError: if there is none, or no such precision.
    """
    if precision not in PRECISIONS:
        raise UsageError(
            f"precision {precision} is not known; expected one of {', '.join(PRECISIONS)}"
        )
    if name not in PIPELINES:
        raise UsageError(
            f"there is no pipeline {name}",
            hint=f"pipelines are: {', '.join(sorted(PIPELINES))}, or a file ending in .toml",
        )
    order = PIPELINES[name]
    if precision == "bf16":
        # Kernels are fused by then; views and layouts follow the types that it gives.
        at = order.index("select-layout")
        order = (*order[:at], "lower-precision", *order[at:])
    return assemble(extended(order), target)
