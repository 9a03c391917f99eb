"""Programs with selected layouts, compiled: kernels read and write values in the orders chosen."""

from __future__ import annotations

import numpy as np
import pytest
from compile_sdfg import Compiled

from dfcompiler.ir import Program, interpret, parse, verify
from dfcompiler.pipeline import assemble
from dfcompiler.target import parse_target
from tests.tolerances import assert_close

HEADS = """program heads(B, S) {
  input @q: f32[B, S, 3, 8]
  input @k: f32[B, 3, S, 8]
  input @v: f32[B, 3, S, 8]
  output @y: f32[B, S, 24]
  output @z: f32[3, S, 8]
  state main {
    %0: f32[B, 3, S, 8] = transpose @q {perm = [0, 2, 1, 3]}
    %1: f32[B, 3, 8, S] = transpose @k {perm = [0, 1, 3, 2]}
    %2: f32[B, 3, S, S] = matmul %0, %1
    %3: f32[B, 3, S, S] = softmax %2 {axis = 3}
    %4: f32[B, 3, S, 8] = matmul %3, @v
    %5: f32[B, S, 3, 8] = transpose %4 {perm = [0, 2, 1, 3]}
    @y: f32[B, S, 24] = reshape %5
    %6: f32[1, 3, S, 8] = slice %0 {starts = [0, 0, 0, 0]}
    %7: f32[3, S, 8] = reshape %6
    @z: f32[3, S, 8] = exp %7
  }
}"""

RESIDUAL = """program residual(B, S) {
  input @x: f32[B, S, 3, 8]
  input @r: f32[B, 3, S, 8]
  output @y: f32[B, S, 3, 8]
  output @z: f32[B, 3, S, 8]
  state main {
    %0: f32[B, 3, S, 8] = transpose @x {perm = [0, 2, 1, 3]}
    %1: f32[B, 3, S, 8] = attention %0, %0, @r {scale = 0.5}
    %2: f32[B, S, 3, 8] = transpose %1 {perm = [0, 2, 1, 3]}
    @y: f32[B, S, 3, 8] = add %2, @x
    %3: f32[B, 3, S, 8] = add %1, %0
    @z: f32[B, 3, S, 8] = softmax %3 {axis = 3}
  }
}"""


def selected(text: str) -> Program:
    passes = ["select-layout", "plan-buffers"]
    return assemble(passes, parse_target("cpu")).run(verify(parse(text))).program


@pytest.mark.parametrize("text", [HEADS, RESIDUAL], ids=["heads", "residual"])
def test_layouts_that_were_selected_run(text: str) -> None:
    before = verify(parse(text))
    after = selected(text)
    permuted = [op for op in after.ops() if not op.type.layout.is_row_major]
    assert len(permuted) >= 2
    compiled = Compiled(after)
    rng = np.random.default_rng(0)
    for sizes in ({"B": 1, "S": 1}, {"B": 2, "S": 7}, {"B": 1, "S": 33}):
        inputs = {
            c.name: rng.standard_normal([sizes.get(str(d), d) for d in c.type.shape]).astype("f4")
            for c in before.inputs
        }
        expected, found = interpret(before, inputs), compiled.run(inputs)
        for name, values in expected.items():
            assert_close(found[name], values)
