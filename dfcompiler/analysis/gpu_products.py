"""Which products the tiles of a GPU serve, and what they take with the plans of an operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from dfcompiler.analysis.gpu_expansions import NATIVE
from dfcompiler.analysis.gpu_plans import Plan, plan_for, plans_from
from dfcompiler.analysis.gpu_tiles import CHUNK_BYTES
from dfcompiler.analysis.gpu_tiling import best_plan
from dfcompiler.analysis.gpu_time import BlockProduct, modelled
from dfcompiler.ir.dims import Dim, product, same_shape
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType, TensorType
from dfcompiler.target import CudaTarget


@dataclass(frozen=True)
class Extents:
    """A batch of products whose rows and number may vary; see `BlockProduct`."""

    batch: Dim
    rows: Dim
    columns: int
    depth: int
    element_bytes: int
    operands: int
    along_depth: bool

    def bound(self, batch: int, rows: int) -> BlockProduct:
        """The products with these numbers of matrices and rows."""
        return BlockProduct(
            batch,
            rows,
            self.columns,
            self.depth,
            self.element_bytes,
            self.operands,
            self.along_depth,
        )


def extents_of(op: Op, types: Sequence[TensorType]) -> Extents | str:
    """The products that an operator computes, or why no tile serves them.

    Args:
        op: the product, or the fused region that starts with it.
        types: of its inputs, in order.
    """
    named = dict(zip(op.inputs, types, strict=True))
    inner = next(one for one in op.region or (op,) if one.kind == "matmul")
    rows_before = {one.result: one.inputs[0] for one in op.region if one.kind == "rms_norm"}
    operands = [rows_before.get(name, name) for name in inner.inputs]
    if not set(operands) <= set(named):
        return "its weight is decoded first"
    a, b = (named.pop(name) if name in named else types[0] for name in operands)
    dtype = op.type.dtype
    if dtype not in (DType.F32, DType.BF16, DType.F16) or {a.dtype, b.dtype} != {dtype}:
        names = f"{a.dtype.value} and {b.dtype.value} into {dtype.value}"
        return f"there is no kernel with tiles for {names}"
    depth, columns = b.shape[-2:]
    if not isinstance(depth, int) or not isinstance(columns, int):
        return "its columns or its depth vary: the kernel chooses while running"
    chunk = CHUNK_BYTES // dtype.bytes
    if depth % chunk or columns % chunk or not depth:
        return (
            f"a depth of {depth} or {columns} columns are no multiple of {chunk}: elements are "
            "copied one by one, for which there is one tile"
        )
    rows, batch = _rows_and_batch(op, b)
    whole = sum(same_shape(other.shape, op.type.shape) for other in named.values())
    along_depth = b.layout.permutation(b.rank)[-1] == b.rank - 2 if not b.layout.is_tiled else False
    return Extents(batch, rows, columns, depth, dtype.bytes, whole, along_depth)


def _rows_and_batch(op: Op, b: TensorType) -> tuple[Dim, Dim]:
    """Rows of a matrix and matrices of a batch; axes along which B is one matrix are rows."""
    *axes, rows, _ = op.type.shape
    shared = list(b.shape[:-2])
    while axes and (not shared or shared.pop() == 1):
        rows = product((rows, axes.pop()))
    return rows, product(axes)


def product_s(op: Op, types: Sequence[TensorType], target: CudaTarget) -> float | None:
    """Modelled seconds of an operator's products, all extents known; None: no tile serves them.

    They are those that its tile was chosen by; without one, those of the best native tile.
    """
    extents = extents_of(op, types)
    if isinstance(extents, str) or 0 in (int(extents.batch), int(extents.rows)):
        return None
    found = extents.bound(int(extents.batch), int(extents.rows))
    if "tile" not in op.attrs:
        return _best_s(found, target)
    try:
        plans = plans_from(
            op.attr("tile"), found.element_bytes, target, str(op.attr("expansion", NATIVE))
        )
    except ValueError:  # tiles of another target, which the lowering refuses in words
        return None
    plan = plan_for(plans, found.rows)
    return modelled(found, plan.tile, plan.parts, target).total


@cache
def _best_s(found: BlockProduct, target: CudaTarget) -> float | None:
    plan: Plan | None = best_plan(found, target)
    return None if plan is None else modelled(found, plan.tile, plan.parts, target).total
