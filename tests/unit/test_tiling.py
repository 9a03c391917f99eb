"""Tiles: against the integer optima of the bound, brute force, and the kernel's own tiles."""

from __future__ import annotations

import dataclasses
from collections import Counter
from math import isclose, sqrt

import pytest

from dfcompiler.analysis.cache_sets import most_in_a_set, row_pad
from dfcompiler.analysis.tiling import (
    Caches,
    Product,
    Tile,
    block_count,
    candidates,
    choose_tile,
    outer_product_block,
    register_tile,
    tile_on,
    words_moved,
)
from dfcompiler.target import parse_target

CACHES = Caches(48 << 10, 2 << 20, workers=2)
PRODUCTS = [
    Product(rows, columns, depth)
    for rows in ((1,), (15, 1024), (128,), (4096,))
    for columns, depth in ((768, 768), (3072, 768), (768, 3072), (100, 7), (1, 5000))
]


@pytest.mark.parametrize(
    ("words", "block", "ratio"),
    [(64, (8, 7), 1.0714), (1024, (32, 31), 1.0161), (4096, (64, 63), 1.0079)],
)
def test_block_of_one_level(words: int, block: tuple[int, int], ratio: float) -> None:
    """The integer optimum of a·b/(a + b) with its distance from 2mnk/√S."""
    found = outer_product_block(words, range(1, words), range(1, words))
    assert found == block
    a, b = block
    assert isclose((a + b) / (a * b) * sqrt(words) / 2, ratio, abs_tol=1e-4)


def test_no_block_fits() -> None:
    assert outer_product_block(2, (4,), (4,)) is None
    assert register_tile(16, 8, (6,), (4,)) is None


@pytest.mark.parametrize(("isa", "registers"), [("x86-64-v4", 32), ("x86-64-v3", 16)])
def test_register_tile_of_each_instruction_set(isa: str, registers: int) -> None:
    """The kernel's tiles are the best ones among panels of whole cache lines, a power of two."""
    target = parse_target(f"cpu:{isa}")
    lanes = target.vector_floats
    assert register_tile(registers, lanes, range(1, 31), (16, 32, 64)[: 1 + registers // 16]) == (
        target.gemm_mr,
        target.gemm_nr,
    )


@pytest.mark.parametrize("product", PRODUCTS, ids=str)
def test_tiles_fit_their_memories(product: Product) -> None:
    tile = choose_tile(product, CACHES, 6, 64)
    assert tile is not None
    assert tile.kc % 16 == 0
    assert 0 <= tile.kc - product.depth < 16 or tile.kc < product.depth
    assert tile.mc % tile.mr == 0
    l1 = tile.kc * tile.nr + 2 * tile.mr * (tile.kc + tile.nr)
    assert 4 * l1 <= CACHES.l1_bytes
    l2 = tile.mc * tile.nr + 2 * tile.kc * (tile.nr + tile.mc)
    assert 4 * l2 <= CACHES.l2_bytes


def test_slices_are_equal() -> None:
    """No last slice that is a sliver, whatever the depth."""
    for depth in range(1, 4000, 37):
        tile = choose_tile(Product((64,), 64, depth), CACHES, 6, 64)
        assert tile is not None
        steps = -(-depth // tile.kc)
        assert depth - (steps - 1) * tile.kc > tile.kc - 16 * steps
        assert tile.kc - depth / steps < 16


def test_words_moved_are_those_of_the_loops() -> None:
    """Counted by walking over the tiles of a small product."""
    product = Product((12,), 256, 32)
    tile = Tile(mr=3, nr=64, kc=8, mc=6)
    into_l1 = 0
    for _ in range(2):  # blocks of rows
        for _ in range(4):  # panels
            for _ in range(4):  # slices of k
                into_l1 += tile.kc * tile.nr  # B
                into_l1 += 2 * (tile.mr * tile.kc + 2 * tile.mr * tile.nr)  # two tiles of A and C
    _, found, _ = words_moved(product, Caches(1 << 10, 1 << 20, 1), tile)
    assert isclose(found * 12 * 256 * 32, into_l1)


def test_deeper_slices_and_taller_blocks_move_less() -> None:
    product = Product((1024,), 768, 768)
    chosen = choose_tile(product, CACHES, 6, 64)
    assert chosen is not None
    for smaller in (
        dataclasses.replace(chosen, kc=chosen.kc // 2),
        dataclasses.replace(chosen, mc=chosen.mc // 2),
    ):
        assert words_moved(product, CACHES, smaller)[1] > words_moved(product, CACHES, chosen)[1]


def test_many_workers_get_tasks() -> None:
    """Six slices for sixteen workers: rows are split until all of them have work."""
    assert block_count(1024, 516, 6, 16) == 8
    assert block_count(1024, 100, 6, 16) == 16
    assert block_count(1024, 516, 12, 2) == 2
    assert block_count(20, 516, 1, 16) == 1
    assert block_count(0, 516, 1, 16) == 0


def test_candidates_begin_with_the_choice() -> None:
    product = Product((128,), 768, 3072)
    found = candidates(product, CACHES, 6, 64, 6)
    assert found[0] == choose_tile(product, CACHES, 6, 64)
    assert len(found) == len(set(found)) == 6


def test_candidates_without_a_cache() -> None:
    assert candidates(Product((8,), 64, 64), Caches(256, 1024, 1), 6, 64, 4) == []


@pytest.mark.parametrize("isa", ["x86-64-v4", "x86-64-v3", "generic"])
def test_tiles_of_every_instruction_set_are_its_kernel_s(isa: str) -> None:
    target = parse_target(f"cpu:{isa}")
    tile = tile_on(target, Product((64,), 64, 7))
    assert tile is not None
    assert (tile.mr, tile.nr, tile.kc) == (target.gemm_mr, target.gemm_nr, 16)


@pytest.mark.parametrize("columns", [384, 576, 768, 1024, 1536, 3072, 4096])
def test_padded_rows_leave_room_for_the_slice(columns: int) -> None:
    """Counted line by line: no set gets more lines of two tiles and of the slice than it holds."""
    tile, l1_bytes = Tile(6, 64, 128, 516), 48 << 10
    pitch = 4 * (columns + row_pad(columns, 4, tile, l1_bytes))
    lines = [(row * pitch + 4 * k) // 64 for row in range(12) for k in range(0, 128, 16)]
    slice_of_b = range(4 * tile.kc * tile.width // 64)
    fullest = max(Counter(line % 64 for line in (*lines, *slice_of_b)).values())
    assert fullest <= l1_bytes // 4096 - 1
    assert pitch % 64 == 0


def test_rows_that_share_no_sets_stay_where_they_are() -> None:
    tile = Tile(6, 64, 128, 516)
    assert most_in_a_set(12, 512, 12288) == 12
    assert row_pad(768, 4, tile, 48 << 10) == 0
    assert row_pad(770, 4, tile, 48 << 10) == 0
