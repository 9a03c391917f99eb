"""The tiles of the native kernels on a GPU, and what a block of each one takes.

The figures are those of `gemm_float.cuh`, `gemm_tensor.cuh`, `gemm_vector.cuh` and
`gemm_vector_depth.cuh`; those of other expansions are in `gpu_expansions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from dfcompiler.target import CudaTarget

VECTOR_ROWS = 8
"""Rows up to which a product is bound by reading B once: the matrix-vector kernel."""
CHUNK_BYTES = 16
"""What a thread copies of an operand at once."""
LINE_BYTES = 128
"""Bytes that a multiprocessor reads from or writes to shared memory in a cycle."""

Unit: TypeAlias = Literal["floats", "mma.sync", "wgmma"]
"""What multiplies."""


@dataclass(frozen=True)
class BlockTile:
    """A tile that there is a kernel for.

    Attributes:
        name: what `gemm.h` calls it.
        rows: BM, of C.
        columns: BN, of C.
        depth: BK, steps of k of a stage in shared memory.
        stages: how many stages there are; all but one are on their way.
        threads: of a block.
        registers: most registers of a thread, as nvcc compiles it without spills.
        shared_bytes: shared memory of a block.
        read_cycles: cycles in which shared memory serves the warps of a block, for a step of k.
        issue: instructions for each multiply-add, those that load its operands among them.
        unit: what does the multiply-adds.
        expansion: whose kernel it is: ``native``, ``wgmma`` or ``cutlass``.
        is_persistent: whether a block takes one tile after another, and its copies run ahead
            across them: what copies wait for is waited for once, and first for their descriptors.
        splits_depth: whether k can be split among blocks.
    """

    name: str
    rows: int
    columns: int
    depth: int
    stages: int
    threads: int
    registers: int
    shared_bytes: int
    read_cycles: float
    issue: float
    unit: Unit
    expansion: str = "native"
    is_persistent: bool = False
    splits_depth: bool = True

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """BM, BN, BK and stages, by which an operator's attribute names it."""
        return self.rows, self.columns, self.depth, self.stages

    def rate(self, target: CudaTarget) -> float:
        """Operations a second that all multiprocessors together reach with it, all of them busy."""
        tensor = target.tensor_rate
        rates = {
            "floats": target.float_rate,
            "mma.sync": tensor * target.mma_share,
            "wgmma": tensor * target.wgmma_share,
        }
        return rates[self.unit] / self.issue

    def resident(self, target: CudaTarget) -> int:
        """Blocks that a multiprocessor holds at the same time; 0 where not even one fits."""
        if self.shared_bytes > target.shared_bytes:
            return 0
        # A block takes 1 KiB of shared memory besides its own, and the device has room for that.
        by_memory = (target.shared_bytes + 1024) // (self.shared_bytes + 1024)
        return min(by_memory, target.registers // (self.threads * self.registers))


def float_tile(name: str, rows: int, columns: int, thread: tuple[int, int], most: int) -> BlockTile:
    """A tile of `gemm_float.cuh` with `thread` rows and columns of sums in a thread.

    Four steps of k take a warp TM + TN reads, a cycle each, and 4·TM·TN multiply-adds.
    """
    depth, stages, (tm, tn) = 16, 3, thread
    threads = rows // tm * (columns // tn)
    return BlockTile(
        name,
        *(rows, columns, depth, stages, threads, most),
        shared_bytes=stages * depth * (rows + columns) * 4,
        read_cycles=threads / 32 * (tm + tn) / 4,
        issue=1 + (tm + tn) / (4 * tm * tn),
        unit="floats",
    )


def tensor_tile(
    name: str, rows: int, columns: int, warp: tuple[int, int], stages: int, most: int = 128
) -> BlockTile:
    """A tile of `gemm_tensor.cuh` for 16-bit elements, with `warp` rows and columns in a warp.

    ldmatrix reads 2·(WM + WN) bytes for a step of k.
    """
    depth, warps = 32, rows // warp[0] * (columns // warp[1])
    return BlockTile(
        name,
        *(rows, columns, depth, stages, 32 * warps, most),
        shared_bytes=stages * depth * (rows + columns) * 2,
        read_cycles=warps * 2 * sum(warp) / LINE_BYTES,
        issue=1,
        unit="mma.sync",
    )


def vector_tile(element_bytes: int) -> BlockTile:
    """The block of `gemm_vector.cuh`: 128 bytes of 32 rows of B at once."""
    return BlockTile(
        "VECTOR",
        *(VECTOR_ROWS, 128 // element_bytes, 128, 1, 256, 128),
        shared_bytes=0,
        read_cycles=0,
        issue=2,
        unit="floats",
    )


def column_tile(element_bytes: int) -> BlockTile:
    """The block of `gemm_vector_depth.cuh`: 16 columns of B, of which a warp has two whole ones."""
    return BlockTile(
        "VECTOR",
        *(VECTOR_ROWS, 16, 32 * 16 // element_bytes, 6, 256, 128),
        shared_bytes=0,
        read_cycles=0,
        issue=2,
        unit="floats",
        splits_depth=False,
    )


TILES: dict[int, tuple[BlockTile, ...]] = {
    4: (
        vector_tile(4),
        column_tile(4),
        float_tile("LARGE", 128, 128, (8, 8), 255),
        float_tile("MEDIUM", 64, 64, (4, 4), 128),
    ),
    2: (
        vector_tile(2),
        column_tile(2),
        tensor_tile("WIDE", 128, 256, (64, 64), 4, 255),
        tensor_tile("LARGE", 128, 128, (64, 32), 4),
        tensor_tile("MEDIUM", 64, 64, (32, 32), 5),
        tensor_tile("FEW", 32, 128, (32, 32), 6),
    ),
}
"""The tiles of each size of an element; of those that take about equally long, the first wins."""
