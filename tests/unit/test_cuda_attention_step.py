"""Attention of few new tokens over a cache on a GPU, emulated, against float64."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir import interpret, parse
from dfcompiler.lowering import lower
from dfcompiler.target import parse_target
from tests.cuda_emulation import emulated_model, toolkit
from tests.nvcc_spills import spills_of
from tests.tolerances import assert_close

emulated = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")

TURNED = """program turned(B, P) {{
  input @x: {T}[B, 2, 4, {D}]
  input @cos: {T}[2, {H}]
  input @sin: {T}[2, {H}]
  input @k: {T}[B, 1, P, {D}]
  input @v: {T}[B, 1, P, {D}]
  output @o: {T}[B, 2, 2, {D}]
  state main {{
    %1: {T}[B, 2, 2, {D}] = slice @x {{starts = [0, 0, 0, 0]}}
    %2: {T}[B, 2, 1, {D}] = slice @x {{starts = [0, 0, 2, 0]}}
    %3: {T}[B, 2, 1, {D}] = slice @x {{starts = [0, 0, 3, 0]}}
    %4: {T}[B, 2, 2, {D}] = transpose %1 {{perm = [0, 2, 1, 3]}}
    %5: {T}[B, 1, 2, {D}] = transpose %2 {{perm = [0, 2, 1, 3]}}
    %6: {T}[B, 1, 2, {D}] = transpose %3 {{perm = [0, 2, 1, 3]}}
    @o: {T}[B, 2, 2, {D}] = fused %4, @cos, @sin, %5, @k, @v, %6 {{kernel = "attention"}} do
      %.0: {T}[B, 2, 2, {D}] = rotary %4, @cos, @sin{turn}
      %.1: {T}[B, 1, 2, {D}] = rotary %5, @cos, @sin{turn}
      %.2: {T}[B, 1, P + 2, {D}] = concat @k, %.1 {{axis = 2}}
      %.3: {T}[B, 1, P + 2, {D}] = concat @v, %6 {{axis = 2}}
      %.4: {T}[B, 2, 2, {D}] = attention %.0, %.2, %.3 {{causal = true, scale = 0.3}}
    end
  }}
}}"""
PLAIN = """program plain(P) {{
  input @q: {T}[1, 6, 1, {D}]
  input @k: {T}[1, 2, P, {D}]
  input @v: {T}[1, 2, P, {D}]
  input @a: {T}[1, 2, 1, {D}]
  input @b: {T}[1, 2, 1, {D}]
  output @o: {T}[1, 6, 1, {D}]
  state main {{
    @o: {T}[1, 6, 1, {D}] = fused @q, @k, @a, @v, @b {{kernel = "attention"}} do
      %.0: {T}[1, 2, P + 1, {D}] = concat @k, @a {{axis = 2}}
      %.1: {T}[1, 2, P + 1, {D}] = concat @v, @b {{axis = 2}}
      %.2: {T}[1, 6, 1, {D}] = attention @q, %.0, %.1 {{scale = 0.3}}
    end
  }}
}}"""
INTERLEAVED = " {interleaved = true}"
KINDS = [("bf16", 64, ""), ("f16", 32, INTERLEAVED), ("f32", 128, ""), ("f32", 32, INTERLEAVED)]


def filled(text: str, dtype: str, width: int, turn: str = "") -> str:
    return text.format(T=dtype, D=width, H=width // 2, turn=turn)


def check(source: str, bindings: dict[str, int]) -> None:
    model = emulated_model(source)
    rng = np.random.default_rng(list(bindings.values()))
    given = {
        c.name: rng.normal(size=[bindings.get(str(d), d) for d in c.type.shape]).astype(
            c.type.dtype.numpy
        )
        for c in model.program.inputs
    }
    expected = interpret(model.program, given, precision=np.dtype(np.float64))
    for name, found in model.run(given).items():
        assert_close(found, expected[name].astype(found.dtype), name)


@emulated
@pytest.mark.parametrize(("batch", "past"), [(1, 1), (2, 62), (1, 63), (3, 200), (1, 1500)])
@pytest.mark.parametrize(("dtype", "width", "turn"), KINDS)
def test_rotated_causal_queries(dtype: str, width: int, turn: str, batch: int, past: int) -> None:
    check(filled(TURNED, dtype, width, turn), {"B": batch, "P": past})


@emulated
@pytest.mark.parametrize("past", [1, 63, 64, 700])
def test_rows_that_are_no_power_of_two(past: int) -> None:
    check(filled(PLAIN, "bf16", 128), {"P": past})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("@q: bf16[1, 6, 1", "@q: bf16[1, 18, 1"), "9 queries read one key head; the kernel ends"),
        (("{axis = 2}", "{axis = 3}"), "are not two parts along their axis"),
        (("64]", "48]"), "heads of 48 elements; there are kernels for"),
    ],
)
def test_what_has_no_kernel_is_refused(change: tuple[str, str], said: str) -> None:
    source = filled(PLAIN, "bf16", 64).replace("(P)", "()").replace("P + 1", "9")
    source = source.replace("P, ", "8, ").replace(*change).replace("[1, 6, 1", "[1, 18, 1")
    if "18" not in change[1]:
        source = source.replace("[1, 18, 1", "[1, 6, 1")
    with pytest.raises(UnsupportedError, match=said):
        lower(parse(source), parse_target("cuda:sm_90"))


@pytest.mark.parametrize(
    ("asked", "said"), [("native", ""), ("wgmma", "; wgmma has no such kernel")]
)
def test_the_record_tells_what_is_read_where(asked: str, said: str) -> None:
    program = parse(filled(TURNED, "bf16", 64))
    lowered = lower(program, parse_target("cuda:sm_90"), {"attention": asked})
    (kernel,) = [one for one in lowered.kernels if "attention" in one.implementation]
    assert kernel.implementation == "native attention step bf16 64"
    assert kernel.reason == (
        f"up to 4 rows of a key head; new keys, rotated in halves are read beside the cache{said}"
    )


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is missing")
def test_nvcc_compiles_the_kernels_without_spills(tmp_path: Path) -> None:
    kinds = ["__nv_bfloat16, 64, 4", "__nv_bfloat16, 128, 8"]
    lines = ['#include "cuda/attention_step.cuh"', "using namespace dfc::cuda;"]
    lines += [
        f"template cudaError_t dfc::cuda::attention_step<{kind}, Rotation::halves, true>"
        f"(cudaStream_t, AttentionStep<{kind.split(',')[0]}>);"
        for kind in kinds
    ]
    assert spills_of(lines, "90a", tmp_path) == [(0, 0)] * len(kinds)
