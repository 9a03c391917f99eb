"""Kernels that the memory bounds, through nvcc: loads of 16 bytes stand together, nothing spills.

A load behind a branch waits for the one before it, when that is widened at once. How many stand
together times 16 bytes times the threads of a multiprocessor is what is under way.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest

from dfcompiler.ir import parse, verify
from tests.cuda_check import maps_text
from tests.machine_code import MachineCode, machine_code

PROGRAM = """
program memory_bound() {
  input @x: bf16[65536, 1024]
  input @r: bf16[65536, 1024]
  input @g: bf16[1024]
  input @q: bf16[8, 512, 32, 128]
  input @angles: bf16[8, 512, 1, 64]
  input @ids: i64[8, 2048]
  input @heads: f32[65536, 128]
  output @normalized: bf16[65536, 1024]
  output @soft: bf16[65536, 1024]
  output @head: f32[65536, 128]
  output @gated: bf16[65536, 1024]
  output @biased: bf16[65536, 1024]
  output @rotated: bf16[8, 512, 32, 128]
  output @embedded: bf16[8, 2048, 1024]
  output @row: bf16[65536]
  output @column: bf16[1024]
  output @first: i64[65536]
  state main {
    @normalized: bf16[65536, 1024] = fused @x, @r, @g, @g {kernel = "row"} do
      %.0: bf16[65536, 1024] = add @x, @r
      %.1: bf16[65536, 1024] = layer_norm %.0, @g, @g {epsilon = 1e-06}
    end
    @soft: bf16[65536, 1024] = softmax @x {axis = 1}
    @head: f32[65536, 128] = rms_norm @heads {epsilon = 1e-06}
    @gated: bf16[65536, 1024] = fused @x, @r {kernel = "elementwise"} do
      %.0: bf16[65536, 1024] = silu @x
      %.1: bf16[65536, 1024] = mul %.0, @r
    end
    @biased: bf16[65536, 1024] = add @x, @g
    @rotated: bf16[8, 512, 32, 128] = rotary @q, @angles, @angles {pairs = "halves"}
    @embedded: bf16[8, 2048, 1024] = gather @x, @ids {axis = 0}
    @row: bf16[65536] = reduce_max @x {axes = [1]}
    @column: bf16[1024] = reduce_mean @x {axes = [0]}
    @first: i64[65536] = argmax @x {axis = 1}
  }
}
"""
# Loads of 16 bytes without a branch between them, stores of 16 bytes.
ACCESSES = {
    "layer_norm": (8, 4),  # 4 packs of 2 operands a lane
    "softmax": (4, 4),
    "rms_norm": (1, 1),  # a warp holds a row of 512 bytes
    "fused": (1, 1),  # packs are not widened before both are loaded
    "add": (1, 1),
    "rotary": (3, 2),  # both halves, and one load for the two tables that are the same here
    "gather": (1, 1),
    "reduce_max": (4, 0),
    "reduce_mean": (4, 0),
    "reduce_mean_parts": (1, 0),
    "argmax": (4, 0),
}
MOST_REGISTERS = 64
"""With 1024 threads of them a multiprocessor has 64 KB under way at 4 loads a thread."""


@cache
def compiled() -> dict[str, MachineCode]:
    """The kernels of the program."""
    with tempfile.TemporaryDirectory() as folder:
        return machine_code(maps_text(verify(parse(PROGRAM))), "90a", Path(folder))


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is missing")
@pytest.mark.parametrize("kernel", ACCESSES)
def test_accesses_are_whole_and_stand_together(kernel: str) -> None:
    found = compiled()[kernel]
    together, stores = ACCESSES[kernel]
    assert found.spilled_bytes == 0
    assert found.together >= together
    assert found.stores >= stores
    assert found.registers <= MOST_REGISTERS
