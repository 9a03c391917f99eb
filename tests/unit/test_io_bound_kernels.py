"""Lower bounds of products, rows and attention, against figures and schedules of the papers."""

from __future__ import annotations

from math import ceil, isqrt

import pytest

from dfcompiler.analysis.io_bound import attention, gemm, rows
from dfcompiler.analysis.io_bound.attention import Heads
from dfcompiler.analysis.io_bound.gemm import Product


@pytest.mark.parametrize(
    ("words", "square", "ratio", "best", "best_ratio"),
    [
        (64, 7, 1.1429, (7, 8), 1.0714),
        (1024, 31, 1.0323, (31, 32), 1.0161),
        (4096, 63, 1.0159, (63, 64), 1.0079),
        (16384, 127, 1.0079, (127, 128), 1.0039),
    ],
)
def test_blocks_by_integer_search(
    words: int, square: int, ratio: float, best: tuple[int, int], best_ratio: float
) -> None:
    def over(a: int, b: int) -> float:
        side = a * b
        reads = gemm.block_words(Product(side, side, side), a, b) - side * side
        return reads / (2 * side**3 / words**0.5)

    assert square == isqrt(words + 1) - 1
    assert gemm.best_block(words) == best
    assert over(square, square) == pytest.approx(ratio, abs=5e-5)
    assert over(*best) == pytest.approx(best_ratio, abs=5e-5)
    third = (words / 3) ** 0.5
    assert (2 / third) / (2 / words**0.5) == pytest.approx(3**0.5)


def test_the_published_bound_of_a_product() -> None:
    words, theorem = gemm.product_words(Product(2048, 2048, 2048), 1024)
    assert words == 2 * 2048**3 // 32 + 2048**2
    assert "1908.09606" in theorem
    words, theorem = gemm.product_words(Product(8, 2048, 2048), 1 << 20)
    assert (words, theorem) == (8 * 2048 * 2 + 2048**2, gemm.COMPULSORY)


def test_short_sums_undercut_the_published_bound() -> None:
    # k = √S: B stays in blocks of k × S/k while rows of A pass; C is stored once, never read.
    m, n, k, words = 4096, 4096, 30, 1024
    columns = (words - k - 1) // k
    moved = m * k * ceil(n / columns) + k * n + m * n
    published = 2 * m * n * k / words**0.5 + m * n
    assert moved < published
    found, theorem = gemm.product_words(Product(m, n, k), words)
    assert found <= moved
    assert "1702.02017" in theorem


def test_parallel_products() -> None:
    product = Product(4096, 4096, 4096)
    cube = 3 * (4096**3 / 1024) ** (2 / 3)
    short = gemm.parallel_words(product, 1024, 1 << 16)
    assert short == pytest.approx(2 * 4096**3 / (1024 * 256) + (1 << 16))
    assert short > cube
    assert gemm.parallel_words(product, 1024, 1 << 30) == pytest.approx(cube)
    # The cases meet at S = (mnk/p)^⅔.
    assert gemm.parallel_words(product, 64, 1 << 20) == pytest.approx(3 << 20)
    assert gemm.parallel_domain(product, 1024, 1 << 16) == (256, 1024)
    assert gemm.parallel_domain(product, 64, 1 << 20) == pytest.approx((1024, 1024))
    with pytest.raises(ValueError, match="do not hold"):
        gemm.parallel_words(product, 2, 1024)


def test_chains_and_rows() -> None:
    assert rows.chain_words(1000, 5) == (10000, 2000)
    assert rows.row_words(10, 100, 0, 100) == rows.row_schedule_words(10, 100, 0, 100) == 2000
    assert rows.row_words(10, 100, 200, 100) == 2200
    assert rows.row_schedule_words(10, 100, 0, 50) == 3000
    assert 2000 < rows.row_words(10, 100, 0, 50) <= 3000


def test_exact_attention_counters() -> None:
    # N = 1024, d = 64, S = 51,200.
    tokens, width, words = 1024, 64, 51_200
    assert attention.unfused_words(tokens, width) == 4_456_448
    assert attention.keys_outermost_words(tokens, width, words) == 1_335_296
    found = attention.query_rows(width, 64, words)
    assert found == 221
    assert attention.queries_outermost_words(tokens, width, found) == 787_456


@pytest.mark.parametrize("tokens", [256, 1024, 8192])
@pytest.mark.parametrize("width", [16, 64, 256])
@pytest.mark.parametrize("words", [1 << 11, 1 << 14, 1 << 17])
def test_no_attention_schedule_is_below_its_bound(tokens: int, width: int, words: int) -> None:
    bound_words = attention.streamed_words(Heads(tokens * tokens, width), words)
    schedules = [attention.unfused_words(tokens, width)]
    schedules.append(attention.keys_outermost_words(tokens, width, words))
    for keys in (1, 8, 64):
        block = attention.query_rows(width, keys, words)
        if block > 0:
            schedules.append(attention.queries_outermost_words(tokens, width, block))
    assert bound_words <= min(schedules) or width > words**0.5


def test_the_attention_bound_grows_as_the_paper_says() -> None:
    pairs, words = (1 << 22) ** 2, 1 << 18
    narrow = [attention.streamed_words(Heads(pairs, d), words) for d in (4, 8)]
    assert narrow[0] / (pairs * 16 / words) == pytest.approx(1, rel=0.05)
    assert narrow[1] / narrow[0] == pytest.approx(4, rel=0.05)
    wide = [attention.streamed_words(Heads(pairs, d), words) for d in (1 << 14, 1 << 15)]
    assert wide[1] / wide[0] == pytest.approx(2, rel=0.05)
