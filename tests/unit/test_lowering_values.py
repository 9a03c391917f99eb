"""Values at the edges: NaN, infinities, division by zero, wrapping, 16-bit floats, layouts."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from compile_sdfg import Compiled

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir import interpret, parse
from dfcompiler.lowering import lower
from dfcompiler.target import parse_target

INF, NAN = np.inf, np.nan
EDGES = np.array([0.0, -0.0, 1.0, -1.0, 2.5, -3.5, 1e30, -1e30, 1e-42, INF, -INF, NAN], np.float32)


def test_floats_keep_nan_and_infinities() -> None:
    kinds = ("min", "max", "add", "mul", "div", "mod", "less", "equal", "not_equal")
    unary = ("exp", "tanh", "erf", "sigmoid", "relu", "round", "sign", "isnan", "isinf", "abs")
    ops, outputs = [], []
    for i, kind in enumerate(kinds):
        dtype = "bool" if kind in ("less", "equal", "not_equal") else "f32"
        outputs.append(f"output @b{i}: {dtype}[N, N]")
        ops.append(f"@b{i}: {dtype}[N, N] = {kind} @col, @row")
    for i, kind in enumerate(unary):
        dtype = "bool" if kind in ("isnan", "isinf") else "f32"
        outputs.append(f"output @u{i}: {dtype}[N]")
        ops.append(f"@u{i}: {dtype}[N] = {kind} @row")
    ops += [
        "@top: i64[] = argmax @row {axis = 0}",
        "@best: f32[] = reduce_max @row {axes = [0]}",
        "@never: f32[N] = constant {value = -inf}",
        "@none: f32[N] = softmax @never {axis = 0}",
        "@some: f32[N] = softmax @finite {axis = 0}",
    ]
    outputs += ["output @top: i64[]", "output @best: f32[]", "output @never: f32[N]"]
    outputs += ["output @none: f32[N]", "output @some: f32[N]"]
    lines = ["input @row: f32[N]", "input @col: f32[N, 1]", "input @finite: f32[N]", *outputs]
    text = "\n".join([*lines, "state main {", *ops, "}"])
    compiled = Compiled(f"program edges(N) {{\n{text}\n}}\n", optimize="-O3")
    finite = np.where(np.isfinite(EDGES), 1, -INF).astype(np.float32)
    inputs = {"row": EDGES, "col": EDGES[:, None], "finite": finite}
    expected, found = interpret(compiled.program, inputs), compiled.run(inputs)
    for name, want in expected.items():
        np.testing.assert_allclose(found[name], want, rtol=1e-6, atol=1e-7, err_msg=name)


def test_integers_wrap_and_survive_division_by_zero() -> None:
    compiled = Compiled(
        """
        program wrap(N) {
          input @x: i32[N, 1]
          input @y: i32[N]
          output @sum: i32[N, N]
          output @product: i32[N, N]
          output @quotient: i32[N, N]
          output @remainder: i32[N, N]
          output @power: i32[N, N]
          output @least: i64[]
          state main {
            @sum: i32[N, N] = add @x, @y
            @product: i32[N, N] = mul @x, @y
            @quotient: i32[N, N] = div @x, @y
            @remainder: i32[N, N] = mod @x, @y
            %0: i32[N] = abs @y
            %1: i32[] = constant {value = 7}
            %2: i32[N] = mod %0, %1
            @power: i32[N, N] = pow @x, %2
            @least: i64[] = constant {value = -9223372036854775808}
          }
        }
        """,
        optimize="-O3",
    )
    edges = np.array([0, 1, -1, 2, -2, 7, -7, 2**31 - 1, -(2**31)], np.int32)
    inputs = {"x": edges[:, None], "y": edges}
    expected, found = interpret(compiled.program, inputs), compiled.run(inputs)
    for name in ("sum", "product", "remainder", "power", "least"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    zero = edges == 0
    np.testing.assert_array_equal(found["quotient"][:, zero], 0)
    wide = edges.astype(np.int64)
    exact = np.trunc(wide[:, None] / np.where(zero, 1, wide)).astype(np.int64).astype(np.int32)
    np.testing.assert_array_equal(found["quotient"][:, ~zero], exact[:, ~zero])


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)])
def test_sixteen_bit_floats_compute_in_float(dtype: np.dtype) -> None:
    name = {"float16": "f16", "bfloat16": "bf16"}[dtype.name]
    compiled = Compiled(
        f"""
        program half(N) {{
          input @x: {name}[N, 37]
          input @g: {name}[37]
          output @a: {name}[N, 37]
          output @b: {name}[N, 37]
          output @c: {name}[N, 37]
          output @d: {name}[37]
          output @e: {name}[37, N]
          output @f: f32[N, 37]
          output @i: i64[N]
          output @k: bool[N, 37]
          state main {{
            @a: {name}[N, 37] = fused @x, @g {{kernel = "elementwise"}} do
              %0: {name}[N, 37] = mul @x, @g
              %1: {name}[] = constant {{value = 0.5}}
              %2: {name}[N, 37] = add %0, %1
              @a: {name}[N, 37] = gelu %2
            end
            @b: {name}[N, 37] = softmax @x {{axis = 1}}
            @c: {name}[N, 37] = layer_norm @x, @g {{epsilon = 1e-05}}
            @d: {name}[37] = reduce_mean @x {{axes = [0]}}
            @e: {name}[37, N] = transpose @x {{perm = [1, 0]}}
            @f: f32[N, 37] = cast @x {{to = f32}}
            @i: i64[N] = argmax @x {{axis = 1}}
            @k: bool[N, 37] = greater @x, @g
          }}
        }}
        """
    )
    rng = np.random.default_rng(2)
    inputs = {"x": rng.standard_normal((21, 37)).astype(dtype)}
    inputs["g"] = rng.standard_normal(37).astype(dtype)
    expected = interpret(compiled.program, inputs, precision=np.dtype(np.float64))
    found = compiled.run(inputs)
    step = {"f16": 2.0**-10, "bf16": 2.0**-7}[name]
    for output in "abcde":
        got = found[output].astype(np.float64)
        np.testing.assert_allclose(got, expected[output], rtol=step, atol=step / 8, err_msg=output)
    for output in "fik":
        np.testing.assert_array_equal(found[output], expected[output], err_msg=output)


def test_permuted_layouts_become_strides() -> None:
    compiled = Compiled(
        """
        program permuted(N) {
          input @x: f32[N, 3, 5]
          output @y: f32[N, 3, 5]
          state main {
            %0: f32[3, N, 5; 1 0 2] = transpose @x {perm = [1, 0, 2]}
            %1: f32[3, N, 5; 2 0 1] = exp %0
            %2: f32[3, N, 5; 2 0 1] = softmax %1 {axis = 2}
            @y: f32[N, 3, 5] = transpose %2 {perm = [1, 0, 2]}
          }
        }
        """
    )
    x = np.random.default_rng(3).standard_normal((7, 3, 5)).astype(np.float32)
    e = np.exp(np.exp(x.astype(np.float64)))
    np.testing.assert_allclose(compiled.run({"x": x})["y"], e / e.sum(-1, keepdims=True), rtol=3e-6)


def test_all_unsupported_operators_are_listed() -> None:
    program = parse(
        """
        program bools(N) {
          input @x: bool[N]
          weight @w: f32[8, 48; 1/48 0 1%48]
          output @y: bool[N]
          output @z: f32[8, 48]
          state main {
            @y: bool[N] = sub @x, @x
            @z: f32[8, 48] = exp @w
          }
        }
        """
    )
    with pytest.raises(UnsupportedError) as caught:
        lower(program, parse_target("cpu"))
    assert "sub of bool" in str(caught.value)
    assert "exp cannot read the tiled layout of @w" in str(caught.value)


def test_offsets_beyond_32_bits_are_refused_where_loops_cannot_reach_them() -> None:
    text = """
        program big(N) {
          input @i: i64[N]
          input @table: f32[300000, 8192]
          output @row: f32[N, 8192]
          output @y: f32[300000, 8192]
          state main {
            @row: f32[N, 8192] = gather @table, @i {axis = 0}
            @y: f32[300000, 8192] = exp @table
          }
        }
        """
    with pytest.raises(UnsupportedError, match="exp walks an array of 2457600000 elements"):
        lower(parse(text), parse_target("cpu"))
    lower(parse(text.replace("300000", "N")), parse_target("cpu"))
