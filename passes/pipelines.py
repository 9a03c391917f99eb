"""The named pipelines: which passes run, in which order."""

from __future__ import annotations

from collections.abc import Sequence

from dfcompiler.errors import UnsupportedError, UsageError
from dfcompiler.pipeline import Pipeline, Step, assemble, discover, extended
from dfcompiler.target import CudaTarget, Target
from passes.rules.precisions import PRECISIONS, precision_type

__all__ = ["DEFAULT", "GENERATION", "PIPELINES", "PRECISIONS", "named"]

DEFAULT = (
    "canonicalize",
    "count-on-device",
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
    "fuse-gate",
    "merge-products",
    "fuse-attention",
    "merge-rotary",
    "fuse-rows",
    "fuse-elementwise",
    "select-layout",
    "pack-weights",
    "order-weights",
    "fuse-norm",
    "tile-for-io",
    "pad-rows",
    "roll-layers",
    "plan-buffers",
)
"""Everything: what `dfc compile` runs."""

GENERATION = ("make-generation-loop", *DEFAULT)
"""For the step of a decoder that keeps its KV cache: what `dfc generate` needs."""

PIPELINES: dict[str, tuple[str, ...]] = {"default": DEFAULT, "generation": GENERATION}


def named(
    name: str,
    target: Target | None = None,
    precision: str = "f32",
    end_tokens: Sequence[int] = (),
) -> Pipeline:
    """The pipeline called `name`, with the passes that other packages add to it.

    Raises:
        UsageError: if there is none, or no such precision.
        UnsupportedError: if the target does not have the precision.
    """
    precision_type(precision)
    if name not in PIPELINES:
        raise UsageError(
            f"there is no pipeline {name}",
            hint=f"pipelines are: {', '.join(sorted(PIPELINES))}, or a file ending in .toml",
        )
    order = extended(_with_precision(PIPELINES[name], precision, isinstance(target, CudaTarget)))
    if target is not None:
        found = discover()
        order = tuple(name for name in order if target.kind in found[name].runs_on)
    options = {
        "narrow-values": (("precision", precision),),
        "make-generation-loop": (("end_tokens", tuple(end_tokens)),),
    }
    return assemble([Step(name, options.get(name, ())) for name in order], target)


def _with_precision(order: tuple[str, ...], precision: str, on_gpu: bool) -> tuple[str, ...]:
    if precision == "f32":
        return order
    if on_gpu:
        # Casts of inputs and outputs then join the kernels that read and write them.
        return _before("fuse-epilogue", "narrow-values", order)
    if precision == "f16":
        raise UnsupportedError(
            "precision f16 is for GPUs", hint="use --precision bf16, or --target cuda:sm_90"
        )
    # Kernels are fused by then; views and layouts follow the types that it gives.
    return _before("select-layout", "lower-precision", order)


def _before(name: str, new: str, order: tuple[str, ...]) -> tuple[str, ...]:
    at = order.index(name)
    return (*order[:at], new, *order[at:])
