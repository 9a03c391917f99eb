"""Products of a program as `--tune` measures them on a GPU, and the kernels that may be fastest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dfcompiler.analysis.gpu_expansions import NATIVE, is_installed, tiles_of
from dfcompiler.analysis.gpu_plans import Plan
from dfcompiler.analysis.gpu_products import extents_of
from dfcompiler.analysis.gpu_tiling import serves, splits
from dfcompiler.analysis.gpu_time import BlockProduct, modelled
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import TensorType
from dfcompiler.lowering.matmul import ACTIVATIONS, stages_of
from dfcompiler.target import CudaTarget

CANDIDATES = 8
"""Kernels that are measured for a product."""
STAGES = {*ACTIVATIONS, "add", "mul", "cast"}
"""Operators of an epilogue."""


@dataclass(frozen=True)
class Epilogue:
    """What is fused behind a product, as `gemm.h` calls it."""

    bias: bool = False
    activation: str = "none"
    residual: str = "none"

    @property
    def is_library_s(self) -> bool:
        """Whether cuBLASLt does it before it rounds: then its numbers are those of the others."""
        if self.activation == "none":
            return self.residual in ("none", "add")
        return self.activation in ("relu", "gelu_tanh") and self.residual == "none"


@dataclass(frozen=True)
class Measurable:
    """A product of one shape, whatever its operands are called.

    Attributes:
        product: its extents.
        dtype: element type of all operands.
        epilogue: what is fused behind it.
    """

    product: BlockProduct
    dtype: str
    epilogue: Epilogue

    @property
    def along(self) -> str:
        """Which axis of B is contiguous, ``width`` (n) or ``depth`` (k)."""
        return "depth" if self.product.along_depth else "width"


@dataclass(frozen=True)
class Candidate:
    """A kernel for a product: the tile and the split of an expansion; cublaslt has neither."""

    expansion: str
    plan: Plan | None = None

    def __str__(self) -> str:
        if self.plan is None:
            return self.expansion
        tile = self.plan.tile
        parts = f" in {self.plan.parts} parts" if self.plan.parts > 1 else ""
        return f"{self.expansion} {tile.rows}×{tile.columns}×{tile.depth}{parts}"


def measurable(op: Op, types: Sequence[TensorType], batch: int, rows: int) -> Measurable | None:
    """An operator's product with these numbers of matrices and rows.

    None if no tile serves it, and for what is more than a product and its epilogue: normalized
    rows and gates, which one kernel serves.

    Raises:
        UnsupportedError: if what is fused has no kernel.
    """
    extents = extents_of(op, types)
    if isinstance(extents, str):
        return None
    named = dict(zip(op.inputs, types, strict=True))
    first, *rest = op.region or (op,)
    if first.kind != "matmul" or not {inner.kind for inner in rest} <= STAGES:
        return None
    if named[first.inputs[1]].layout.is_tiled:
        return None
    epilogue = _epilogue_of(op, first.result, rest, named)
    return Measurable(extents.bound(batch, rows), op.type.dtype.value, epilogue)


def _epilogue_of(
    op: Op, value: str, rest: Sequence[Op], types: Mapping[str, TensorType]
) -> Epilogue:
    """What the operators behind a product's value are, together."""
    kept = [inner for inner in rest if inner.kind != "cast"]
    found = [stage.kind for stage in stages_of(op, value, kept, types)]
    return Epilogue(
        "bias" in found,
        next((kind for kind in found if kind in (*ACTIVATIONS, "gelu_tanh")), "none"),
        next((kind for kind in found if kind in ("add", "mul")), "none"),
    )


def candidates_of(
    wanted: Measurable, target: CudaTarget, count: int = CANDIDATES
) -> tuple[Candidate, ...]:
    """The kernels with the least modelled time, of every expansion at least one.

    The first one is native: the others are compared with what it gives.
    """
    product = wanted.product
    times = {
        Candidate(name, Plan(0, tile, parts)): modelled(product, tile, parts, target).total
        for name in (NATIVE, "wgmma", "cutlass")
        if is_installed(name, target)
        for tile in tiles_of(name, product.element_bytes, target)
        if serves(tile, product, target)
        for parts in splits(product, tile)
    }
    ranked = sorted(times, key=lambda one: times[one])
    first = {one.expansion: one for one in reversed(ranked)}
    best = sorted(first.values(), key=lambda one: (one.expansion != NATIVE, times[one]))
    rest = [one for one in ranked if one not in best]
    library = [Candidate("cublaslt")] if wanted.epilogue.is_library_s else []
    return (*best, *library, *rest[: max(0, count - len(best) - len(library))])
