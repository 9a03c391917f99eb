"""Loops, branches, persistent containers, aliases, and what happens to bad indices."""

from __future__ import annotations

import numpy as np
import pytest
from compile_sdfg import Compiled

from dfcompiler.errors import InternalError
from dfcompiler.ir import interpret, parse
from dfcompiler.lowering import lower
from dfcompiler.target import parse_target
from tests.control_cases import (
    CACHE,
    CASES,
    LOOKUP,
    STORE,
    check,
    check_bad_lookup,
    check_bad_store,
)

CPU = parse_target("cpu")
RNG = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_loop_slices_weights_by_its_variable() -> None:
    compiled = Compiled(
        """
        program layers(S) {
          input @x: f32[S, 8]
          input @w: f32[3, 8]
          output @y: f32[S, 8]
          state start {
            @y: f32[S, 8] = copy @x
          }
          loop each for l in 0..3 {
            state step {
              %0: f32[1, 8] = slice @w {starts = [l, 0]}
              @y: f32[S, 8] = mul @y, %0
            }
          }
        }
        """
    )
    x, w = normal(5, 8), normal(3, 8)
    found = compiled.run({"x": x, "w": w})["y"]
    np.testing.assert_allclose(found, x * w[0] * w[1] * w[2], rtol=1e-6)


def test_loops_nest_and_share_the_name_of_their_variable() -> None:
    compiled = Compiled(
        """
        program nest(N) {
          output @y: i64[N, 4]
          output @stop: bool[]
          state start {
            @y: i64[N, 4] = constant {value = 0}
          }
          loop rows for i in 0..N {
            state row {
              @stop: bool[] = constant {value = false}
            }
            loop columns for j in i..4 until @stop {
              state cell {
                %0: i64[1] = iota {start = j}
                %1: i64[1] = iota {start = 10*i + j}
                %2: i64[N, 1] = expand %1
                @y: i64[N, 4] = index_copy @y, %0, %2 {axis = 1}
                %3: i64[] = dim {value = j}
                %4: i64[] = constant {value = 2}
                @stop: bool[] = equal %3, %4
              }
            }
          }
          loop again for i in 1..3 {
            state more {
              %0: i64[] = dim {value = i}
              @y: i64[N, 4] = add @y, %0
            }
          }
        }
        """
    )
    for n in (1, 2, 6):
        expected = interpret(compiled.program, {}, symbols={"N": n})["y"]
        np.testing.assert_array_equal(compiled.run({}, {"N": n})["y"], expected)


@pytest.mark.parametrize("name", CASES)
def test_the_course_follows_the_data(name: str) -> None:
    check(CASES[name], Compiled(CASES[name].text))


@pytest.mark.parametrize("target", ["cpu", "cuda:sm_90"])
def test_a_persistent_cache_is_extended_in_place(target: str) -> None:
    kernels = lower(parse(CACHE), parse_target(target)).kernels
    assert [record.op.kind for record in kernels] == ["index_copy", "copy"]
    assert kernels[0].reason == "in place: only the named slices"


def test_each_layer_writes_its_part_of_a_stacked_cache() -> None:
    compiled = Compiled(
        """
        program caches(S) {
          input @k: f32[2, S, 4]
          input @at: i64[S]
          persist @"k.*": f32[3, 2, 6, 4] of @k.0, @k.1, @k.2
          output @all: f32[3, 2, 6, 4]
          loop layers for layer in 1..3 {
            state main {
              %0: i64[] = dim {value = layer}
              %1: f32[] = cast %0 {to = f32}
              %2: f32[2, S, 4] = mul @k, %1
              @"k.*": f32[3, 2, 6, 4] = index_copy @"k.*", @at, %2 {axis = 1, part = layer}
              %3: f32[1, 2, 6, 4] = slice @"k.*" {starts = [layer, 0, 0, 0]}
              %4: f32[2, 6, 4] = reshape %3
              %5: f32[2, S, 4] = gather %4, @at {axis = 1}
              @"k.*": f32[3, 2, 6, 4] = index_copy @"k.*", @at, %5 {axis = 1, part = layer - 1}
            }
          }
          state end {
            @all: f32[3, 2, 6, 4] = copy @"k.*"
          }
        }
        """
    )
    memory: dict[str, np.ndarray] = {}
    for at in ([0, 1, 2], [3], [5, 4, 5]):
        inputs = {"k": normal(2, len(at), 4), "at": np.array(at)}
        expected = interpret(compiled.program, inputs, persistent=memory)["all"]
        found = compiled.run(inputs)["all"]
        np.testing.assert_array_equal(found, expected)
    assert sorted(memory) == ["k.0", "k.1", "k.2"]
    np.testing.assert_array_equal(np.stack([memory["k.0"], memory["k.1"]]), found[:2])


OVERWRITE = """
program overwrite(N) {
  input @x: f32[N, N]
  input @i: i64[2]
  output @y: f32[N, N]
  output @z: f32[N, N]
  output @s: f32[N, N]
  output @c: f32[N, N]
  state main {
    @y: f32[N, N] = copy @x
    @y: f32[N, N] = transpose @y {perm = [1, 0]}
    @z: f32[N, N] = copy @x
    @z: f32[N, N] = slice @z {starts = [0, N - 1], steps = [1, -1]}
    @z: f32[N, N] = fused @z, @x {kernel = "elementwise"} do
      %0: f32[N, N] = transpose @z {perm = [1, 0]}
      @z: f32[N, N] = add @z, %0
    end
    @s: f32[N, N] = copy @x
    @s: f32[N, N] = softmax @s {axis = 1}
    @s: f32[N, N] = cumsum @s {axis = 0}
    @c: f32[N, N] = copy @x
    %1: f32[2, N] = slice @c {starts = [0, 0]}
    @c: f32[N, N] = index_copy @c, @i, %1 {axis = 0}
    @c: f32[N, N] = max @c, @c
  }
}
"""


def test_an_operator_may_overwrite_its_operand() -> None:
    compiled = Compiled(OVERWRITE)
    inputs = {"x": normal(19, 19), "i": np.array([3, 0])}
    expected, found = interpret(compiled.program, inputs), compiled.run(inputs)
    for name in ("y", "z", "s", "c"):
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-6, err_msg=name)


def test_planned_slots_and_aliases_share_memory() -> None:
    compiled = Compiled(
        """
        program planned(S) {
          input @x: f32[S, 6]
          temp @slot0: u8[24*S]
          temp @slot1: u8[24*S]
          output @y: f32[3, 2*S]
          state main {
            %0: f32[S, 6] = exp @x {slot = "slot0"}
            %1: f32[6*S] = reshape %0 {alias = true}
            %2: f32[6*S] = neg %1 {slot = "slot1"}
            %3: f32[3, 2*S] = reshape %2 {slot = "slot0"}
            %4: f32[3, 2*S] = reshape @x {alias = true}
            @y: f32[3, 2*S] = add %3, %4
          }
        }
        """
    )
    slots = {a.name: (a.role, a.slot or a.container) for a in compiled.lowered.arguments}
    assert slots == {
        "in_x": ("input", "x"),
        "out_y": ("output", "y"),
        "v0": ("value", "slot0"),
        "v1": ("value", "slot0"),
        "v2": ("value", "slot1"),
        "v3": ("value", "slot0"),
        "v4": ("input", "x"),
    }
    x = normal(11, 6)
    found = compiled.run({"x": x})["y"]
    np.testing.assert_allclose(found, (x - np.exp(x)).reshape(3, 22), rtol=2e-6, atol=1e-6)
    implementations = [record.implementation for record in compiled.lowered.kernels]
    assert implementations.count("alias") == 2


def test_a_transpose_may_be_an_alias_with_another_layout() -> None:
    text = """
        program heads(S) {
          input @x: f32[S, 2, 3]
          output @y: f32[S, 6]
          state main {
            %0: f32[2, S, 3; 1 0 2] = transpose @x {alias = true, perm = [1, 0, 2]}
            %1: f32[2, S, 3; 1 0 2] = softmax %0 {axis = 2}
            %2: f32[S, 2, 3] = transpose %1 {alias = true, perm = [1, 0, 2]}
            %3: f32[S, 6] = reshape %2 {alias = true}
            @y: f32[S, 6] = neg %3
          }
        }
        """
    compiled = Compiled(text)
    x = normal(9, 2, 3)
    expected = interpret(compiled.program, {"x": x})["y"]
    np.testing.assert_allclose(compiled.run({"x": x})["y"], expected, rtol=2e-6)
    with pytest.raises(InternalError, match=r"%0: .* is no alias of @x"):
        lower(parse(text.replace("%0: f32[2, S, 3; 1 0 2]", "%0: f32[2, S, 3]")), CPU)


def test_symbols_may_have_names_that_mean_something_elsewhere() -> None:
    compiled = Compiled(
        """
        program names(I, sequence, int, _i0) {
          input @x: f32[I, sequence, int, _i0]
          output @y: f32[_i0, int, 1, I*sequence]
          output @n: i64[]
          loop beta for gamma in 0..sequence // 2 {
            state main {
              %0: f32[_i0, I, sequence, int] = transpose @x {perm = [3, 0, 1, 2]}
              %1: f32[_i0, int, 1, I*sequence] = reshape %0
              @y: f32[_i0, int, 1, I*sequence] = exp %1
              @n: i64[] = dim {value = gamma}
            }
          }
        }
        """
    )
    inputs = {"x": normal(2, 5, 3, 4)}
    expected, found = interpret(compiled.program, inputs), compiled.run(inputs)
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-6)
    assert found["n"] == 1


def test_a_bad_index_is_reported_and_touches_nothing_outside() -> None:
    check_bad_lookup(Compiled(LOOKUP))
    check_bad_store(Compiled(STORE))
