"""The matrix product's CUDA kernels: in the emulation against float64, and through nvcc."""

from __future__ import annotations

import itertools
import shutil
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from scipy import special

from tests.cuda_emulation import Library, build, toolkit
from tests.nvcc_spills import spills_of
from tests.tolerances import assert_close

Array = np.ndarray

emulated = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")

KINDS = ("f32", "tf32", "bf16", "f16")
TYPES = {
    "f32": "float",
    "tf32": "float",
    "bf16": "__nv_bfloat16",
    "f16": "__half",
}
DTYPES = {"float": np.float32, "__nv_bfloat16": ml_dtypes.bfloat16, "__half": np.float16}
ACTIVATIONS = {
    "none": lambda x: x,
    "gelu": lambda x: x * special.ndtr(x),
    "gelu_tanh": lambda x: x * special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)),
    "silu": lambda x: x * special.expit(x),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": special.expit,
}
RESIDUALS = {"none": lambda x, r: x, "add": np.add, "mul": np.multiply}
FUSED = {
    "f32": ("gelu", "none"),
    "tf32": ("relu", "none"),
    "bf16": ("silu", "mul"),
    "f16": ("none", "add"),
}
SHAPES = {
    "f32": ("FloatLarge", "FloatSmall"),
    "tf32": ("TensorLarge<float>", "TensorMedium<float>", "TensorFew<float>"),
    "bf16": (
        *("TensorWide<__nv_bfloat16>", "TensorLarge<__nv_bfloat16>"),
        "TensorFew<__nv_bfloat16>",
    ),
    "f16": ("TensorMedium<__half>",),
}
HEAD = r"""#include "cuda/gemm.cuh"
using namespace dfc::cuda;

template <class T>
Gemm<T> product(const T* a, const T* b, T* c, const T* bias, const T* residual, const long* s) {
  const Gemm<T> p{s[0], s[1], s[2], s[3], a, s[4], s[5], s[6], b, s[7], s[8], s[9],
                  c, s[10], s[11], bias, residual, s[12], s[13]};
  return s[14] ? p.with_weights() : p;
}
#define OPERANDS(T) const T *a, const T *b, T *c, const T *bias, const T *residual, const long *s
"""
ANY = """
extern "C" int any_{name}(OPERANDS({dtype}), long) {{
  return gemm<{dtype}, Activation::{activation}, Residual::{residual}, Floats::{floats}>(
      nullptr, product(a, b, c, bias, residual, s));
}}
"""
TILES = """
extern "C" int tile{number}_{name}(OPERANDS({dtype}), long wanted) {{
  const Gemm<{dtype}> p = product(a, b, c, bias, residual, s);
  return run_tiles<{shape}, {dtype}, Activation::{activation}, Residual::{residual}>(
      nullptr, p, wanted, along_of_b(p));
}}
"""
FEW_ROWS = """
extern "C" int {name}(OPERANDS({dtype}), const {dtype}* gain) {{
  return gemm<{dtype}, Activation::silu, Residual::{residual}, Floats::exact, VECTOR | DEPTH,
              Norm::root_mean_square>(
      nullptr, product(a, b, c, bias, residual, s).normalized(gain, 0.01f));
}}
"""
EPILOGUE = """
__global__ void apply_{activation}_{residual}(Gemm<float> p) {{
  p.c[threadIdx.x] = finished<Activation::{activation}, Residual::{residual}>(
      p, 0, 0, threadIdx.x, p.a[threadIdx.x]);
}}
extern "C" int {activation}_{residual}(float* c, const float* x, const float* bias,
                                       const float* residual, long n) {{
  Gemm<float> p{{}};
  p.a = x, p.c = c, p.bias = bias, p.residual = residual, p.scale = 0.5f;
  return launch(apply_{activation}_{residual}, dim3(1), dim3(n), 0, nullptr, p);
}}
"""


@cache
def products(dtype: str) -> Library:
    activation, residual = FUSED[dtype]
    names = {"name": dtype, "dtype": TYPES[dtype], "activation": activation, "residual": residual}
    tiles = (TILES.format(number=i, shape=s, **names) for i, s in enumerate(SHAPES[dtype]))
    floats = "tf32" if dtype == "tf32" else "exact"
    return build(HEAD + ANY.format(floats=floats, **names) + "".join(tiles))


@cache
def few_rows() -> Library:
    """Products of normalized rows, with a gate and without."""
    kinds = itertools.product(("float", "__nv_bfloat16"), ("gate", "add"))
    names = ({"name": f"{r}_{DTYPES[t].__name__}", "dtype": t, "residual": r} for t, r in kinds)
    return build(HEAD + "".join(FEW_ROWS.format(**name) for name in names))


@cache
def epilogues() -> Library:
    pairs = itertools.product(ACTIVATIONS, RESIDUALS)
    return build(HEAD + "".join(EPILOGUE.format(activation=a, residual=r) for a, r in pairs))


def strided(library: Library, values: Array, order: str, gap: int) -> tuple[Array, list[int]]:
    """`values` in a larger array, so that rows (``C``) or columns (``F``) are `gap` apart."""
    inner = values if order == "C" else values.swapaxes(1, 2)
    room = library.array((*inner.shape[:2], inner.shape[2] + gap), values.dtype)
    room[..., inner.shape[2] :] = np.array(np.nan, values.dtype)
    room[..., : inner.shape[2]] = inner
    steps = [inner.shape[2] + gap, 1]
    return room, [*(steps if order == "C" else steps[::-1]), room[0].size]


def check(
    dtype: str,
    function: str,
    extents: tuple[int, int, int, int],
    *,
    a: str = "C",
    b: str = "C",
    gaps: tuple[int, int] = (0, 0),
    wanted: int = 1,
    weights: bool = False,
) -> None:
    """Runs one product on fresh inputs and compares it with float64; B may be weights."""
    batch, rows, columns, depth = extents
    random, library = np.random.default_rng(sum(extents)), products(dtype)
    kind = DTYPES[TYPES[dtype]]
    left = (random.standard_normal((batch, rows, depth)) / np.sqrt(max(1, depth))).astype(kind)
    right = random.standard_normal((batch, depth, columns)).astype(kind)
    bias = library.copy(random.standard_normal(columns).astype(kind))
    residual = library.copy(random.standard_normal((batch, rows, columns)).astype(kind))
    c = library.array((batch, rows, columns + 3), kind)
    c[...] = np.array(7, kind)
    a_room, a_strides = strided(library, left, a, gaps[0])
    b_room, b_strides = strided(library, right, b, gaps[1])
    if weights:
        b_room = library.weight(b_room)
    c_strides = [columns + 3, c[0].size]
    sizes = [*extents, *a_strides, *b_strides, *c_strides, columns, rows * columns, weights]
    s = library.copy(np.array(sizes, np.int64))
    library.call(f"{function}_{dtype}", a_room, b_room, c, bias, residual, s, wanted)
    activation, rest = FUSED[dtype]
    wide = [x.astype(np.float64) for x in (left, right, bias, residual)]
    expected = RESIDUALS[rest](ACTIVATIONS[activation](wide[0] @ wide[1] + wide[2]), wide[3])
    # A tf32 has as many bits behind the point as a float16.
    computed = "float16" if dtype == "tf32" else ""
    assert_close(c[..., :columns], expected.astype(kind), computed_in=computed)
    assert (c[..., columns:] == np.array(7, kind)).all(), "columns beside c are written"


SIZES = [(1, 1, 8, 8), (1, 7, 64, 72), (2, 31, 40, 96), (1, 33, 72, 40), (1, 70, 136, 64)]
ODD = [(1, 1, 1, 1), (1, 1, 31, 7), (1, 7, 33, 31), (2, 31, 65, 33), (1, 67, 129, 41)]


@emulated
@pytest.mark.parametrize("b", ["C", "F"])
@pytest.mark.parametrize("extents", SIZES, ids=str)
@pytest.mark.parametrize("dtype", KINDS)
def test_a_product(dtype: str, extents: tuple[int, int, int, int], b: str) -> None:
    check(dtype, "any", extents, b=b, weights=True)


@emulated
@pytest.mark.parametrize("b", ["C", "F"])
@pytest.mark.parametrize("extents", ODD, ids=str)
@pytest.mark.parametrize("dtype", KINDS)
def test_a_product_of_odd_sizes(dtype: str, extents: tuple[int, int, int, int], b: str) -> None:
    check(dtype, "any", extents, b=b)


@emulated
@pytest.mark.parametrize("dtype", KINDS)
def test_a_product_of_strided_operands(dtype: str) -> None:
    check(dtype, "any", (2, 9, 24, 40), gaps=(8, 16))
    check(dtype, "any", (2, 9, 24, 40), b="F", gaps=(3, 5))
    check(dtype, "any", (1, 9, 24, 40), a="F", gaps=(0, 8))


@emulated
@pytest.mark.parametrize("dtype", KINDS)
def test_edges_inside_a_16_byte_chunk(dtype: str) -> None:
    """Rows are aligned, but K and N end within a chunk."""
    check(dtype, "any", (1, 35, 61, 43), gaps=(5, 3))
    check(dtype, "any", (1, 35, 61, 43), b="F", gaps=(5, 5))


@emulated
@pytest.mark.parametrize("dtype", KINDS)
def test_no_depth(dtype: str) -> None:
    check(dtype, "any", (1, 9, 16, 0), gaps=(8, 0))


@emulated
@pytest.mark.parametrize("b", ["C", "F"])
@pytest.mark.parametrize(
    ("dtype", "number"),
    [(dtype, i) for dtype, shapes in SHAPES.items() for i in range(len(shapes))],
)
def test_every_tile(dtype: str, number: int, b: str) -> None:
    check(dtype, f"tile{number}", (1, 130, 136, 72), b=b, weights=b == "C")


@emulated
@pytest.mark.parametrize("b", ["C", "F"])
@pytest.mark.parametrize("dtype", KINDS)
def test_k_split_among_blocks(dtype: str, b: str) -> None:
    check(dtype, f"tile{len(SHAPES[dtype]) - 1}", (2, 20, 40, 520), b=b, wanted=64, weights=True)


@emulated
def test_shared_memory_of_a_split_tile_of_48_kb() -> None:
    """The word that a split declares does not fit beside it without the kernel's attribute."""
    check("f32", "tile0", (1, 20, 40, 520), wanted=64)


@emulated
@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_epilogue(activation: str, residual: str) -> None:
    library, random = epilogues(), np.random.default_rng(3)
    x, bias, other = (
        library.copy((4 * random.standard_normal(97)).astype(np.float32)) for _ in range(3)
    )
    c = library.array((97,), np.float32)
    library.call(f"{activation}_{residual}", c, x, bias, other, 97)
    value = ACTIVATIONS[activation](0.5 * x.astype(np.float64) + bias)
    assert_close(c, RESIDUALS[residual](value, other.astype(np.float64)).astype(np.float32))


@emulated
@pytest.mark.parametrize("residual", ["gate", "add"])
@pytest.mark.parametrize("dtype", ["float", "__nv_bfloat16"])
@pytest.mark.parametrize("extents", [(1, 1, 33, 2056), (2, 7, 16, 8), (1, 8, 1, 264)], ids=str)
def test_few_normalized_rows(extents: tuple[int, int, int, int], dtype: str, residual: str) -> None:
    batch, rows, columns, depth = extents
    library, kind = few_rows(), DTYPES[dtype]
    random = np.random.default_rng(sum(extents))
    width = 2 * columns if residual == "gate" else columns

    def drawn(*shape: int) -> Array:
        return random.standard_normal(shape).astype(kind)

    # Rows begin at 16 bytes in one case of two; those of B always do.
    a, a_strides = strided(library, drawn(batch, rows, depth), "C", 8 if rows > 1 else 1)
    b, b_strides = strided(library, drawn(batch, depth, width) / kind(8), "F", 8)
    b = library.weight(b)
    bias, other = library.copy(drawn(width)), library.copy(drawn(batch, rows, columns))
    gain, c = library.copy(drawn(depth)), library.array((batch, rows, columns), kind)
    sizes = [*extents, *a_strides, *b_strides, columns, rows * columns, columns, rows * columns, 1]
    s = library.copy(np.array(sizes, np.int64))
    offset = None if residual == "gate" else bias
    library.call(f"{residual}_{kind.__name__}", a, b, c, offset, other, s, gain)
    x, w = (v.astype(np.float64) for v in (a[..., :depth], b.swapaxes(1, 2)[:, :depth]))
    mean = (x**2).mean(-1, keepdims=True)
    sums = x * gain.astype(np.float64) / np.sqrt(mean + 0.01) @ w
    silu = ACTIVATIONS["silu"]
    if residual == "gate":
        expected = silu(sums[..., :columns]) * sums[..., columns:]
    else:
        expected = silu(sums + bias.astype(np.float64)) + other.astype(np.float64)
    assert_close(c, expected.astype(kind))


COMPILED = [("f32", "80"), ("f32", "90a"), ("bf16", "80"), ("bf16", "90a"), ("tf32", "90a")]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is missing")
@pytest.mark.parametrize(("dtype", "arch"), COMPILED)
def test_nvcc_compiles_the_kernels_without_spills(dtype: str, arch: str, tmp_path: Path) -> None:
    activation, residual = FUSED[dtype]
    kind = f"{TYPES[dtype]}, Activation::{activation}, Residual::{residual}"
    names = ["gemm", "gemm_lt"]
    floats = ", Floats::tf32" if dtype == "tf32" else ""
    calls = [f"{names[0]}<{kind}{floats}>", f"gemm_lt<{kind}>"]
    if dtype == "bf16":
        few = "Floats::exact, VECTOR | DEPTH, Norm::root_mean_square"
        calls.append(f"gemm<{TYPES[dtype]}, Activation::silu, Residual::gate, {few}>")
    lines = [
        *(f'#include "cuda/{name}.cuh"' for name in names),
        "using namespace dfc::cuda;",
        *(
            f"template cudaError_t dfc::cuda::{call}(cudaStream_t, Gemm<{TYPES[dtype]}>);"
            for call in calls
        ),
    ]
    spills = spills_of(lines, arch, tmp_path)
    assert len(spills) >= 10
    assert set(spills) == {(0, 0)}
