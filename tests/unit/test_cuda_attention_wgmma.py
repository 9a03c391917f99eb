"""Attention by warp groups, in emulation against float64."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir import interpret, parse, verify
from dfcompiler.lowering import lower
from dfcompiler.target import parse_target
from tests.cuda_attention import DTYPES, Case, attention_source
from tests.cuda_emulation import Library, build, emulated_model, toolkit
from tests.nvcc_spills import spills_of
from tests.tolerances import assert_close

pytestmark = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")

INSTANCES = [
    ("bfloat16", "none", 64, False),
    ("bfloat16", "none", 64, True),
    ("bfloat16", "bool", 64, False),
    ("bfloat16", "float", 128, True),
    ("float16", "none", 128, True),
]
# The emulated GPU has four multiprocessors, so a fifth tile of rows is a block's second one. What
# makes less than three tiles is left to other kernels.


@cache
def kernels() -> Library:
    return build(attention_source("attention_wgmma", INSTANCES))


def case(*sizes: Any, **options: Any) -> Case:
    """Random operands for the kernels; see `Case.of`."""
    return Case.of(kernels(), *sizes, **options, padded=(64, 128))


def check(one: Case) -> None:
    """Its result, and that warp groups made it."""
    one.check()
    assert "attend_by_wgmma" in kernels().last_kernel


@pytest.mark.parametrize("sizes", [(200, 300), (65, 128), (192, 1)], ids=str)
def test_lengths(sizes: tuple[int, int]) -> None:
    check(case("bfloat16", (2, 2), *sizes, (64, 64), batch=2))


@pytest.mark.parametrize("sizes", [(260, 260), (70, 330), (300, 140)], ids=str)
def test_causal_tails_and_offsets(sizes: tuple[int, int]) -> None:
    check(case("bfloat16", (3, 3), *sizes, (64, 64), causal=True))
    check(case("float16", (3, 3), *sizes, (128, 128), causal=True))


@pytest.mark.parametrize("widths", [(24, 40), (48, 64), (80, 128), (128, 72)], ids=str)
def test_widths_between(widths: tuple[int, int]) -> None:
    dtype = "bfloat16" if max(widths) <= 64 else "float16"
    check(case(dtype, (3, 3), 66, 150, widths, causal=True))


@pytest.mark.parametrize("heads", [(8, 2), (6, 2), (5, 1)], ids=str)
def test_grouped_queries(heads: tuple[int, int]) -> None:
    check(case("bfloat16", heads, 70, 140, (64, 64), batch=2, causal=True))
    check(case("float16", heads, 70, 140, (128, 128), batch=2, causal=True))


def padding(*spans: tuple[int, int], keys: int) -> np.ndarray:
    """Of each batch index: the keys that are shown."""
    shown = np.zeros((len(spans), 1, 1, keys), np.bool_)
    for row, (begin, end) in zip(shown, spans, strict=True):
        row[..., begin:end] = True
    return shown


def test_padding_is_not_read() -> None:
    shown = padding((0, 400), (0, 0), (0, 130), (256, 300), keys=400)
    clean = case("bfloat16", (2, 2), 70, 400, (64, 64), batch=4, mask=shown)
    expected = clean.expected()
    spoilt = replace(clean, k=clean.k.copy(), v=clean.v.copy())
    hidden = np.broadcast_to(~shown[:, :, 0], clean.k.shape[:3])
    spoilt.k[hidden] = np.nan
    spoilt.v[hidden] = np.nan
    assert_close(spoilt.run(), expected)
    assert "attend_by_wgmma" in kernels().last_kernel


def test_added_padding_of_grouped_queries() -> None:
    shown = padding((0, 90), (130, 200), keys=200)
    random = np.random.default_rng(4)
    added = np.where(shown, random.normal(size=shown.shape), -np.inf).astype(np.float32)
    check(case("bfloat16", (4, 2), 80, 200, (128, 128), batch=2, mask=added, causal=True))


@pytest.mark.parametrize("shape", [(2, 2, 80, 150), (1, 1, 80, 150), (2, 1, 80, 1)], ids=str)
def test_masks_of_rows(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(3)
    shown = random.random(shape) < 0.6
    check(case("bfloat16", (2, 2), 80, 150, (64, 64), batch=2, mask=shown))
    added = np.where(shown, random.normal(size=shape), -np.inf).astype(np.float32)
    check(case("bfloat16", (2, 2), 80, 150, (128, 128), batch=2, mask=added, causal=True))


def test_rows_in_front_of_heads() -> None:
    one = case("bfloat16", (3, 3), 70, 140, (64, 64), batch=2)
    q, k, v = (np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (one.q, one.k, one.v))
    check(replace(one, q=q, k=k, v=v))


def test_a_negative_scale() -> None:
    check(replace(case("bfloat16", (3, 3), 66, 140, (64, 64)), scale=-0.25))


def test_nan_and_infinity_stay_in_their_rows() -> None:
    found = case("bfloat16", (3, 3), 70, 140, (64, 64))
    found.q[0, 0, 3, 5] = np.nan
    found.q[0, 0, 67, 5] = np.inf
    o, expected = found.run(), found.expected()
    np.testing.assert_array_equal(np.isnan(o), np.isnan(expected))
    assert np.isnan(o[0, 0, [3, 67]]).all()


def test_what_has_few_rows_or_no_map_is_left_to_others() -> None:
    few = case("bfloat16", (3, 3), 63, 140, (64, 64))
    few.check()
    assert "attend_by_wgmma" not in kernels().last_kernel
    odd = case("bfloat16", (3, 3), 70, 140, (60, 64))
    odd.check()
    assert "attend_by_wgmma" not in kernels().last_kernel


WIDEST = """#include "cuda/attention_wgmma.cuh"
using namespace dfc::cuda;
#define LAUNCHER(T, M, width, causal)                                                            \\
  template cudaError_t flash::attend_by_warp_groups<flash::WgmmaShapeOf<width, M>, causal, T, M>( \\
      cudaStream_t, Attention<T, M>, const TensorBoxes(&)[3], int, int);
LAUNCHER(__nv_bfloat16, NoMask, 64, true)
LAUNCHER(__nv_bfloat16, float, 64, true)
LAUNCHER(__half, bool, 128, true)
"""


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is missing")
def test_nvcc_compiles_the_kernels_without_spills(tmp_path: Path) -> None:
    """Nor does ptxas wait for products on its own."""
    assert spills_of([WIDEST], "90a", tmp_path) == [(0, 0)] * 3


MERGED = """
program merged(B, S) {
  input @qkv: bf16[B, S, 3, 3, 64]
  output @o: bf16[B, 3, S, 64]
  state main {
    %0: bf16[3, B, 3, S, 64] = transpose @qkv {perm = [2, 0, 3, 1, 4]}
    %1: bf16[1, B, 3, S, 64] = slice %0 {starts = [0, 0, 0, 0, 0]}
    %2: bf16[1, B, 3, S, 64] = slice %0 {starts = [1, 0, 0, 0, 0]}
    %3: bf16[1, B, 3, S, 64] = slice %0 {starts = [2, 0, 0, 0, 0]}
    %4: bf16[B, 3, S, 64] = reshape %1
    %5: bf16[B, 3, S, 64] = reshape %2
    %6: bf16[B, 3, S, 64] = reshape %3
    @o: bf16[B, 3, S, 64] = attention %4, %5, %6 {scale = 0.125, causal = true}
  }
}
"""
ONE = """
program one(S) {{
  input @q: {T}[1, 2, {S}, {D}]
  output @o: {T}[1, 2, {S}, {D}]
  state main {{
    @o: {T}[1, 2, {S}, {D}] = attention @q, @q, @q {{scale = 0.125}}
  }}
}}
"""
BY_WARP_GROUPS = {"attention": "wgmma"}


def test_slices_of_a_merged_product() -> None:
    model = emulated_model(MERGED, expansions=BY_WARP_GROUPS)
    (record,) = (k for k in model.lowered.kernels if k.op.kind == "attention")
    assert record.implementation == "native attention bf16 64 by wgmma"
    qkv = np.random.default_rng(7).normal(size=(2, 70, 3, 3, 64)).astype(DTYPES["bfloat16"])
    expected = interpret(model.program, {"qkv": qkv}, precision=np.dtype(np.float64))
    assert_close(model.run({"qkv": qkv})["o"], expected["o"].astype(qkv.dtype))


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"S": 63, "D": 64}, "63 rows of a key head are less than 64: not by wgmma"),
        ({"S": 70, "D": 60}, "rows of q are not aligned to 16 bytes: not by wgmma"),
    ],
)
def test_what_is_known_not_to_fit_says_so(sizes: dict[str, int], reason: str) -> None:
    program = verify(parse(ONE.format(T="bf16", **sizes)))
    lowered = lower(program, parse_target("cuda:sm_90"), BY_WARP_GROUPS)
    (record,) = (k for k in lowered.kernels if k.op.kind == "attention")
    assert record.reason.startswith(reason)


@pytest.mark.parametrize(
    ("dtype", "width", "target", "found"),
    [
        ("f32", 64, "cuda:sm_90", "this is f32, heads of 64, on cuda:sm_90"),
        ("bf16", 160, "cuda:sm_90", "this is bf16, heads of 160, on cuda:sm_90"),
        ("bf16", 64, "cuda:sm_80", "this is bf16, heads of 64, on cuda:sm_80"),
    ],
)
def test_others_are_refused(dtype: str, width: int, target: str, found: str) -> None:
    program = verify(parse(ONE.format(T=dtype, S="S", D=width)))
    with pytest.raises(UnsupportedError, match=found):
        lower(program, parse_target(target), BY_WARP_GROUPS)
