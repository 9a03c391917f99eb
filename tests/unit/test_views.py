"""Operators that read a part of another value where it lies: no copy, the right elements."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from compile_sdfg import Compiled

from dfcompiler.ir import Program, interpret, parse
from passes.plan_buffers import PlanBuffers

RNG = np.random.default_rng(4)
VIEWS = """
    %part: f32[2, S, 24] = slice @x {starts = [0, 0, 25]}
    %heads: f32[2, S, 3, 8] = reshape %part
    %h: f32[2, 3, S, 8; 0 2 1 3] = transpose %heads {perm = [0, 2, 1, 3]}
    %last: f32[2, 1, 24] = slice %part {starts = [0, S - 1, 0]}
    %row: f32[2, 24] = reshape %last
    %w1: f32[1, 24, 24] = slice @w {starts = [1, 0, 0]}
    %w: f32[24, 24] = reshape %w1
    %b1: f32[1, 24] = slice @b {starts = [2, 0]}
    %b: f32[24] = reshape %b1
    %i1: i64[1, 5] = slice @i {starts = [1, 0]}
    %i: i64[5] = reshape %i1
"""
CONSUMERS = {
    "matmul": "f32[2, S, 24] = matmul %part, %w",
    "matmul_transposed": "f32[2, 3, S, S] = matmul %h, %h2",
    "linear": """f32[2, S, 24] = fused %part, %w, %b {kernel = "linear"} do
      %p: f32[2, S, 24] = matmul %part, %w
      %q: f32[2, S, 24] = add %p, %b
      %g: f32[2, S, 24] = gelu %q
      @y: f32[2, S, 24] = add %g, %part
    end""",
    "attention": "f32[2, 3, S, 8] = attention %h, %h, %h {scale = 0.4, causal = true}",
    "masked": "f32[2, 3, S, 8] = attention %h, %h, %h, %m {scale = 0.4}",
    "rotary": "f32[2, 3, S, 8] = rotary %h, %c, %c",
    "elementwise": "f32[2, S, 24] = mul %part, %b",
    "fused": """f32[2, S, 24] = fused %part, %row, %b {kernel = "elementwise"} do
      %p: f32[2, 1, 24] = reshape %row
      %q: f32[2, S, 24] = add %part, %p
      @y: f32[2, S, 24] = mul %q, %b
    end""",
    "layer_norm": "f32[2, S, 24] = layer_norm %part, %b, %b {epsilon = 1e-05}",
    "rms_norm": "f32[2, 24] = rms_norm %row, %b {epsilon = 1e-05}",
    "softmax": "f32[2, S, 24] = softmax %part {axis = 2}",
    "softmax_strided": "f32[2, S, 24] = softmax %part {axis = 1}",
    "reduce_rows": "f32[2, S] = reduce_sum %part {axes = [2]}",
    "reduce_columns": "f32[2, 24] = reduce_max %part {axes = [1]}",
    "argmax": "i64[2, S] = argmax %part {axis = 2}",
    "cumsum": "f32[2, S, 24] = cumsum %part {axis = 1}",
    "gather_rows": "f32[2, 5, 24] = gather %part, %i {axis = 1}",
    "gather_columns": "f32[2, S, 5] = gather %part, %i {axis = 2}",
    "gather_blocks": "f32[5, 24] = gather %row, %i0 {axis = 0}",
    "take_along": "f32[2, 1, 24] = take_along %part, %t {axis = 1}",
    "index_copy": "f32[2, S, 40] = index_copy @long, %i, %five {axis = 1}",
    "copy": "f32[2, S, 24] = copy %part",
    "slice": "f32[2, S, 4] = slice %part {starts = [0, 0, 23], steps = [1, 1, -3]}",
    "reshape": "f32[2, 24*S] = reshape %part",
    "transpose": "f32[2, 24, S] = transpose %part {perm = [0, 2, 1]}",
    "transpose_heads": "f32[2, 3, S, 8] = transpose %heads {perm = [0, 2, 1, 3]}",
    "concat": "f32[2, S, 48] = concat %part, %part {axis = 2}",
    "pad": "f32[2, S + 2, 24] = pad %part {before = [0, 1, 0], after = [0, 1, 0]}",
    "expand": "f32[4, 2, 24] = expand %row",
}
MORE = {
    "matmul_transposed": "%h2: f32[2, 3, 8, S] = transpose %h {perm = [0, 1, 3, 2]}",
    "masked": "%m: f32[2, 1, 1, S] = slice @mask {starts = [0, 0, 0, 3]}",
    "rotary": "%c: f32[1, 1, S, 4] = slice @mask {starts = [1, 0, 0, 0]}",
    "gather_blocks": "%i0: i64[5] = mul %i, %i",
    "take_along": "%t: i64[2, 1, 24] = slice @picks {starts = [0, 0, 6]}",
    "index_copy": "%five: f32[2, 5, 40] = slice @x {starts = [0, 1, 11]}",
}
TYPES = {
    "rotary": "@mask: f32[2, 1, S, 9]",
    "masked": "@mask: f32[2, 1, 1, S + 4]",
    "take_along": "@picks: i64[2, 1, 31]",
    "index_copy": "@long: f32[2, S, 40]",
}


def viewing(case: str) -> Program:
    """The program in which one operator reads views, with values for its weights."""
    kind = CONSUMERS[case].partition(" = ")[0]
    more = "".join(f"  input {TYPES[case]}\n" for _ in TYPES.get(case, "")[:1])
    program = parse(
        f"""program views(S) {{
  input @x: f32[2, S, 60]
  input @i: i64[2, 5]
{more}  weight @w: f32[3, 24, 24]
  weight @b: f32[3, 24]
  output @y: {kind}
  state main {{{VIEWS}
    {MORE.get(case, "")}
    @y: {CONSUMERS[case]}
  }}
}}"""
    )
    data = {"w": normal(3, 24, 24), "b": normal(3, 24)}
    program = replace(program, data=data)
    return PlanBuffers().run(program, lambda op, reason: None)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("case", CONSUMERS)
def test_an_operator_reads_a_part_of_a_value_where_it_lies(case: str) -> None:
    program = viewing(case)
    views = {op.result for op in program.ops() if op.attr("alias", False)}
    assert {"%part", "%heads", "%h", "%last", "%row", "%w", "%b", "%i"} <= views
    compiled = Compiled(program)
    for extent in (6, 33):
        inputs = {"x": normal(2, extent, 60), "i": RNG.integers(0, 2, (2, 5))}
        for container in program.inputs[2:]:
            shape = compiled_shape(container.type.shape, extent)
            integer = container.type.dtype.is_integer
            inputs[container.name] = RNG.integers(0, 6, shape) if integer else normal(*shape)
        expected = interpret(program, inputs, precision=np.dtype(np.float64))["y"]
        found = compiled.run(inputs)["y"]
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5, err_msg=case)


def compiled_shape(shape: tuple[object, ...], extent: int) -> tuple[int, ...]:
    return tuple(eval(str(dim), {"S": extent}) for dim in shape)


@pytest.mark.parametrize("expansion", ["native", "pure"])
def test_a_loop_reads_the_weights_of_its_layer(expansion: str) -> None:
    program = parse(
        """program layers(S) {
  input @x: f32[S, 70]
  weight @w: f32[3, 70, 70; 0 2/8 1 2%8]
  weight @b: f32[3, 70]
  temp @h: f32[S, 70]
  output @y: f32[S, 70]
  state first {
    @h: f32[S, 70] = copy @x
  }
  loop layers for l in 0..3 {
    state layer {
      %0: f32[1, 70, 70; 0 2/8 1 2%8] = slice @w {starts = [l, 0, 0]}
      %1: f32[70, 70; 1/8 0 1%8] = reshape %0
      %2: f32[1, 70] = slice @b {starts = [l, 0]}
      %3: f32[70] = reshape %2
      %4: f32[S, 70] = fused @h, %1, %3 {kernel = "linear"} do
        %5: f32[S, 70] = matmul @h, %1
        %4: f32[S, 70] = add %5, %3
      end
      @h: f32[S, 70] = layer_norm %4, %3 {epsilon = 1e-05}
    }
  }
  state last {
    @y: f32[S, 70] = copy @h
  }
}"""
    )
    program = replace(program, data={"w": normal(3, 70, 70), "b": normal(3, 70)})
    planned = PlanBuffers().run(program, lambda op, reason: None)
    assert sum(bool(op.attr("alias", False)) for op in planned.ops()) == 4
    compiled = Compiled(planned, expansions={"matmul": expansion}, target="cpu:generic")
    inputs = {"x": normal(9, 70)}
    expected = interpret(program, inputs, precision=np.dtype(np.float64))["y"]
    np.testing.assert_allclose(compiled.run(inputs)["y"], expected, rtol=2e-5, atol=2e-5)
