"""Attention kernels of GPUs in emulation, against float64."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cuda_attention import Case, attention_source, normal
from tests.cuda_emulation import Library, build, toolkit
from tests.nvcc_spills import spills_of
from tests.tolerances import assert_close

pytestmark = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")

KINDS = [("none", False), ("none", True), ("bool", False), ("bool", True), ("float", False)]
PADDED = [*(("float32", w) for w in (32, 64, 128, 160)), *(("bfloat16", w) for w in (32, 64, 128))]
INSTANCES = [(t, m, w, c) for t, w in [*PADDED, ("float16", 64)] for m, c in KINDS]


@cache
def kernels() -> Library:
    """The attention kernels behind C functions."""
    return build(attention_source("attention", [*INSTANCES, ("float64", "none", 64, True)]))


def case(*sizes: Any, **options: Any) -> Case:
    """Random operands for the kernels; see `Case.of`."""
    return Case.of(kernels(), *sizes, **options)


TILED = ["float32", "bfloat16"]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("width", [32, 64, 128])
@pytest.mark.parametrize("dtype", TILED)
def test_widths(dtype: str, width: int, causal: bool) -> None:
    case(dtype, (2, 2), 70, 70, (width, width), batch=2, causal=causal).check()


@pytest.mark.parametrize("sizes", [(1, 1), (7, 31), (17, 129), (130, 65), (5, 341)])
@pytest.mark.parametrize("dtype", TILED)
def test_odd_lengths(dtype: str, sizes: tuple[int, int]) -> None:
    case(dtype, (1, 1), *sizes, (64, 64), batch=2).check()
    case(dtype, (1, 1), *sizes, (64, 64), causal=True).check()


@pytest.mark.parametrize("widths", [(7, 7), (24, 40), (80, 48), (100, 33)])
@pytest.mark.parametrize("dtype", TILED)
def test_widths_between(dtype: str, widths: tuple[int, int]) -> None:
    case(dtype, (1, 1), 19, 37, widths).check()


def test_half() -> None:
    case("float16", (2, 1), 33, 90, (64, 64), causal=True).check()


@pytest.mark.parametrize("dtype", TILED)
@pytest.mark.parametrize("heads", [(4, 2), (6, 1), (8, 2)])
def test_grouped_queries(heads: tuple[int, int], dtype: str) -> None:
    case(dtype, heads, 21, 40, (64, 64), batch=2, causal=True).check()


@pytest.mark.parametrize("dtype", TILED)
@pytest.mark.parametrize("heads", [(1, 1), (8, 2)])
def test_decoding_splits_the_keys(heads: tuple[int, int], dtype: str) -> None:
    case(dtype, heads, 1, 900, (64, 64)).check()
    case(dtype, heads, 2, 515, (128, 128), causal=True).check()
    mask = np.ones((1, 1, 1, 700), np.bool_)
    mask[..., 300:] = False  # whole parts see nothing
    case(dtype, heads, 1, 700, (64, 64), mask=mask).check()


@pytest.mark.parametrize("dtype", TILED)
@pytest.mark.parametrize("shape", [(2, 1, 1, 75), (2, 2, 40, 75), (1, 1, 40, 75), (2, 1, 40, 1)])
def test_masks(shape: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(3)
    shown = rng.random(shape) < 0.6
    case(dtype, (2, 2), 40, 75, (64, 64), batch=2, mask=shown).check()
    case(dtype, (2, 2), 40, 75, (64, 64), batch=2, mask=shown, causal=True).check()
    added = np.where(shown, rng.normal(size=shape), -np.inf).astype(np.float32)
    case(dtype, (2, 2), 40, 75, (64, 64), batch=2, mask=added).check()


@pytest.mark.parametrize("dtype", TILED)
def test_rows_that_see_nothing_are_zero(dtype: str) -> None:
    mask = np.ones((1, 1, 30, 50), np.bool_)
    mask[:, :, 5:9] = False
    small = case(dtype, (1, 1), 30, 50, (64, 64), mask=mask)
    small.check()
    assert not small.run()[:, :, 5:9].any()
    more_queries = case(dtype, (1, 1), 50, 20, (64, 64), causal=True)
    more_queries.check()
    assert not more_queries.run()[:, :, :30].any()


@pytest.mark.parametrize("dtype", TILED)
def test_nan_and_infinity_stay_in_their_rows(dtype: str) -> None:
    found = case(dtype, (1, 1), 24, 40, (64, 64))
    found.q[0, 0, 3, 5] = np.nan
    found.q[0, 0, 7, 5] = np.inf
    o, expected = found.run(), found.expected()
    np.testing.assert_array_equal(np.isnan(o), np.isnan(expected))
    assert np.isnan(o[0, 0, [3, 7]]).all()


@pytest.mark.parametrize("dtype", TILED)
def test_keys_that_nobody_sees_do_not_matter(dtype: str) -> None:
    shown = np.ones((1, 1, 1, 200), np.bool_)
    shown[..., 128:] = False
    spoilt = case(dtype, (1, 1), 20, 200, (64, 64), mask=shown)
    spoilt.k[:, :, 128:] = np.nan
    spoilt.v[:, :, 128:] = np.nan
    clean = case(dtype, (1, 1), 20, 200, (64, 64), mask=shown)
    np.testing.assert_array_equal(spoilt.run(), clean.run())


@pytest.mark.parametrize("dtype", TILED)
def test_the_end_of_a_cache_is_not_read(dtype: str) -> None:
    shown = np.ones((1, 1, 1, 700), np.bool_)
    shown[..., 301:] = False
    added = np.where(shown, 0, -np.inf).astype(np.float32)
    for heads, queries, mask in (((1, 1), 1, shown), ((8, 4), 40, shown), ((8, 4), 40, added)):
        cache = case(dtype, heads, queries, 700, (64, 64), mask=mask)
        expected = cache.expected()
        cache.k[:, :, 301:] = np.nan
        cache.v[:, :, 301:] = np.nan
        assert_close(cache.run(), expected)


@pytest.mark.parametrize("dtype", TILED)
def test_transposed_operands(dtype: str) -> None:
    q, k, v = (normal(1, 20, 2, 64, dtype=dtype, seed=i).transpose(0, 2, 1, 3) for i in range(3))
    Case(kernels(), q, k, v).check()
    columns = normal(1, 2, 64, 20, dtype=dtype).transpose(0, 1, 3, 2)
    Case(kernels(), q, columns, v).check()


def test_a_warp_a_row() -> None:
    case("float32", (2, 1), 9, 21, (150, 130), causal=True).check()
    mask = np.random.default_rng(5).random((1, 2, 9, 21)) < 0.7
    case("float32", (2, 1), 9, 21, (160, 160), mask=mask).check()
    case("float64", (2, 1), 9, 21, (64, 64), causal=True).check()


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is missing")
@pytest.mark.parametrize("arch", ["80", "90a"])
def test_nvcc_compiles_the_kernels_without_spills(arch: str, tmp_path: Path) -> None:
    """The widest tiles of each kind, which take most registers."""
    calls = (("float", "NoMask", 128, "true"), ("__nv_bfloat16", "bool", 64, "false"))
    lines = ['#include "cuda/attention.cuh"', "using namespace dfc::cuda;"]
    for dtype, mask, width, causal in calls:
        call = f"attention<{dtype}, {mask}, {width}, {causal}>"
        operand = f"Attention<{dtype}, {mask}>"
        lines.append(f"template cudaError_t dfc::cuda::{call}(cudaStream_t, {operand});")
    spills = spills_of(lines, arch, tmp_path)
    assert spills == [(0, 0)] * 6  # of each type: large and small tiles, and what merges the parts
