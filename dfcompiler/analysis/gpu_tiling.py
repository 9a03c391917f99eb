"""Tiles of a matrix product on a GPU: the one of the kernels' with the least modelled time.

A block of threads keeps BM × BN sums of C in registers while A and B stream past it, each word of
them twice: into shared memory for the block, and from there into registers for each warp.

    level            keeps still          crosses into it, in words a multiply-add
    registers        C  WM × WN (warp)    1/WM (B) + 1/WN (A)
    shared memory    C  BM × BN (block)   1/BM (B) + 1/BN (A) + 2·parts/K where k is split
    L2               A  8·BM × K          1/M (B, where it fits) or 1/(8·BM), + 1/N (A) + 1/K (C)

A product takes the longest of what its arithmetic, each level's bytes and the latency of its blocks
take alone. Blocks come in waves: the busiest multiprocessor has ⌈blocks / multiprocessors⌉ of them.

Source:
    Kwasniewski et al., COSMA, arXiv 1908.09606, for the words of one level; `docs/decisions/0075`
    for the model and its examples. The figures are those of data sheets; no device was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations_with_replacement
from math import ceil
from typing import Any

from dfcompiler.analysis.gpu_tiles import LINE_BYTES, TILES, VECTOR_ROWS, BlockTile
from dfcompiler.analysis.tiling import Tile
from dfcompiler.target import CudaTarget

SPLIT_DEPTH, SPLIT_STEP = 128, 32
"""Least k of a part, and the depth that parts are a multiple of: those of `gemm.cuh`."""
WORKSPACE_BYTES, WORKSPACE_COUNTERS = 32 << 20, 1 << 14
"""Room for partial sums, and tiles that can be split: those of `workspace.h`."""
RUNGS = (VECTOR_ROWS, *(2**power for power in range(5, 14)))
"""Numbers of rows at which a product of any number of rows is looked at."""

GROUP = 8
"""Rows of tiles that run at the same time and share B in the L2: those of `TilePlace`."""
KEPT = 1 / 2
"""Share of the L2 for the operand that is used again."""
WORTH = 0.05
"""Share of the least time that another tile or split must save: the model is no more exact."""
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
    """

    batch: int
    rows: int
    columns: int
    depth: int
    element_bytes: int


@dataclass(frozen=True)
class Plan:
    """Which tile a product takes up to a number of rows.

    Attributes:
        most_rows: rows up to which it is taken; 0: any number.
        tile: the tile.
        parts: among how many blocks the sum over k of a tile is split.
    """

    most_rows: int
    tile: BlockTile
    parts: int

    @property
    def attribute(self) -> tuple[int, ...]:
        """The plan as a part of an operator's attribute: rows, BM, BN, BK, stages, parts."""
        tile = self.tile
        return self.most_rows, tile.rows, tile.columns, tile.depth, tile.stages, self.parts


@dataclass(frozen=True)
class Seconds:
    """What each resource would take alone, and what follows when k is split.

    Attributes:
        compute: multiply-adds of the busiest multiprocessor.
        shared: its reads and writes of shared memory.
        l2: bytes from the L2 into shared memory, and partial sums both ways.
        memory: bytes from and to device memory.
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
    tiles = _tiles(product, tile)
    busiest = ceil(tiles * parts / target.multiprocessors)
    # A matrix-vector kernel stops at the last row; tiles multiply what is beyond the edge, too.
    rows = min(product.rows, tile.rows) if tile.name == "VECTOR" else tile.rows
    volume = rows * tile.columns * steps * tile.depth
    rate = target.tensor_rate * target.mma_share if tile.on_tensor_cores else target.float_rate
    written = (tile.rows + tile.columns) * product.element_bytes / LINE_BYTES
    cycles = (tile.read_cycles + written) * steps * tile.depth if tile.shared_bytes else 0.0
    into_shared = tiles * product.depth * (rows + tile.columns) * product.element_bytes
    sums = 4 * product.batch * product.rows * product.columns
    device = _device_bytes(product, tile, target)
    far = min(1.0, device / max(1, into_shared))
    latency = L2_LATENCY_S + far * (MEMORY_LATENCY_S - L2_LATENCY_S)
    step = max(STEP_CYCLES / target.clock_rate, latency / max(1, tile.stages - 1))
    rounds = ceil(busiest / tile.resident(target))
    added = parts * 4 * tile.rows * tile.columns / (LINE_BYTES / 2 * target.clock_rate)
    return Seconds(
        compute=busiest * 2 * volume * tile.issue * target.multiprocessors / rate,
        shared=busiest * cycles / target.clock_rate,
        l2=(into_shared + (2 * parts * sums if parts > 1 else 0)) / target.l2_rate,
        memory=device / target.memory_rate,
        latency=rounds * (latency + steps * step),
        finish=2 * MEMORY_LATENCY_S + added if parts > 1 else 0.0,
    )


def best_plan(
    product: BlockProduct, target: CudaTarget, tiles: Sequence[BlockTile] = ()
) -> Plan | None:
    """The fewest parts and the first tile in about the least modelled time; None: no tile fits.

    Args:
        product: of known extents.
        target: the device.
        tiles: those to choose among besides the matrix-vector kernel; none: all.
    """
    order = TILES[product.element_bytes]
    times = {
        Plan(0, tile, parts): modelled(product, tile, parts, target).total
        for tile in order
        if _serves(tile, product, target) and (tile.name == "VECTOR" or not tiles or tile in tiles)
        for parts in splits(product, tile)
    }
    least = min(times.values(), default=0.0)
    near = (plan for plan, time in times.items() if time <= (1 + WORTH) * least)
    return min(near, key=lambda plan: (plan.parts, order.index(plan.tile)), default=None)


@cache
def plans_of(
    family: BlockProduct, rows: tuple[int, ...], target: CudaTarget
) -> tuple[Plan, ...] | None:
    """A plan for each range of rows; one reaches as far as no other is worth its code.

    Besides the matrix-vector kernel there are at most two tiles: each is a kernel to compile.

    Args:
        family: the product; its rows are not looked at.
        rows: numbers of rows in ascending order, each the end of a range, the last one open.
        target: the device.

    Returns:
        The plans, the last for any number of rows; None where no tile fits.
    """
    products = [replace(family, rows=most) for most in rows]
    tiles = _two_tiles(products, target)
    found: list[Plan] = []
    for product in products:
        best = best_plan(product, target, tiles)
        if best is None:
            return None
        if found and _is_near(product, found[-1], best, target):
            best = found.pop()
        found.append(replace(best, most_rows=product.rows))
    return (*found[:-1], replace(found[-1], most_rows=0))


def _two_tiles(products: Sequence[BlockProduct], target: CudaTarget) -> tuple[BlockTile, ...]:
    """The two tiles with which products lose least against having all, on average."""
    times = [
        {
            tile: min(modelled(product, tile, n, target).total for n in splits(product, tile))
            for tile in TILES[product.element_bytes]
            if _serves(tile, product, target)
        }
        for product in products
        if product.rows > VECTOR_ROWS
    ]
    pairs = combinations_with_replacement(times[-1] if times else (), 2)

    def loss(pair: tuple[BlockTile, ...]) -> float:
        return sum(min(time[tile] for tile in pair) / min(time.values()) for time in times)

    return min(pairs, key=loss, default=())


def _serves(tile: BlockTile, product: BlockProduct, target: CudaTarget) -> bool:
    """Whether a tile fits the target and is for so many rows."""
    of_few = product.rows <= VECTOR_ROWS
    return tile.resident(target) > 0 and (tile.name == "VECTOR") == of_few


def _is_near(product: BlockProduct, plan: Plan, best: Plan, target: CudaTarget) -> bool:
    """Whether a plan for fewer rows takes about as long as the best one."""
    if plan.tile.name == "VECTOR" != best.tile.name or plan.parts not in splits(product, plan.tile):
        return False
    now, least = (modelled(product, p.tile, p.parts, target).total for p in (plan, best))
    return now <= (1 + WORTH) * least


def plans_from(attribute: Any, element_bytes: int) -> tuple[Plan, ...]:
    """The plans that an operator's attribute stands for.

    Raises:
        ValueError: if it has another form, or there is no kernel for a tile.
    """
    if not isinstance(attribute, tuple) or not all(isinstance(one, tuple) for one in attribute):
        raise ValueError("a tile on a GPU is a list of [rows, BM, BN, BK, stages, parts]")
    known = {(t.rows, t.columns, t.depth, t.stages): t for t in TILES.get(element_bytes, ())}
    found: list[Plan] = []
    for most_rows, *shape, parts in attribute:
        if tuple(shape) not in known or parts < 1:
            there = ", ".join("×".join(map(str, one)) for one in known)
            raise ValueError(f"no kernel has the tile {shape} in {parts} parts; there are {there}")
        found.append(Plan(int(most_rows), known[tuple(shape)], int(parts)))
    ends = [plan.most_rows for plan in found]
    if not ends or ends[-1] != 0 or ends[:-1] != sorted({n for n in ends if n > 0}):
        raise ValueError(f"rows of tiles ascend, and the last is 0 for any number, not {ends}")
    return tuple(found)


def loop_tile(attribute: Any, rows: int) -> Tile:
    """The blocking of a `tile` attribute of either target, as loops around a register tile.

    Args:
        attribute: `[mr, nr, kc, mc]`, or the plans of a GPU.
        rows: of the product, where the attribute depends on them.
    """
    if not isinstance(attribute[0], tuple):
        return Tile(*attribute)
    plan = next(one for one in attribute if rows <= one[0] or one[0] == 0)
    _, block_rows, columns, depth, *_ = plan
    return Tile(block_rows, columns, depth, block_rows)


def splits(product: BlockProduct, tile: BlockTile) -> Iterator[int]:
    """Numbers of parts that k can be split into, each of equal depth, with room for their sums."""
    bytes_of_part = 4 * product.batch * product.rows * product.columns
    most = min(product.depth // SPLIT_DEPTH, WORKSPACE_BYTES // bytes_of_part)
    if _tiles(product, tile) > WORKSPACE_COUNTERS:
        most = 1
    yield 1
    for parts in range(2, most + 1):
        depth = ceil(ceil(product.depth / parts) / SPLIT_STEP) * SPLIT_STEP
        if ceil(product.depth / depth) == parts:
            yield parts


def _tiles(product: BlockProduct, tile: BlockTile) -> int:
    return product.batch * ceil(product.rows / tile.rows) * ceil(product.columns / tile.columns)


def _device_bytes(product: BlockProduct, tile: BlockTile, target: CudaTarget) -> int:
    """A and C once, and B once where it stays in the L2, else for each group of rows of tiles."""
    m, n, k = product.rows, product.columns, product.depth
    stays = k * n * product.element_bytes <= KEPT * target.l2_bytes
    passes = 1 if stays else ceil(m / (GROUP * tile.rows))
    return product.batch * product.element_bytes * (m * k + m * n + passes * k * n)
