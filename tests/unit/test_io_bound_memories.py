"""Lower bounds and schedules, against memories that are simulated word by word."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import ceil

import pytest

from dfcompiler.analysis.cost import op_costs
from dfcompiler.analysis.io_bound import attention, gemm
from dfcompiler.analysis.io_bound.attention import Heads
from dfcompiler.analysis.io_bound.gemm import Product
from tests.memory import LruCache, Scratchpad
from tests.one_state import program_of


def blocked_product(m: int, n: int, k: int, a: int, b: int) -> Iterator[tuple[str, int, int]]:
    """The words that the block schedule touches, in order."""
    for top in range(0, m, a):
        for left in range(0, n, b):
            for p in range(k):
                for i in range(top, min(m, top + a)):
                    yield ("A", i, p)
                    for j in range(left, min(n, left + b)):
                        yield ("B", p, j)
                        yield ("C", i, j)


@pytest.mark.parametrize("shape", [(12, 12, 40), (13, 7, 31), (1, 20, 20)])
def test_a_simulated_cache_moves_what_the_block_schedule_counts(
    shape: tuple[int, int, int],
) -> None:
    m, n, k = shape
    product = Product(m, n, k)
    a, b = 5, 6
    cache = LruCache(words=2 * (a * b + a + b))
    for name, row, column in blocked_product(m, n, k, a, b):
        cache.touch((name, row, column), writes=name == "C", made=name == "C")
    counted = gemm.block_words(product, a, b)
    assert gemm.product_words(product, cache.words)[0] <= cache.moved() <= counted


@pytest.mark.parametrize(("tokens", "width", "rows_", "keys"), [(24, 4, 6, 3), (17, 3, 4, 1)])
def test_a_scratchpad_holds_what_attention_schedules_count(
    tokens: int, width: int, rows_: int, keys: int
) -> None:
    words = rows_ * (2 * width + keys + 2) + 2 * width * keys
    assert attention.query_rows(width, keys, words) == rows_
    pad = Scratchpad(words)
    for top in range(0, tokens, rows_):
        count = min(rows_, tokens - top)
        with pad.kept("o", count * width), pad.kept("max and sum", 2 * count):
            with pad.loaded("q", count * width), pad.kept("scores", count * keys):
                for left in range(0, tokens, keys):
                    block = min(keys, tokens - left)
                    with pad.loaded("k", block * width), pad.loaded("v", block * width):
                        pass
            pad.store(count * width)  # the result
            pad.store(count)  # the logarithm of the sums
    assert pad.moved == attention.queries_outermost_words(tokens, width, rows_)
    assert attention.streamed_words(Heads(tokens * tokens, width), words) <= pad.moved


def tiled_product(
    m: int, n: int, k: int, tile: tuple[int, int, int, int]
) -> Iterator[tuple[str, int, int]]:
    """The words that the product kernel's loops touch: row blocks, panels, slices, tiles."""
    mr, nr, kc, mc = tile
    blocks = ceil(m / mc)
    rows_ = ceil(ceil(m / blocks) / mr) * mr
    for top, left, step in product(range(0, m, rows_), range(0, n, nr), range(0, k, kc)):
        end = min(m, top + rows_)
        columns = range(left, min(n, left + nr))
        for first in range(top, end, mr):
            for p in range(step, min(k, step + kc)):
                yield from (("B", p, j) for j in columns)
                for i in range(first, min(end, first + mr)):
                    yield ("A", i, p)
                    yield from (("C", i, j) for j in columns)


@pytest.mark.parametrize("shape", [(24, 16, 24), (13, 20, 17), (12, 8, 64)])
@pytest.mark.parametrize("words", [40, 120, 300, 700])
def test_a_cache_twice_as_large_moves_no_more_than_the_schedule_counts(
    shape: tuple[int, int, int], words: int
) -> None:
    m, n, k = shape
    tile = (2, 4, 8, 6)
    program = program_of(
        f"@y: f32[{m}, {n}] = matmul @x, @w {{tile = {list(tile)}}}",
        f"input @x: f32[{m}, {k}]\nweight @w: f32[{k}, {n}]\noutput @y: f32[{m}, {n}]",
    )
    (cost,) = op_costs(program, {}, 4 * words)
    moved = []
    for size in (words, 2 * words):
        cache = LruCache(size)
        for name, row, column in tiled_product(m, n, k, tile):
            cache.touch((name, row, column), writes=name == "C", made=name == "C")
        moved.append(4 * cache.moved())
    assert cost.io_bound_bytes is not None
    assert cost.io_bound_bytes <= moved[0]
    assert moved[1] <= cost.moved_bytes
