"""Tiles of the products of a program for a GPU."""

from __future__ import annotations

from dfcompiler.analysis.gpu_tiling import (
    RUNGS,
    BlockProduct,
    Plan,
    plans_of,
)
from dfcompiler.ir import Op
from dfcompiler.ir.dims import Dim, evaluate, product
from dfcompiler.ir.types import DType, TensorType
from dfcompiler.pipeline import Bindings
from dfcompiler.target import CudaTarget

CHUNK_BYTES = 16
"""What a thread copies at once."""


def block_plans(
    op: Op, a: TensorType, b: TensorType, probes: tuple[Bindings, ...], target: CudaTarget
) -> tuple[Plan, ...] | str:
    """The plans of a product, or why it has none.

    Args:
        op: the product, or the fused region that starts with it.
        a: type of its left operand.
        b: type of its right operand.
        probes: sample sizes, of which the last counts where matrices are many.
        target: the device.
    """
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
    try:
        many = max(1, evaluate(batch, probes[-1]))
    except KeyError as error:
        return f"the size {error.args[0]} has no sample"
    ends = (max(1, rows),) if isinstance(rows, int) else RUNGS
    family = BlockProduct(many, ends[-1], columns, depth, dtype.bytes)
    return plans_of(family, ends, target) or "no tile fits a multiprocessor"


def _rows_and_batch(op: Op, b: TensorType) -> tuple[Dim, Dim]:
    """Rows of a matrix and matrices of a batch; axes along which B is one matrix are rows."""
    *axes, rows, _ = op.type.shape
    shared = list(b.shape[:-2])
    while axes and (not shared or shared.pop() == 1):
        rows = product((rows, axes.pop()))
    return rows, product(axes)
