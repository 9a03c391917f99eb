"""Products by CUTLASS: what its kernels are given, told by loops over these very arguments."""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numpy as np
import pytest
from scipy import special

from dfcompiler.codegen.units import family_units
from dfcompiler.errors import UnsupportedError
from dfcompiler.ir import parse
from dfcompiler.lowering import lower
from dfcompiler.lowering.lowered import Lowered
from dfcompiler.target import parse_target
from tests.cuda_emulation import Library, build, toolkit
from tests.programs import product_text
from tests.tolerances import assert_close

emulated = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")

# Instances without other kernels: to need one is an error, so what they compute is CUTLASS's.
SOURCE = """#include "cuda/gemm_cutlass.cuh"
#include "cuda/cutlass_tiles.cuh"
using namespace dfc::cuda;
#define PRODUCT(name, T, activation, residual, tiles, kernels)                                \\
  extern "C" int name(const T* a, const T* b, T* c, const T* bias, const T* other,            \\
                      const long* s, double scale, char* why) {                               \\
    clear_failure();                                                                          \\
    Gemm<T> p{s[0], s[1], s[2], s[3], a, s[4], s[5], s[6], b, s[7], s[8], s[9],               \\
              c, s[10], s[11], bias, other, s[12], s[13], static_cast<float>(scale)};         \\
    const cudaError_t code = gemm_cutlass<T, Activation::activation, Residual::residual,      \\
                                          tiles, kernels>(nullptr, p);                        \\
    std::snprintf(why, 256, "%s", failure().detail);                                          \\
    return code;                                                                              \\
  }
constexpr unsigned EITHER = CUTLASS_WIDE | CUTLASS_NARROW, TMA = WIDTH | DEPTH;
PRODUCT(gelu_add, __nv_bfloat16, gelu, add, EITHER, TMA)
PRODUCT(silu_mul, __half, silu, mul, CUTLASS_NARROW, TMA)
PRODUCT(plain, __half, none, none, CUTLASS_WIDE, TMA)
PRODUCT(others, __half, none, none, EITHER, ELEMENTS | MEDIUM | WIDTH)
"""
EPILOGUES = {
    "gelu_add": lambda x, r: x * special.ndtr(x) + r,
    "silu_mul": lambda x, r: x * special.expit(x) * r,
    "plain": lambda x, r: x,
    "others": lambda x, r: x,
}


@cache
def products() -> Library:
    return build(SOURCE)


def run(
    name: str,
    extents: tuple[int, int, int, int],
    b: str = "C",
    *,
    bias: bool = True,
    in_place: bool = False,
    padding: int = 8,
    scale: float = 1.0,
) -> str:
    """Compares one product with float64; gives the sentence about a failure instead, if any.

    Args:
        name: of `SOURCE`.
        extents: batch, rows, columns, depth.
        b: whether B is stored by rows (``C``) or by columns (``F``).
        bias: whether there is one.
        in_place: whether the residual is c.
        padding: elements behind every row of A, B and c.
        scale: of the sums.
    """
    batch, rows, columns, depth = extents
    library, kind = products(), ml_dtypes.bfloat16 if name == "gelu_add" else np.float16
    random = np.random.default_rng(sum(extents))
    left = (random.standard_normal((batch, rows, depth)) / np.sqrt(depth)).astype(kind)
    right = random.standard_normal((batch, depth, columns)).astype(kind)
    shift = random.standard_normal(columns).astype(kind)
    other = random.standard_normal((batch, rows, columns)).astype(kind)
    stored = [left, right if b == "C" else right.swapaxes(1, 2), other]
    place_a, place_b, place_c = (padded(library, array, padding) for array in stored)
    widths = [place.shape[2] for place in (place_a, place_b, place_c)]
    sizes = [*extents, widths[0], 1, rows * widths[0]]
    sizes += [widths[1], 1] if b == "C" else [1, widths[1]]
    sizes += [place_b[0].size, widths[2], rows * widths[2]]
    sizes += [widths[2], rows * widths[2]] if in_place else [columns, rows * columns]
    s, why = library.copy(np.array(sizes, np.int64)), library.copy(np.zeros(256, np.uint8))
    residual = place_c if in_place else library.copy(other)
    vector = library.copy(shift) if bias else None
    library.call(name, place_a, place_b, place_c, vector, residual, s, scale, why)
    sentence = why.tobytes().split(b"\0")[0].decode()
    if not sentence:
        sums = scale * (left.astype(np.float64) @ right.astype(np.float64))
        wide = EPILOGUES[name](sums + bias * shift.astype(np.float64), other.astype(np.float64))
        assert_close(place_c[..., :columns], wide.astype(kind))
        assert (place_c[..., columns:] == np.array(7, kind)).all(), "columns beside c are written"
    return sentence


def padded(library: Library, array: np.ndarray, padding: int) -> np.ndarray:
    """A copy with sevens behind each row."""
    batch, rows, columns = array.shape
    place = library.array((batch, rows, columns + padding), array.dtype)
    place[...] = np.array(7, array.dtype)
    place[..., :columns] = array
    return place


@emulated
@pytest.mark.parametrize("b", ["C", "F"])
@pytest.mark.parametrize("name", ["gelu_add", "silu_mul", "plain"])
def test_strides_batches_and_epilogues(name: str, b: str) -> None:
    assert run(name, (3, 65, 24, 16), b, scale=0.5) == ""
    assert run(name, (1, 130, 8, 72), b, bias=False) == ""


@emulated
def test_a_residual_that_is_the_result() -> None:
    assert run("gelu_add", (2, 70, 16, 8), in_place=True) == ""


@emulated
@pytest.mark.parametrize(
    ("extents", "padding"),
    [((1, 64, 16, 16), 8), ((1, 70, 12, 16), 8), ((1, 70, 16, 12), 8), ((2, 70, 16, 16), 3)],
    ids=["few rows", "columns", "depth", "strides"],
)
def test_what_cutlass_does_not_take(extents: tuple[int, int, int, int], padding: int) -> None:
    assert "was not compiled for" in run("plain", extents, padding=padding)
    assert run("others", extents, padding=padding) == ""


def lowered(
    x: str, w: str, y: str, target: str = "cuda:sm_90", inputs: str = "weight @w"
) -> Lowered:
    """relu(x)·w; relu's result certainly begins at 16 bytes."""
    source = product_text(x=x, w=w, y=y).replace("input @w", inputs)
    source = source.replace("matmul @x,", "matmul %0,")
    source = source.replace("    @y", f"    %0: {x} = relu @x\n    %1: {y} = matmul %0, @w\n    @y")
    source = source.replace(f"@y: {y} = matmul %0, @w", f"@y: {y} = relu %1")
    return lower(parse(source), parse_target(target), {"matmul": "cutlass"})


@pytest.mark.parametrize(
    ("rows", "columns", "tile"),
    [(4096, 1024, "WIDE"), (4096, 4096, "WIDE"), (128, 768, "NARROW"), (2048, 1024, "NARROW")],
)
def test_a_tile_for_each_product_of_numbers(rows: int, columns: int, tile: str) -> None:
    found = lowered(f"bf16[{rows}, 64]", f"bf16[64, {columns}]", f"bf16[{rows}, {columns}]")
    (instance,) = found.instances["gemm_cutlass"]
    assert f"Residual::none, dfc::cuda::CUTLASS_{tile}, dfc::cuda::WIDTH>" in instance
    (kernel,) = found.instances["cutlass_tiles"]
    assert f"cutlass_tiles<__nv_bfloat16, dfc::cuda::Cutlass{tile.title()}," in kernel


def test_rows_that_vary_have_both_tiles_a_unit_each() -> None:
    found = lowered("f16[S, 64]", "f16[64, 32]", "f16[S, 32]")
    (instance,) = found.instances["gemm_cutlass"]
    assert "CUTLASS_WIDE | dfc::cuda::CUTLASS_NARROW, dfc::cuda::WIDTH | " in instance
    assert "VECTOR | dfc::cuda::FEW | dfc::cuda::MEDIUM | dfc::cuda::LARGE>" in instance
    units = [u for u in family_units(found.instances) if u.needs_cutlass]
    assert len({u.name for u in units}) == 2
    assert all(u.files[u.source].count("template cudaError_t") == 1 for u in units)


def test_the_record_names_tile_and_epilogue() -> None:
    (record,) = (k for k in lowered("bf16[S, 64]", "bf16[64, 32]", "bf16[S, 32]").kernels[1:2])
    assert record.implementation == "cutlass gemm bf16 128x256x64 or 64x128x64 wgmma"
    assert record.reason == "asked for; native up to 64 rows"


@pytest.mark.parametrize(
    ("x", "w", "y", "why"),
    [
        ("bf16[64, 64]", "bf16[64, 32]", "bf16[64, 32]", "64 rows are not more than 64"),
        ("bf16[S, 60]", "bf16[60, 32]", "bf16[S, 32]", "the depth, 60, is no multiple of 8"),
        ("bf16[S, 64]", "bf16[64, 30]", "bf16[S, 30]", "the number of columns, 30, is no"),
        ("bf16[3, 2, 5, 70, 8]", "bf16[3, 1, 5, 8, 8]", "bf16[3, 2, 5, 70, 8]", ""),
        ("bf16[2, 70, 8]", "bf16[1, 8, 8]", "bf16[2, 70, 8]", ""),
    ],
)
def test_what_cutlass_cannot_take_is_native_and_says_so(x: str, w: str, y: str, why: str) -> None:
    found = lowered(x, w, y)
    (reason,) = (k.reason for k in found.kernels if "gemm" in k.implementation)
    assert ("gemm" in found.instances) == bool(why)
    assert reason.startswith(f"not cutlass, because {why}" if why else "asked for")


@pytest.mark.parametrize(("dtype", "target"), [("bf16", "cuda:sm_80"), ("f32", "cuda:sm_90")])
def test_other_targets_and_types_are_refused(dtype: str, target: str) -> None:
    shapes = (f"{dtype}[128, 64]", f"{dtype}[64, 32]", f"{dtype}[128, 32]")
    with pytest.raises(UnsupportedError, match="cutlass is for bf16 or f16 on sm_90; this is"):
        lowered(*shapes, target=target)
