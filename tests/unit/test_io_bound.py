"""Lower bounds, against the figures of the papers and against schedules counted word by word."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from itertools import product
from math import ceil, isqrt

import pytest
import sympy
from rich.console import Console

from dfcompiler.analysis.cost import op_costs
from dfcompiler.analysis.io_bound import attention, gemm, rows
from dfcompiler.analysis.io_bound.attention import Heads
from dfcompiler.analysis.io_bound.gemm import Product
from dfcompiler.analysis.io_bound.levels import kernel_bounds, levels_of
from dfcompiler.analysis.io_bound.nest import Statement, statement
from dfcompiler.analysis.io_bound.operator import op_bound
from dfcompiler.analysis.io_bound.soap import WORDS, bound, finite_words
from dfcompiler.analysis.io_bound.words import bits_per_value, bytes_of_elements
from dfcompiler.analysis.machine import Machine
from dfcompiler.errors import UsageError
from dfcompiler.ir import DType, Op, Program, TensorType, parse, verify
from dfcompiler.ir.types import Affine
from dfcompiler.report.bounds import bound_rows, bound_table
from dfcompiler.target import parse_target
from tests.memory import LruCache, Scratchpad

S = WORDS
NI, NJ, NK, NL, NM = sympy.symbols("NI NJ NK NL NM", positive=True)
M, N, T, NP, NQ, NR = sympy.symbols("M N T NP NQ NR", positive=True)
S0, S1, S2, S3 = sympy.symbols("S0 S1 S2 S3", positive=True)


# ------------------------------------------------------------------------------------ loop nests


def _gemm(write: str, left: str, right: str, **loops: sympy.Expr) -> Statement:
    return statement(f"{write} += {left} * {right}", loops)


def _near(axes: str) -> str:
    """The star of neighbours of a point at time t."""
    centre = f"A[t,{','.join(axes)}]"
    shifted = [
        f"A[t,{','.join(a if a != axis else f'{a}{sign}1' for a in axes)}]"
        for axis in axes
        for sign in "+-"
    ]
    return f"A[t+1,{','.join(axes)}] = {centre} + {' + '.join(shifted)}"


NESTS: dict[str, tuple[list[Statement], sympy.Expr]] = {
    "gemm": (
        [_gemm("C[i,j]", "A[i,k]", "B[k,j]", i=NI, j=NJ, k=NK)],
        2 * NI * NJ * NK / sympy.sqrt(S),
    ),
    "2mm": (
        [
            _gemm("T[i,j]", "A[i,k]", "B[k,j]", i=NI, j=NJ, k=NK),
            _gemm("D[i,l]", "T[i,j]", "C[j,l]", i=NI, j=NJ, l=NL),
        ],
        2 * NI * NJ * (NK + NL) / sympy.sqrt(S),
    ),
    "3mm": (
        [
            _gemm("E[i,j]", "A[i,k]", "B[k,j]", i=NI, j=NJ, k=NK),
            _gemm("F[j,l]", "C[j,m]", "D[m,l]", j=NJ, l=NL, m=NM),
            _gemm("G[i,l]", "E[i,j]", "F[j,l]", i=NI, j=NJ, l=NL),
        ],
        2 * NJ * (NI * NK + NI * NL + NL * NM) / sympy.sqrt(S),
    ),
    "syrk": (
        [statement("C[i,j] += A[i,k] * A[j,k]", {"i": N, "j": N, "k": M}, M * N**2 / 2)],
        M * N**2 / sympy.sqrt(S),
    ),
    "syr2k": (
        [
            statement(
                "C[i,j] += A[i,k] * B[j,k] + A[j,k] * B[i,k]",
                {"i": N, "j": N, "k": M},
                M * N**2 / 2,
            )
        ],
        2 * M * N**2 / sympy.sqrt(S),
    ),
    "cholesky": (
        [statement("A[i,j] -= A[i,k] * A[j,k]", {"i": N, "j": N, "k": N}, N**3 / 6)],
        N**3 / (3 * sympy.sqrt(S)),
    ),
    "lu": (
        [statement("A[i,j] -= A[i,k] * A[k,j]", {"i": N, "j": N, "k": N}, N**3 / 3)],
        2 * N**3 / (3 * sympy.sqrt(S)),
    ),
    "doitgen": (
        [_gemm("O[r,q,p]", "A[r,q,s]", "C[s,p]", r=NR, q=NQ, p=NP, s=NP)],
        2 * NP**2 * NQ * NR / sympy.sqrt(S),
    ),
    "atax": (
        [
            _gemm("t[i]", "A[i,j]", "x[j]", i=M, j=N),
            _gemm("y[j]", "A[i,j]", "t[i]", i=M, j=N),
        ],
        M * N,
    ),
    "bicg": (
        [
            _gemm("s[j]", "r[i]", "A[i,j]", i=M, j=N),
            _gemm("q[i]", "A[i,j]", "p[j]", i=M, j=N),
        ],
        M * N,
    ),
    "mvt": (
        [
            _gemm("x[i]", "A[i,j]", "y[j]", i=N, j=N),
            _gemm("z[i]", "A[j,i]", "w[j]", i=N, j=N),
        ],
        N**2,
    ),
    "jacobi1d": ([statement(_near("i"), {"t": T, "i": N})], 2 * N * T / S),
    "jacobi2d": (
        [statement(_near("ij"), {"t": T, "i": N, "j": N})],
        4 * N**2 * T / sympy.sqrt(S),
    ),
    "heat3d": (
        [statement(_near("ijk"), {"t": T, "i": N, "j": N, "k": N})],
        6 * N**3 * T / sympy.cbrt(S),
    ),
    "mttkrp": (
        [statement("O[i,a] += X[i,j,k] * B[j,a] * C[k,a]", {"i": S0, "j": S1, "k": S2, "a": S3})],
        3 * S0 * S1 * S2 * S3 / S ** sympy.Rational(2, 3),
    ),
}


@pytest.mark.parametrize("name", NESTS)
def test_leading_terms_of_loop_nests(name: str) -> None:
    # Kwasniewski et al., SPAA 2021, table 2.
    nest, expected = NESTS[name]
    found = bound(nest)
    assert found is not None
    assert sympy.simplify(found / expected) == 1, found


def test_statements_without_common_arrays_add_up() -> None:
    one = _gemm("C[i,j]", "A[i,k]", "B[k,j]", i=NI, j=NJ, k=NK)
    other = _gemm("Z[i,j]", "X[i,k]", "Y[k,j]", i=NI, j=NJ, k=NL)
    found = bound([one, other])
    assert sympy.simplify(found - 2 * NI * NJ * (NK + NL) / sympy.sqrt(S)) == 0


def test_products_that_share_an_operand_have_the_bound_of_one_product() -> None:
    gate = _gemm("G[i,j]", "A[i,k]", "V[k,j]", i=NI, j=NJ, k=NK)
    up = _gemm("U[i,l]", "A[i,k]", "W[k,l]", i=NI, l=NL, k=NK)
    found = bound([gate, up])
    assert sympy.simplify(found - 2 * NI * NK * (NJ + NL) / sympy.sqrt(S)) == 0


def test_more_statements_than_can_be_grouped_have_no_bound() -> None:
    chain = [_gemm(f"T{n}[i]", "A[i,j]", f"x{n}[j]", i=M, j=N) for n in range(7)]
    assert bound(chain) is None


@pytest.mark.parametrize("text", ["C[i,z] += A[i]", "C[2*i] = A[i]", "nothing"])
def test_nests_that_are_not_projective(text: str) -> None:
    with pytest.raises(UsageError):
        statement(text, {"i": N})


@pytest.mark.parametrize("shape", [(1000, 1000, 1000), (16, 768, 768), (128, 96, 2000)])
def test_the_finite_bound_of_a_nest_is_that_of_a_product(shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    nest = _gemm(
        "C[i,j]", "A[i,k]", "B[k,j]", **dict(zip("ijk", sympy.symbols("m n k"), strict=True))
    )
    for words in (100, 1024, 4096):
        found = finite_words(nest, {"m": m, "n": n, "k": k}, words)
        assert found == pytest.approx(gemm.segment_words(Product(m, n, k), words), rel=2e-3)


# --------------------------------------------------------------------------------------- products


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


def test_batches_and_shared_operands() -> None:
    alone, _ = gemm.product_words(Product(512, 512, 512), 1024)
    batched, _ = gemm.product_words(Product(512, 512, 512, 4), 1024)
    assert batched == 4 * alone
    for fast in (1 << 12, 1 << 24):
        shared = op_of("f32[4, 512, 512]", "f32[512, 512]", "f32[4, 512, 512]", fast)
        assert shared == op_of("f32[2048, 512]", "f32[512, 512]", "f32[2048, 512]", fast)
    apart = op_of("f32[4, 512, 512]", "f32[4, 512, 512]", "f32[4, 512, 512]", 1 << 24)
    assert apart == shared + 3 * 4 * 512 * 512


def op_of(a: str, b: str, y: str, fast_bytes: int = 4096) -> int:
    program = program_of(
        f"@y: {y} = matmul @a, @b", f"input @a: {a}\ninput @b: {b}\noutput @y: {y}"
    )
    (cost,) = op_costs(program, {}, fast_bytes)
    assert cost.io_bound_bytes is not None
    return cost.io_bound_bytes


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


# ---------------------------------------------------------------------------- rows and attention


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


# ------------------------------------------------------------------------ operators and regions


def program_of(ops: str, containers: str) -> Program:
    declared, body = containers.strip().splitlines(), ops.strip().splitlines()
    lines = [*(f"  {c.strip()}" for c in declared), "  state main {", *body, "  }"]
    return verify(parse("program p() {\n" + "\n".join(lines) + "\n}"))


def bounds_of(ops: str, containers: str, fast_bytes: int) -> list[tuple[int, str]]:
    program = program_of(ops, containers)
    costs = op_costs(program, {}, fast_bytes)
    assert all(c.io_bound_bytes is not None and c.io_bound_bytes <= c.moved_bytes for c in costs)
    return [(int(c.io_bound_bytes or 0), c.theorem) for c in costs]


def test_words_by_encoding() -> None:
    assert bits_per_value(4, 128, 16, 16) == 4.25
    weight = TensorType(DType.F32, (256, 512), encoding=Affine(4, 0, 128, DType.F16, False))
    assert bytes_of_elements(weight, 256 * 512) * 8 / (256 * 512) == bits_per_value(4, 128, 16)
    assert bytes_of_elements(weight, 128 * 512) == bytes_of_elements(weight, 256 * 512) // 2


def test_an_epilogue_adds_what_it_reads() -> None:
    containers = """input @x: f32[512, 512]
        weight @w: f32[512, 512]
        weight @b: f32[512]
        input @r: f32[512, 512]
        output @y: f32[512, 512]"""
    ((alone, _),) = bounds_of("@y: f32[512, 512] = matmul @x, @w", containers, 1 << 14)
    region = """@y: f32[512, 512] = fused @x, @w, @b, @r {kernel = "linear"} do
        %0: f32[512, 512] = matmul @x, @w
        %1: f32[512, 512] = add %0, @b
        %2: f32[512, 512] = gelu %1
        %3: f32[512, 512] = add %2, @r
        end"""
    ((fused, theorem),) = bounds_of(region, containers, 1 << 14)
    assert fused == alone + 4 * (512 + 512 * 512)
    assert "1908.09606" in theorem


def test_a_result_that_is_reduced_need_not_be_stored() -> None:
    containers = """input @x: f32[512, 512]
        weight @w: f32[512, 512]
        output @y: f32[512]"""
    region = """@y: f32[512] = fused @x, @w do
        %0: f32[512, 512] = matmul @x, @w
        %1: f32[512] = reduce_sum %0 {axes = [0]}
        end"""
    fast = 1 << 12
    ((found, theorem),) = bounds_of(region, containers, fast)
    reads = gemm.segment_words(Product(512, 512, 512), 1 << 10) - 512 * 512
    assert found == 4 * (reads + 512)
    assert "1702.02017" in theorem


def test_an_operand_multiplied_with_itself_has_the_compulsory_bound() -> None:
    containers = "input @x: f32[512, 512]\noutput @y: f32[512, 512]"
    region = """@y: f32[512, 512] = fused @x do
        %0: f32[512, 512] = transpose @x {perm = [1, 0]}
        %1: f32[512, 512] = matmul @x, %0
        end"""
    program = program_of(region, containers)
    (op,) = program.ops()
    assert isinstance(op, Op)
    assert op_bound(op, (program.container("x").type,), 1 << 12) == (
        4 * 2 * 512 * 512,
        gemm.COMPULSORY,
    )


def test_rows_that_do_not_fit_are_read_again() -> None:
    containers = "input @x: f32[8, 4096]\noutput @y: f32[8, 4096]"
    ((found, theorem),) = bounds_of("@y: f32[8, 4096] = softmax @x {axis = 1}", containers, 1 << 12)
    assert found == 4 * (2 * 8 * 4096 + 8 * (4096 - 1024))
    assert theorem == rows.ROWS
    ((fits, _),) = bounds_of("@y: f32[8, 4096] = softmax @x {axis = 1}", containers, 1 << 16)
    assert fits == 4 * 2 * 8 * 4096


def test_attention_at_its_own_size() -> None:
    containers = """input @q: f32[1, 2, 4096, 8]
        input @k: f32[1, 2, 4096, 8]
        input @v: f32[1, 2, 4096, 8]
        output @y: f32[1, 2, 4096, 8]"""
    text = "@y: f32[1, 2, 4096, 8] = attention @q, @k, @v {scale = 1.0}"
    ((found, theorem),) = bounds_of(text, containers, 1 << 11)
    assert "2402.07443" in theorem
    causal = text.replace("scale = 1.0", "scale = 1.0, causal = true")
    ((half, _),) = bounds_of(causal, containers, 1 << 11)
    compulsory = 4 * 4 * 2 * 4096 * 8
    assert compulsory <= half < found


# --------------------------------------------------------------------------- simulated memories


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


# ----------------------------------------------------------------------------- levels of memory


def test_every_level_has_its_own_bound() -> None:
    target = parse_target("cpu:x86-64-v4")
    machine = Machine.nominal(target, threads=1)
    levels = levels_of(target, machine)
    assert [level.name for level in levels] == ["registers", "L1", "L2", "L3"]
    assert levels[0].fast_bytes == 32 * 64
    program = program_of(
        """@y: f32[2048, 2048] = matmul @x, @w
        @z: f32[2048, 2048] = exp @y
        %0: f32[2048, 1, 2048] = reshape @z""",
        """input @x: f32[2048, 2048]
        weight @w: f32[2048, 2048]
        output @y: f32[2048, 2048]
        output @z: f32[2048, 2048]""",
    )
    product, chain = kernel_bounds(program, {}, levels, machine)
    assert product.volume == 2048**3
    assert product.compulsory_bytes == 3 * 4 * 2048**2
    assert product.levels[0].best_block == (22, 22)
    bounds = [level.bound_bytes for level in product.levels]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] == 4 * (int(2 * 2048**3 / 512**0.5) + 2048**2)
    assert all(level.ratio is not None and level.ratio >= 1 for level in product.levels)
    assert product.binding == "arithmetic"
    assert product.least_s == 2 * 2048**3 / machine.tile_flops
    assert chain.binding == "L3"
    assert chain.least_s == 2 * 4 * 2048**2 / machine.memory_rate


def test_the_table_of_bounds_shows_one_line_for_equal_kernels() -> None:
    target = parse_target("cpu:x86-64-v3")
    machine = Machine.nominal(target)
    program = parse(
        """program p() {
  weight @t: f32[50, 8]
  input @i: i64[3]
  input @w: f32[8, 8]
  persist @h: f32[3, 8]
  loop layers for l in 0..4 {
    state one {
      %0: f32[3, 8] = matmul @h, @w
      @h: f32[3, 8] = matmul %0, @w
    }
  }
  state last {
    @h: f32[3, 8] = gather @t, @i {axis = 0}
  }
}"""
    )
    found = bound_rows(kernel_bounds(program, {}, levels_of(target, machine), machine))
    assert [row["runs"] for row in found] == [4, 4, 1]
    assert found[2]["compulsory_bytes"] is None
    console = Console(width=200, record=True, file=StringIO())
    console.print(bound_table(found, {}))
    text = console.export_text()
    assert text.count("matmul f32[3, 8]") == 1
    assert "unknown" in text
    assert "arithmetic" in text or "registers" in text


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
