"""Plans of a matrix product on a GPU: the tiles and splits of k with the least modelled time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, combinations_with_replacement
from math import ceil, inf

from dfcompiler.analysis.gpu_expansions import LEAST_ROWS
from dfcompiler.analysis.gpu_plans import Plan
from dfcompiler.analysis.gpu_tiles import TILES, VECTOR_ROWS, BlockTile
from dfcompiler.analysis.gpu_time import BlockProduct, modelled, tile_count
from dfcompiler.target import CudaTarget

SPLIT_DEPTH, SPLIT_STEP = 128, 32
"""Least k of a part, and the depth that parts are a multiple of: those of `gemm.cuh`."""
WORKSPACE_BYTES, WORKSPACE_COUNTERS = 32 << 20, 1 << 14
"""Room for partial sums, and tiles that can be split: those of `workspace.h`."""
RUNGS = (VECTOR_ROWS, *(2**power for power in range(5, 14)))
"""Numbers of rows at which a product of any number of rows is looked at."""
WORTH = 0.05
"""Share of the least time that another tile or split must save: the model is no more exact."""


def best_plan(
    product: BlockProduct, target: CudaTarget, tiles: Sequence[BlockTile] = ()
) -> Plan | None:
    """The fewest parts and the first tile in about the least modelled time; None: no tile fits.

    Args:
        product: of known extents.
        target: the device.
        tiles: those to choose among, the first one preferred; none: all native ones.
    """
    order = tuple(tiles) or TILES[product.element_bytes]
    times = {
        Plan(0, tile, parts): modelled(product, tile, parts, target).total
        for tile in order
        if serves(tile, product, target)
        for parts in splits(product, tile)
    }
    least = min(times.values(), default=0.0)
    near = (plan for plan, time in times.items() if time <= (1 + WORTH) * least)
    return min(near, key=lambda plan: (plan.parts, order.index(plan.tile)), default=None)


@cache
def plans_of(
    family: BlockProduct,
    rows: tuple[int, ...],
    target: CudaTarget,
    tiles: tuple[BlockTile, ...] = (),
) -> tuple[Plan, ...] | None:
    """A plan for each range of rows; one reaches as far as no other is worth its code.

    Besides the matrix-vector kernel there are at most two tiles: each is a kernel to compile.

    Args:
        family: the product; its rows are not looked at.
        rows: numbers of rows in ascending order, each the end of a range, the last one open.
        target: the device.
        tiles: those to choose among, the first one preferred; none: all native ones.

    Returns:
        The plans, the last for any number of rows; None where no tile fits.
    """
    products = [replace(family, rows=most) for most in rows]
    tiles = tiles or TILES[family.element_bytes]
    vector = tuple(tile for tile in tiles if tile.name == "VECTOR")
    held = (*vector, *_two_tiles(products, tiles, target))
    found: list[Plan] = []
    for product in products:
        best = best_plan(product, target, held)
        if best is None:
            return None
        if found and _is_near(product, found[-1], best, target):
            best = found.pop()
        found.append(replace(best, most_rows=product.rows))
    return (*found[:-1], replace(found[-1], most_rows=0))


def asked_plans(
    family: BlockProduct, rows: tuple[int, ...], target: CudaTarget, tiles: tuple[BlockTile, ...]
) -> tuple[Plan, ...] | None:
    """As `plans_of` with the tiles of an expansion that was asked for, whatever the model says.

    The native kernels keep the rows below `LEAST_ROWS`, which the expansion is not made for.
    """
    few = tuple(most for most in rows if most < LEAST_ROWS)
    if few == rows:
        return plans_of(family, rows, target)
    many = plans_of(family, rows[len(few) :], target, tiles)
    before = plans_of(family, few, target) if few else ()
    if many is None or before is None:
        return None
    return (*before[:-1], *(replace(plan, most_rows=few[-1]) for plan in before[-1:]), *many)


def held_tiles(
    products: Sequence[BlockProduct],
    tiles: Sequence[BlockTile],
    target: CudaTarget,
    beside: Sequence[BlockTile],
) -> tuple[BlockTile, ...]:
    """Which tiles a program holds besides those that it has anyway: none, one or two.

    Each is a kernel for each epilogue, and nvcc takes its time for those: another one must save as
    much of all products together as another tile of a product must save of it.

    Args:
        products: of the program, those of any number of rows once for each rung.
        tiles: those that there are; two are of one expansion.
        target: the device.
        beside: those that it has anyway.
    """

    def total(more: tuple[BlockTile, ...]) -> float:
        return sum(_least_s(p, (*beside, *more), target) for p in products)

    held: tuple[BlockTile, ...] = ()
    now = total(held)
    for count in (1, 2):
        sets = [one for one in combinations(tiles, count) if len({t.expansion for t in one}) == 1]
        if not sets:
            break
        found = min(sets, key=total)
        if now <= (1 + WORTH) * total(found):
            break
        held, now = found, total(found)
    return held


def _two_tiles(
    products: Sequence[BlockProduct], tiles: Sequence[BlockTile], target: CudaTarget
) -> tuple[BlockTile, ...]:
    """The two tiles with which products lose least against having all, on average."""
    times = [
        {tile: _tile_s(product, tile, target) for tile in tiles if serves(tile, product, target)}
        for product in products
        if product.rows > VECTOR_ROWS
    ]
    pairs = combinations_with_replacement(times[-1] if times else (), 2)

    def loss(pair: tuple[BlockTile, ...]) -> float:
        return sum(min(t.get(tile, inf) for tile in pair) / min(t.values()) for t in times)

    return min(pairs, key=loss, default=())


@cache
def _tile_s(product: BlockProduct, tile: BlockTile, target: CudaTarget) -> float:
    """Modelled seconds with the best split."""
    return min(modelled(product, tile, n, target).total for n in splits(product, tile))


def _least_s(product: BlockProduct, tiles: Sequence[BlockTile], target: CudaTarget) -> float:
    """Modelled seconds with the best of the tiles; infinite where none serves."""
    serving = (tile for tile in tiles if serves(tile, product, target))
    return min((_tile_s(product, tile, target) for tile in serving), default=inf)


def serves(tile: BlockTile, product: BlockProduct, target: CudaTarget) -> bool:
    """Whether a tile fits the target, and is for so many rows and this order of B."""
    of_few = product.rows <= VECTOR_ROWS
    if tile.name == "VECTOR" and tile.splits_depth == product.along_depth:
        return False
    if tile.unit == "wgmma" and product.rows < LEAST_ROWS:
        return False
    return tile.resident(target) > 0 and (tile.name == "VECTOR") == of_few


def _is_near(product: BlockProduct, plan: Plan, best: Plan, target: CudaTarget) -> bool:
    """Whether a plan for fewer rows takes about as long as the best one."""
    if plan.tile.name == "VECTOR" != best.tile.name or plan.parts not in splits(product, plan.tile):
        return False
    now, least = (modelled(product, p.tile, p.parts, target).total for p in (plan, best))
    return now <= (1 + WORTH) * least


def splits(product: BlockProduct, tile: BlockTile) -> Iterator[int]:
    """Numbers of parts that k can be split into, each of equal depth, with room for their sums."""
    bytes_of_part = 4 * product.batch * product.rows * product.columns
    most = min(product.depth // SPLIT_DEPTH, WORKSPACE_BYTES // bytes_of_part)
    if not tile.splits_depth or tile_count(product, tile) > WORKSPACE_COUNTERS:
        most = 1
    yield 1
    if tile.is_persistent:  # its blocks take whole tiles
        return
    for parts in range(2, most + 1):
        depth = ceil(ceil(product.depth / parts) / SPLIT_STEP) * SPLIT_STEP
        if ceil(product.depth / depth) == parts:
            yield parts
