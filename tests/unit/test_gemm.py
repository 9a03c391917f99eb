"""The matrix product: kernels on each instruction set, and library nodes, against float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import sympy
from compile_kernels import aligned, call, compile_kernels, runnable_targets
from compile_sdfg import Compiled
from scipy import special

from dfcompiler.codegen.weights import pack
from dfcompiler.errors import UnsupportedError
from dfcompiler.ir import interpret, parse
from dfcompiler.ir.types import Layout, PhysicalAxis
from dfcompiler.lowering import lower
from dfcompiler.lowering.nodes.matmul import row_blocks
from dfcompiler.lowering.symbolic import symbol
from dfcompiler.target import parse_target

SOURCE = """#include "cpu/gemm.h"
using namespace dfc;
using namespace dfc::gemm;

template <int depth = KC, int rows = MC, class T, class B, class E>
void packed(const long* s, const T* a, const B* b, T* c, const E& epilogue) {
  const long blocks = (s[0] + rows - 1) / rows;
  for (long block = 0; block < blocks; ++block)
    for (long slice = 0; slice * WIDTH < s[1]; ++slice)
      packed_task<depth, rows>(block, blocks, slice, s[0], s[1], s[2], Rows<T>{a, s[3], s[4]}, b, c,
                               s[7], epilogue);
}
template <class T, class B>
void strided(const long* s, const T* a, const B* b, T* c) {
  const long blocks = (s[0] + MC - 1) / MC;
  for (long block = 0; block < blocks; ++block)
    for (long slice = 0; slice * WIDTH < s[1]; ++slice)
      strided_task(block, blocks, slice, s[0], s[1], s[2], Rows<T>{a, s[3], s[4]},
                   Rows<B>{b, s[5], s[6]}, c, s[7], Epilogue<>{});
}

#define OPERANDS(T) const T *bias, const T *scale, const T *residual
#define USE(f, T, B, name, ...)                                                              \\
  extern "C" void name(const long* s, const T* a, const B* b, T* c, OPERANDS(T)) {           \\
    (void)bias, (void)scale, (void)residual;                                                 \\
    f;                                                                                       \\
  }
#define PACKED(T, B, name, ...) USE(packed(s, a, b, c, __VA_ARGS__), T, B, name)
#define SMALL(T, B, name, ...) \\
  USE((packed<16, 50>(s, a, b, c, __VA_ARGS__)), T, B, name)
#define STRIDED(T, B, name) USE(strided(s, a, b, c), T, B, name)
extern "C" int panel_width() { return NR; }
PACKED(float, float, plain, Epilogue<>{})
PACKED(float, float, bias, Epilogue{Bias<float>{bias}})
PACKED(float, float, bias_gelu, Epilogue{Bias<float>{bias}, Gelu{}})
PACKED(float, float, gelu_tanh, Epilogue{GeluTanh{}})
PACKED(float, float, silu_mul, Epilogue{Silu{}, MulResidual<float>{residual, s[7]}})
PACKED(float, float, relu, Epilogue{Relu{}})
PACKED(float, float, tanh_add, Epilogue{Tanh{}, AddResidual<float>{residual, s[7]}})
PACKED(float, std::int8_t, int8, Epilogue{ColumnScale<float>{scale}, Bias<float>{bias}})
PACKED(double, double, f64, Epilogue{Scale<double>{scale}, Gelu{}})
SMALL(float, float, small_blocks, Epilogue{Bias<float>{bias}, AddResidual<float>{residual, s[7]}})
SMALL(float, std::int8_t, small_int8, Epilogue<>{})
STRIDED(float, float, strided_f32)
STRIDED(float, std::int8_t, strided_int8)
STRIDED(double, double, strided_f64)
"""

Array = np.ndarray
Reference = Callable[[Array, Array, Array, Array], Array]


def gelu(x: Array) -> Array:
    return x * special.ndtr(x)


EPILOGUES: dict[str, Reference] = {
    "plain": lambda x, bias, scale, residual: x,
    "bias": lambda x, bias, scale, residual: x + bias,
    "bias_gelu": lambda x, bias, scale, residual: gelu(x + bias),
    "gelu_tanh": lambda x, bias, scale, residual: (
        x * special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    ),
    "silu_mul": lambda x, bias, scale, residual: x * special.expit(x) * residual,
    "relu": lambda x, bias, scale, residual: np.maximum(x, 0),
    "tanh_add": lambda x, bias, scale, residual: np.tanh(x) + residual,
    "int8": lambda x, bias, scale, residual: x * scale + bias,
    "small_blocks": lambda x, bias, scale, residual: x + bias + residual,
    "small_int8": lambda x, bias, scale, residual: x,
    "f64": lambda x, bias, scale, residual: gelu(x * scale[0]),
}
SIZES = [(m, n, 31) for m in (1, 2, 3, 4, 5, 6, 7, 13, 31, 97, 257) for n in (1, 7, 31, 64, 341)]
SIZES += [(m, 341, k) for m in (1, 2, 7, 13, 31) for k in (1, 7, 257, 1000)]
SIZES += [(1, 70, 3100), (13, 70, 3100), (0, 5, 3), (3, 5, 0)]


def panel_layout(width: int) -> Layout:
    """``1/NR 0 1%NR``."""
    return Layout(
        (PhysicalAxis(1, width), PhysicalAxis(0), PhysicalAxis(1, width, inner=True)),
    )


class Problem:
    """Random operands; C and the residual have rows with five elements more, which must stay."""

    def __init__(self, m: int, n: int, k: int, dtype: type, codes: bool) -> None:
        random = np.random.default_rng(m + 1000 * n + 1000000 * k)
        self.m, self.n, self.k = m, n, k
        self.a = random.standard_normal((m, k + 3)).astype(dtype)[:, :k]
        b = random.integers(-128, 128, (k, n)) if codes else random.standard_normal((k, n))
        self.b = b.astype(np.int8 if codes else dtype)
        self.bias, self.scale = random.standard_normal((2, n)).astype(dtype)
        self.residual = random.standard_normal((m, n + 5)).astype(dtype)
        self.c = np.full((m, n + 5), 77, dtype)

    def strides(self) -> Array:
        """What the C++ functions take as ``s``."""
        a, b, c = ([s // x.itemsize for s in x.strides] for x in (self.a, self.b, self.c))
        return np.array([self.m, self.n, self.k, *a, *b, c[0]], np.int64)

    def check(self, reference: Reference) -> None:
        a, b = self.a.astype(np.float64), self.b.astype(np.float64)
        operands = [x.astype(np.float64) for x in (self.bias, self.scale)]
        residual = self.residual[:, : self.n].astype(np.float64)
        expected = reference(a @ b, *operands, residual)
        # The error of a sum grows with the sum of its terms' magnitudes, not with its value.
        magnitude = (np.abs(a) @ np.abs(b)) * (1 + np.abs(operands[1])) * (1 + np.abs(residual))
        unit = np.finfo(self.c.dtype).eps * (magnitude + 4)
        assert np.all(np.abs(self.c[:, : self.n] - expected) <= 4 * unit)
        assert np.all(self.c[:, self.n :] == 77)


@pytest.mark.parametrize("name", EPILOGUES)
@pytest.mark.parametrize("target", runnable_targets())
def test_packed_product(target: str, name: str) -> None:
    library, machine = compile_kernels(SOURCE, target)
    assert library.panel_width() == machine.gemm_nr
    dtype = np.float64 if name == "f64" else np.float32
    for m, n, k in SIZES:
        problem = Problem(m, n, k, dtype, codes=name.endswith("int8"))
        b = aligned(pack(problem.b, panel_layout(machine.gemm_nr)))
        operands = problem.bias, problem.scale, problem.residual
        call(library[name], problem.strides(), problem.a, b, problem.c, *operands)
        problem.check(EPILOGUES[name])


@pytest.mark.parametrize("kind", ["f32", "f64", "int8"])
@pytest.mark.parametrize("target", runnable_targets())
def test_strided_product(target: str, kind: str) -> None:
    library, _ = compile_kernels(SOURCE, target)
    dtype = np.float64 if kind == "f64" else np.float32
    for m, n, k in [(1, 1, 1), (1, 31, 257), (7, 341, 31), (31, 65, 600), (257, 7, 31)]:
        for a_order in "CF":
            for b_order in ("C", "F", "gaps"):
                problem = Problem(m, n, k, dtype, codes=kind == "int8")
                problem.a = np.asarray(problem.a, order=a_order)
                gaps = np.repeat(problem.b, 2, axis=1)[:, ::2]
                problem.b = gaps if b_order == "gaps" else np.asarray(problem.b, order=b_order)
                arrays = problem.a, problem.b, problem.c, None, None, None
                call(library[f"strided_{kind}"], problem.strides(), *arrays)
                problem.check(EPILOGUES["plain"])


@pytest.mark.parametrize("rows", [7, 70])
@pytest.mark.parametrize("target", runnable_targets())
def test_not_a_number_and_infinity_pass_through(target: str, rows: int) -> None:
    library, machine = compile_kernels(SOURCE, target)
    problem = Problem(rows, 70, 31, np.float32, codes=False)
    problem.a[2, 3], problem.a[4, 5] = np.nan, np.inf
    b = aligned(pack(problem.b, panel_layout(machine.gemm_nr)))
    call(library["plain"], problem.strides(), problem.a, b, problem.c, None, None, None)
    with np.errstate(invalid="ignore"):
        expected = problem.a @ problem.b
    assert np.all(np.isnan(problem.c[2, :70]))
    np.testing.assert_array_equal(problem.c[4, :70], expected[4])
    assert np.all(np.isfinite(np.delete(problem.c, [2, 4], axis=0)))


@pytest.mark.parametrize("target", runnable_targets())
def test_gelu_of_infinities_is_that_of_torch(target: str) -> None:
    import torch

    library, machine = compile_kernels(SOURCE, target)
    problem = Problem(13, 64, 31, np.float32, codes=False)
    problem.a[2, 3], problem.a[4, 5] = np.nan, np.inf
    b = aligned(pack(problem.b, panel_layout(machine.gemm_nr)))
    call(library["bias_gelu"], problem.strides(), problem.a, b, problem.c, problem.bias, None, None)
    with np.errstate(invalid="ignore"):
        sums = problem.a.astype(np.float64) @ problem.b + problem.bias
    expected = torch.nn.functional.gelu(torch.from_numpy(sums)).numpy()
    np.testing.assert_allclose(problem.c[:, :64], expected, rtol=1e-5, atol=1e-5)


def test_rows_are_split_for_every_core_and_evenly() -> None:
    for rows in (1, 7, 16, 31, 128, 257, 1024):
        for others in (1, 5, 6, 18):
            for cores in (1, 2, 16, 64):
                blocks = row_blocks(rows, 256, others, cores)
                assert -(-rows // blocks) <= 256
                assert blocks == 1 or rows // blocks >= 12
                enough = rows >= 24 * cores
                tasks = blocks * others
                assert not enough or tasks >= 0.95 * cores * -(-tasks // cores)


def test_unknown_rows_are_split_when_they_are_known() -> None:
    rows = symbol("rows")
    for cores, others in ((2, 6), (16, 6), (64, 18)):
        blocks = row_blocks(rows, 256, others, cores)
        for count in (1, 7, 128, 1024, 5000):
            value = sympy.sympify(str(blocks), {"int_ceil": lambda a, b: sympy.ceiling(a / b)})
            assert value.subs("rows", count) == row_blocks(count, 256, others, cores)


PROGRAM = """
program products(B, S) {{
  input  @x: f32[B, S, 70]
  input  @y: f32[B, 70, S]
  input  @z: f64[S, 7]
  input  @r: f32[B, S, 101]
  input  @h: f32[B, 3, S, 5]
  input  @g: f32[5, S]
  weight @w: f32[70, 101; {layout}]
  weight @v: f32[70, 101]
  weight @p: f64[7, 9; {layout}]
  weight @b: f32[101]
  weight @c: i8[70, 101; {layout}]
  weight @s: f32[1, 101]
  weight @t: f32[]
  output @packed: f32[B, S, 101]
  output @plain: f32[B, S, 101]
  output @doubles: f64[S, 9]
  output @activations: f32[B, S, S]
  output @heads: f32[B, 3, S, S]
  output @chain: f32[B, S, 101]
  output @gate: f32[B, S, 101]
  output @codes: f32[B, S, 101]
  output @one_scale: f32[B, S, 101]
  output @tiled: f32[B, S, 101]
  state main {{
    @packed: f32[B, S, 101] = matmul @x, @w
    @plain: f32[B, S, 101] = matmul @x, @v
    @doubles: f64[S, 9] = matmul @z, @p
    @activations: f32[B, S, S] = matmul @x, @y
    @heads: f32[B, 3, S, S] = matmul @h, @g
    @chain: f32[B, S, 101] = fused @x, @w, @b, @r {{kernel = "linear"}} do
      %m: f32[B, S, 101] = matmul @x, @w
      %b: f32[B, S, 101] = add @b, %m
      %g: f32[B, S, 101] = gelu %b
      %r: f32[B, S, 101] = add @r, %g
    end
    @gate: f32[B, S, 101] = fused @x, @w, @r {{kernel = "linear"}} do
      %m: f32[B, S, 101] = matmul @x, @w
      %g: f32[B, S, 101] = silu %m
      %r: f32[B, S, 101] = mul %g, @r
    end
    @codes: f32[B, S, 101] = fused @x, @c, @s, @b {{kernel = "linear"}} do
      %d: f32[70, 101] = dequantize @c, @s
      %m: f32[B, S, 101] = matmul @x, %d
      %b: f32[B, S, 101] = add %m, @b
      %t: f32[B, S, 101] = tanh %b
    end
    @one_scale: f32[B, S, 101] = fused @x, @c, @t {{kernel = "linear"}} do
      %d: f32[70, 101] = dequantize @c, @t
      %m: f32[B, S, 101] = matmul @x, %d
      %g: f32[B, S, 101] = gelu %m {{approximate = "tanh"}}
    end
    @tiled: f32[B, S, 101] = matmul @x, @w {{tile = [{rows}, {width}, 32, 60]}}
  }}
}}
"""


@pytest.fixture(scope="module", params=["native", "pure"])
def products(request: pytest.FixtureRequest) -> Compiled:
    target = parse_target("cpu")
    width = target.gemm_nr
    layout = f"1/{width} 0 1%{width}"
    program = parse(PROGRAM.format(layout=layout, width=width, rows=target.gemm_mr))
    random = np.random.default_rng(0)
    data = {
        c.name: (random.standard_normal(c.type.shape) * 9).astype(c.type.dtype.numpy)
        for c in program.weights
    }
    for name in "stw":
        data[name] = data[name] / np.float32(90)
    return Compiled(replace(program, data=data), expansions={"matmul": request.param})


@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (1, 7), (2, 31), (3, 65), (1, 257)])
def test_library_node(products: Compiled, batch: int, tokens: int) -> None:
    random = np.random.default_rng(batch * tokens)
    sizes = {"B": batch, "S": tokens}
    inputs = {
        c.name: random.standard_normal([sizes.get(str(d), d) for d in c.type.shape]).astype(
            c.type.dtype.numpy
        )
        for c in products.program.inputs
    }
    outputs = products.run(inputs)
    expected = interpret(products.program, inputs, precision=np.dtype(np.float64))
    for name, value in outputs.items():
        tolerance = 1e-12 if value.dtype == np.float64 else 1e-5
        scale = np.max(np.abs(expected[name]))
        assert np.max(np.abs(value - expected[name])) <= tolerance * scale, name


def test_records_say_which_kernel_and_why(products: Compiled) -> None:
    records = {record.result: record for record in products.lowered.kernels}
    native = "native" in records["@packed"].implementation
    if not native:
        assert records["@packed"].implementation == "pure gemm"
        return
    assert "packed B" in records["@packed"].implementation
    assert "int8 codes" in records["@codes"].implementation
    assert "strided B" in records["@activations"].implementation
    assert "bias + gelu + add" in records["@chain"].reason


def test_graph_survives_saving(products: Compiled) -> None:
    import dace

    sdfg = lower(products.program, parse_target("cpu")).sdfg
    nodes = [n for n, _ in sdfg.all_nodes_recursive() if isinstance(n, dace.nodes.LibraryNode)]
    again = dace.SDFG.from_json(sdfg.to_json())
    copies = [n for n, _ in again.all_nodes_recursive() if isinstance(n, dace.nodes.LibraryNode)]
    assert [(type(n), n.stages, n.packed, n.panel) for n in nodes] == [
        (type(n), n.stages, n.packed, n.panel) for n in copies
    ]


UNSUPPORTED = {
    "@x: f16[4, 8]; @w: f16[8, 4]; matmul @x, @w": "no kernel for f16 times f16",
    "@x: i64[4, 8]; @w: i64[8, 4]; matmul @x, @w": "no kernel for i64 times i64",
    "@x: f32[4, 8]; @w: f32[8, 4; 1/3 0 1%3]; matmul @x, @w": "does not read the layout 1/3 0 1%3",
    "@x: f32[4, 8]; @w: f32[8, 4]; matmul @x, @w {tile = [3, 5, 32, 60]}": "register tile of 3 × 5",
    "@x: f32[4, 8]; @w: f32[8, 4]; matmul @x, @w {tile = [MR, NR, 30, 60]}": "needs a depth of 16",
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_has_no_kernel_is_refused(case: str) -> None:
    x, w, op = case.split("; ", 1)[0], *case.split("; ", 1)[1].rsplit("; ", 1)
    dtype = x.split()[1][:3]
    machine = parse_target("cpu")
    op = op.replace("MR", str(machine.gemm_mr)).replace("NR", str(machine.gemm_nr))
    program = parse(
        f"program p() {{\n  input {x}\n  weight {w}\n  output @y: {dtype}[4, 4]\n"
        f"  state main {{\n    @y: {dtype}[4, 4] = {op}\n  }}\n}}\n"
    )
    with pytest.raises(UnsupportedError, match=UNSUPPORTED[case].replace("[", r"\[")):
        lower(program, parse_target("cpu"))
