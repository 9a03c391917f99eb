"""Modelled seconds of a matrix product on a GPU with one tile: which resource takes longest.

A block of threads keeps BM × BN sums of C in registers while A and B stream past it, each word of
them twice: into shared memory for the block, and from there to what multiplies.

    level            keeps still          crosses into it, in words a multiply-add
    multipliers      C  WM × WN           1/WM (B) + 1/WN (A), of a warp or of a wgmma
    shared memory    C  BM × BN (block)   1/BM (B) + 1/BN (A) + 2·parts/K where k is split
    L2               A  8·BM × K          1/M (B, where it fits) or 1/(8·BM), + 1/N (A) + 1/K (C)

A product takes the longest of what its arithmetic, each level's bytes and the latency of its blocks
take alone. Blocks come in waves: the busiest multiprocessor has ⌈blocks / multiprocessors⌉ of them.

Source:
    Kwasniewski et al., COSMA, arXiv 1908.09606, for the words of one level; `docs/decisions/0075`
    for the model and its examples, `0079` for expansions. The figures are those of data sheets; no
    device was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from dfcompiler.analysis.gpu_tiles import LINE_BYTES, BlockTile
from dfcompiler.target import CudaTarget

GROUP = 8
"""Rows of tiles that run at the same time and share B in the L2: those of `TilePlace`."""
KEPT = 1 / 2
"""Share of the L2 for the operand that is used again."""
L2_LATENCY_S, MEMORY_LATENCY_S = 0.25e-6, 0.7e-6
STEP_CYCLES = 150
"""Cycles from the barrier of one step of k to that of the next when nothing else limits it."""


@dataclass(frozen=True)
class BlockProduct:
    """A batch of matrix products C[M, N] = A[M, K]·B[K, N].

    Attributes:
        batch: products, each with matrices of its own.
        rows: M.
        columns: N.
        depth: K.
        element_bytes: size of an element of A, B and C.
        operands: matrices as large as C that the epilogue reads.
        along_depth: whether k of B is contiguous.
    """

    batch: int
    rows: int
    columns: int
    depth: int
    element_bytes: int
    operands: int = 0
    along_depth: bool = False


@dataclass(frozen=True)
class Seconds:
    """What each resource would take alone, and what follows when k is split.

    Attributes:
        compute: multiply-adds of the busiest multiprocessor.
        shared: its reads and writes of shared memory.
        l2: bytes from the L2 into shared memory, and partial sums both ways.
        memory: bytes from and to device memory, the epilogue's operands among them.
        latency: one block after another, each as fast as its steps can follow each other.
        finish: the last block of a tile adds the parts.
    """

    compute: float
    shared: float
    l2: float
    memory: float
    latency: float
    finish: float

    @property
    def total(self) -> float:
        return max(self.compute, self.shared, self.l2, self.memory, self.latency) + self.finish

    @property
    def limit(self) -> str:
        """The resource that takes longest."""
        return max(("compute", "shared", "l2", "memory", "latency"), key=lambda n: getattr(self, n))


def modelled(product: BlockProduct, tile: BlockTile, parts: int, target: CudaTarget) -> Seconds:
    """Seconds of a product with a tile that fits the target, k split into `parts`."""
    part_depth = ceil(product.depth / parts)
    steps = ceil(part_depth / tile.depth)
    tiles = tile_count(product, tile)
    busiest = ceil(tiles * parts / target.multiprocessors)
    # A matrix-vector kernel stops at the last row; tiles multiply what is beyond the edge, too.
    rows = min(product.rows, tile.rows) if tile.name == "VECTOR" else tile.rows
    volume = rows * tile.columns * steps * tile.depth
    written = (tile.rows + tile.columns) * product.element_bytes / LINE_BYTES
    cycles = (tile.read_cycles + written) * steps * tile.depth if tile.shared_bytes else 0.0
    into_shared = tiles * product.depth * (rows + tile.columns) * product.element_bytes
    sums = 4 * product.batch * product.rows * product.columns
    device = _device_bytes(product, tile, target)
    far = min(1.0, device / max(1, into_shared))
    latency = L2_LATENCY_S + far * (MEMORY_LATENCY_S - L2_LATENCY_S)
    step = max(STEP_CYCLES / target.clock_rate, latency / max(1, tile.stages - 1))
    rounds = ceil(busiest / tile.resident(target))
    waits = 2 if tile.is_persistent else rounds
    added = parts * 4 * tile.rows * tile.columns / (LINE_BYTES / 2 * target.clock_rate)
    return Seconds(
        compute=busiest * 2 * volume * target.multiprocessors / tile.rate(target),
        shared=busiest * cycles / target.clock_rate,
        l2=(into_shared + (2 * parts * sums if parts > 1 else 0)) / target.l2_rate,
        memory=device / target.memory_rate,
        latency=waits * latency + rounds * steps * step,
        finish=2 * MEMORY_LATENCY_S + added if parts > 1 else 0.0,
    )


def tile_count(product: BlockProduct, tile: BlockTile) -> int:
    """Tiles of C, of the whole batch."""
    return product.batch * ceil(product.rows / tile.rows) * ceil(product.columns / tile.columns)


def _device_bytes(product: BlockProduct, tile: BlockTile, target: CudaTarget) -> int:
    """A and C once, and B once where it stays in the L2, else for each group of rows of tiles."""
    m, n, k = product.rows, product.columns, product.depth
    stays = k * n * product.element_bytes <= KEPT * target.l2_bytes
    passes = 1 if stays else ceil(m / (GROUP * tile.rows))
    return (
        product.batch
        * product.element_bytes
        * (m * k + (1 + product.operands) * m * n + passes * k * n)
    )
