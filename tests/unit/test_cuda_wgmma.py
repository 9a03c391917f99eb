"""The product by warp groups and TMA, in emulation against float64."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.cuda_emulation import Library, build, toolkit
from tests.nvcc_spills import spills_of
from tests.tolerances import assert_close
from tests.unit.test_cuda_gemm import ACTIVATIONS, HEAD, RESIDUALS, strided

pytestmark = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")

COMPILED = """#include "cuda/gemm_wgmma.cuh"
using namespace dfc::cuda;
#define INSTANCE(T, activated, added, kernels)                                              \\
  template cudaError_t dfc::cuda::gemm_wgmma<T, Activation::activated, Residual::added, kernels>( \\
      cudaStream_t, Gemm<T>);
INSTANCE(__nv_bfloat16, gelu, mul, WIDE | LARGE | WIDTH | DEPTH)
INSTANCE(__half, silu, add, WIDE | DEPTH)
"""

SOURCE = (
    '#include "cuda/gemm_wgmma.cuh"\n'
    + HEAD
    + r"""
#define KERNEL(name, T, shape, activated, added)                                            \
  extern "C" int name(OPERANDS(T), long wanted) {                                           \
    const Gemm<T> p = product(a, b, c, bias, residual, s);                                  \
    return run_wgmma<shape, T, Activation::activated, Residual::added>(                     \
        nullptr, p, 3, wanted, along_of_b(p));                                              \
  }
KERNEL(wide, __nv_bfloat16, WgmmaWide, silu, mul)
KERNEL(turns, __half, WgmmaTurns, gelu_tanh, add)
KERNEL(plain, __nv_bfloat16, WgmmaTurns, none, none)

extern "C" int any(OPERANDS(__nv_bfloat16), long) {
  constexpr unsigned kernels = MANY | ELEMENTS | WIDTH;
  return gemm_wgmma<__nv_bfloat16, Activation::none, Residual::none, kernels>(
      nullptr, product(a, b, c, bias, residual, s));
}
extern "C" int is_wide(const long* s, int* wide) {
  Gemm<__half> p{};
  p.batch = s[0], p.M = s[1], p.N = s[2], p.K = s[3];
  *wide = predicted_cycles<WgmmaWide>(p, 132) <= predicted_cycles<WgmmaTurns>(p, 132);
  return 0;
}
"""
)
KERNELS = {
    "wide": (ml_dtypes.bfloat16, "silu", "mul"),
    "turns": (np.float16, "gelu_tanh", "add"),
    "plain": (ml_dtypes.bfloat16, "none", "none"),
    "any": (ml_dtypes.bfloat16, "none", "none"),
}


@cache
def kernels() -> Library:
    return build(SOURCE)


def check(
    function: str,
    extents: tuple[int, int, int, int],
    *,
    b: str = "C",
    gap: int = 0,
    gap_of_c: int = 0,
    shared_b: bool = False,
    biased: bool = True,
    wanted: int = 1,
) -> None:
    """Runs one product on fresh inputs and compares it with float64.

    Args:
        function: which kernel.
        extents: batch, rows, columns, depth.
        b: whether n (``C``) or k (``F``) of B is contiguous.
        gap: elements between rows of A and B.
        gap_of_c: elements between rows of C, which must stay as they are, and of the residual.
        shared_b: whether the whole batch has one B.
        biased: whether there is a bias.
        wanted: into how many units tiles are to be split, at least.
    """
    batch, rows, columns, depth = extents
    kind, activation, rest = KERNELS[function]
    random, library = np.random.default_rng(sum(extents)), kernels()
    left = (random.standard_normal((batch, rows, depth)) / np.sqrt(depth)).astype(kind)
    right = random.standard_normal((1 if shared_b else batch, depth, columns)).astype(kind)
    bias = random.standard_normal(columns).astype(kind)
    room = columns + gap_of_c
    residual = library.copy(random.standard_normal((batch, rows, room)).astype(kind))
    c = library.array((batch, rows, room), kind)
    c[...] = np.array(7, kind)
    a_room, a_strides = strided(library, left, "C", gap)
    b_room, b_strides = strided(library, right, b, gap)
    if shared_b:
        b_strides[2] = 0
    c_strides = [room, rows * room]
    sizes = [*extents, *a_strides, *b_strides, *c_strides, *c_strides, 0]
    s = library.copy(np.array(sizes, np.int64))
    given = library.copy(bias) if biased else None
    library.call(function, a_room, b_room, c, given, residual, s, wanted)
    wide = [x.astype(np.float64) for x in (left, right, bias * biased, residual[..., :columns])]
    expected = RESIDUALS[rest](ACTIVATIONS[activation](wide[0] @ wide[1] + wide[2]), wide[3])
    assert_close(c[..., :columns], expected.astype(kind))
    assert (c[..., columns:] == np.array(7, kind)).all(), "columns beside c are written"


@pytest.mark.parametrize("b", ["C", "F"])
@pytest.mark.parametrize(
    ("kernel", "extents"),
    [
        ("wide", (1, 130, 264, 200)),  # tails of every axis, four tiles for three blocks
        ("wide", (1, 70, 40, 328)),  # less than a tile, six steps for four stages
        ("turns", (1, 130, 264, 72)),  # six tiles: each block takes two, a group one
        ("turns", (1, 400, 136, 520)),  # eight tiles, nine steps each for six stages
        ("plain", (3, 65, 200, 136)),  # six tiles of a batch
    ],
)
def test_a_product(kernel: str, extents: tuple[int, int, int, int], b: str) -> None:
    check(kernel, extents, b=b)


@pytest.mark.parametrize("kernel", ["wide", "turns"])
def test_edges_inside_of_16_bytes(kernel: str) -> None:
    check(kernel, (1, 67, 43, 61), b="F", gap=3)
    check(kernel, (1, 67, 43, 59), b="C", gap=5)


@pytest.mark.parametrize("kernel", ["wide", "turns"])
def test_rows_of_c_with_gaps(kernel: str) -> None:
    check(kernel, (1, 70, 72, 64), gap=8, gap_of_c=8)
    check(kernel, (2, 70, 72, 64), gap_of_c=3)


@pytest.mark.parametrize("kernel", ["wide", "turns"])
def test_k_split_among_units(kernel: str) -> None:
    check(kernel, (1, 70, 40, 328), wanted=2)
    check(kernel, (1, 200, 44, 520), b="F", wanted=12)
    check(kernel, (1, 66, 43, 520), b="F", wanted=4)


def test_one_b_for_a_batch() -> None:
    check("plain", (3, 70, 72, 72), shared_b=True)
    check("plain", (1, 70, 72, 72), biased=False)


def test_what_tma_cannot_copy_is_left_to_the_other_kernels() -> None:
    check("any", (1, 70, 72, 72))
    check("any", (1, 70, 43, 72), gap=0)
    check("any", (1, 70, 40, 31))
    check("any", (1, 33, 72, 72))


@pytest.mark.parametrize(
    ("extents", "wide"),
    [
        ((1, 4096, 1024, 1024), 1),  # one round of 128 tiles, against two of 256
        ((1, 128, 3072, 768), 0),  # 12 tiles, against 24 whose k is split
        ((1, 8192, 8192, 8192), 1),
        ((1, 4096, 4096, 256), 0),  # as many cycles for stores as for products
    ],
)
def test_the_kernel_of_fewer_cycles(extents: tuple[int, ...], wide: int) -> None:
    found = kernels().array((1,), np.int32)
    kernels().call("is_wide", kernels().copy(np.array(extents, np.int64)), found)
    assert found[0] == wide


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is missing")
def test_nvcc_compiles_the_kernels_without_spills(tmp_path: Path) -> None:
    assert spills_of(COMPILED.splitlines(), "90a", tmp_path) == [(0, 0)] * 5
