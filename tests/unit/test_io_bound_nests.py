"""Lower bounds of loop nests, against the table of the paper."""

from __future__ import annotations

import pytest
import sympy

from dfcompiler.analysis.io_bound import gemm
from dfcompiler.analysis.io_bound.gemm import Product
from dfcompiler.analysis.io_bound.nest import Statement, statement
from dfcompiler.analysis.io_bound.soap import WORDS, bound, finite_words
from dfcompiler.errors import UsageError

S = WORDS
NI, NJ, NK, NL, NM = sympy.symbols("NI NJ NK NL NM", positive=True)
M, N, T, NP, NQ, NR = sympy.symbols("M N T NP NQ NR", positive=True)
S0, S1, S2, S3 = sympy.symbols("S0 S1 S2 S3", positive=True)


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
