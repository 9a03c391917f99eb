"""Store the weights of products of few rows with their columns in one piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from dfcompiler.analysis.gpu_tiles import CHUNK_BYTES, VECTOR_ROWS
from dfcompiler.ir import DType, Layout, Op, Program, TensorType
from dfcompiler.ir.dims import product
from dfcompiler.pipeline import Decline, Pass
from passes.pack_weights import packable, read_otherwise, right_operands

ALONG_DEPTH = Layout.permuted(1, 0)


@dataclass(frozen=True)
class OrderWeights(Pass):
    """Gives the right-hand matrix of a product of few rows the order of its columns.

    ::

        weight @w: bf16[K, N]             weight @w: bf16[K, N; 1 0]
        %0 = matmul %x, @w        ──▶     %0 = matmul %x, @w               # %x: bf16[1, K]

    A warp then multiplies whole columns: the sum over k needs no other block, and what a warp knows
    of the rows of `%x` besides it gets for nothing. Only the container's type changes: values are
    moved when the artifact is written. Products of more rows with the same weight read this order
    as well.

    Skips weights that something else reads, and depths that are not whole chunks of 16 bytes.
    """

    name: ClassVar[str] = "order-weights"
    runs_on: ClassVar[tuple[str, ...]] = ("cuda",)
    claims: ClassVar[tuple[str, ...]] = (
        "ops ==",
        "flops ==",
        "io_bound_bytes ==",
        "weight_bytes ==",
        "value_bytes ==",
    )

    def run(self, program: Program, decline: Decline) -> Program:
        table = program.table()
        found = {name for op in program.ops() for name in _of_few_rows(op)} & packable(program)
        elsewhere = read_otherwise(program, found)
        wanted: set[str] = set()
        for name in sorted(found):
            reason = why_not_along_depth(table[name].type)
            if name in elsewhere:
                reason = f"@{name} is also read by something else"
            if reason:
                decline(_reader(program, name), reason)
            else:
                wanted.add(name)
        if not wanted:
            return program
        ordered = tuple(
            replace(c, type=replace(c.type, layout=ALONG_DEPTH)) if c.name in wanted else c
            for c in program.containers
        )
        return replace(program, containers=ordered)


def why_not_along_depth(weight: TensorType) -> str:
    """Why the matrix-vector kernel reads no columns of a weight; empty if it does."""
    if weight.dtype not in (DType.F32, DType.BF16, DType.F16):
        return f"there is no matrix-vector kernel for {weight.dtype.value}"
    chunk = CHUNK_BYTES // weight.dtype.bytes
    depth = weight.shape[0]
    whole = isinstance(depth, int) and depth % chunk == 0
    return "" if whole else f"a depth of {depth} is no multiple of {chunk}"


def has_few_rows(op: Op) -> bool:
    """Whether a product with a matrix has at most the rows of the matrix-vector kernel."""
    rows = product(op.type.shape[:-1])
    return isinstance(rows, int) and rows <= VECTOR_ROWS


def _of_few_rows(op: Op) -> Iterator[str]:
    if has_few_rows(op):
        yield from (name.removeprefix("@") for name in right_operands(op))


def _reader(program: Program, name: str) -> Op:
    return next(op for op in program.ops() if f"@{name}" in right_operands(op))
