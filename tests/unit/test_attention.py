"""Attention: kernels on each instruction set, and library nodes, against float64."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from compile_kernels import call, compile_kernels, runnable_targets
from compile_sdfg import Compiled

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir import interpret, parse
from dfcompiler.ir.operators import OPERATORS
from dfcompiler.ir.program import Attrs, Op
from dfcompiler.ir.types import DType, TensorType
from dfcompiler.lowering import lower
from dfcompiler.target import parse_target

SOURCE = """#include "cpu/attention.h"
using namespace dfc::attention;

template <class T, class M>
void attend(const long* n, double scale, const long* strides, const T* q, const T* k, const T* v,
            const M& mask, T* o) {
  const long batch = n[0], heads = n[1], key_heads = n[2], causal = n[7], group = heads / key_heads;
  const long *sq = strides, *sk = sq + 4, *sv = sk + 4, *so = sv + 4, *sm = so + 4;
  const Sizes size{n[3], n[4], n[5], n[6], group};
  for (long b = 0; b < batch; ++b)
    for (long h = 0; h < key_heads; ++h)
      for (long block = 0; block < tasks(size); ++block) {
        M local = mask;
        if constexpr (!std::is_same_v<M, NoMask>) local.data += b * sm[0] + h * group * sm[1];
        task<T>(block, size, T(scale), causal,
                Matrix<const T>{q + b * sq[0] + h * group * sq[1], sq[2], sq[3]}, sq[1],
                Matrix<const T>{k + b * sk[0] + h * sk[1], sk[2], sk[3]}, sk[1],
                Matrix<const T>{v + b * sv[0] + h * sv[1], sv[2], sv[3]}, sv[1], local,
                Matrix<T>{o + b * so[0] + h * group * so[1], so[2], so[3]}, so[1]);
      }
}

#define ATTEND(T, name, M, mask)                                                              \\
  extern "C" void name(const long* n, double scale, const long* s, const T* q, const T* k,    \\
                       const T* v, const M* m, T* o) {                                        \\
    (void)m;                                                                                  \\
    attend(n, scale, s, q, k, v, mask, o);                                                    \\
  }
ATTEND(float, none_float32, float, NoMask{})
ATTEND(double, none_float64, double, NoMask{})
#define STRIDES s[18], s[19], s[17]
ATTEND(float, additive_float32, float, (AdditiveMask<float>{m, STRIDES}))
ATTEND(double, additive_float64, double, (AdditiveMask<double>{m, STRIDES}))
ATTEND(float, bool_float32, std::int8_t, (BoolMask<float>{m, STRIDES}))
ATTEND(double, bool_float64, std::int8_t, (BoolMask<double>{m, STRIDES}))
"""
Array = np.ndarray
# batch, heads, key heads, queries, keys, width, value width
SIZES = [
    (2, 3, 3, 128, 128, 32, 32),
    (1, 2, 1, 77, 77, 64, 64),
    (1, 4, 2, 1, 300, 64, 64),
    (2, 6, 2, 1, 7, 32, 48),
    (1, 2, 2, 5, 260, 24, 24),
    (1, 1, 1, 65, 129, 341, 341),
    (1, 2, 2, 31, 7, 7, 1),
    (1, 4, 1, 1, 131, 64, 24),
    (1, 2, 2, 3, 200, 80, 96),
    (1, 2, 2, 2, 33, 16, 16),
    (1, 1, 1, 257, 31, 16, 20),
    (1, 1, 1, 1, 1, 1, 1),
    (2, 6, 2, 90, 90, 32, 32),
    (1, 8, 1, 1, 520, 32, 40),
    (1, 1, 1, 9, 300, 300, 270),
]
MASKS = (
    *("none", "key padding", "full", "matrix", "one per row", "bool padding", "bool", "nothing"),
    *("behind a length", "in front of a start", "bands"),
)


@dataclass
class Case:
    """Random operands in the order of axes that `layout` says."""

    sizes: tuple[int, ...]
    mask_kind: str
    causal: bool
    layout: str = "C"
    dtype: type = np.float32
    inputs: list[Array] = field(init=False)
    mask: Array | None = field(init=False)
    output: Array = field(init=False)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(sum(self.sizes))
        batch, heads, key_heads, queries, keys, width, value_width = self.sizes
        self.inputs = [
            self.tensor(batch, heads, queries, width),
            self.tensor(batch, key_heads, keys, width),
            self.tensor(batch, key_heads, keys, value_width),
        ]
        # Rows of the output are contiguous in every layout.
        self.output = np.full((batch, queries, heads, value_width), 77, self.dtype)
        self.output = self.output.transpose(0, 2, 1, 3)
        if self.layout == "C":
            self.output = np.ascontiguousarray(self.output)
        if self.layout == "slices of one product":
            self.inputs = self.slices()
        self.mask = self.random_mask()

    def tensor(self, batch: int, heads: int, tokens: int, width: int) -> Array:
        values = self.random.standard_normal((batch, heads, tokens, width)).astype(self.dtype)
        if self.layout == "tokens first":
            return np.ascontiguousarray(values.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
        return np.asarray(values, order="F" if self.layout == "F" else "C")

    def slices(self) -> list[Array]:
        """The inputs, side by side in the rows of one matrix."""
        batch, *_, tokens = self.sizes[:4]
        flat = [x.transpose(0, 2, 1, 3).reshape(batch, tokens, -1) for x in self.inputs]
        ends = np.cumsum([x.shape[2] for x in flat])
        parts = np.split(np.concatenate(flat, axis=2), ends[:-1], axis=2)
        return [
            part.reshape(batch, tokens, x.shape[1], x.shape[3]).transpose(0, 2, 1, 3)
            for part, x in zip(parts, self.inputs, strict=True)
        ]

    def random_mask(self) -> Array | None:
        batch, heads, _, queries, keys, *_ = self.sizes
        shapes = {
            "key padding": (batch, 1, 1, keys),
            "full": (batch, heads, queries, keys),
            "matrix": (queries, keys),
            "one per row": (1, 1, queries, 1),
            "bool padding": (batch, 1, 1, keys),
            "bool": (batch, heads, queries, keys),
            "nothing": (batch, 1, 1, keys),
            "behind a length": (batch, 1, 1, keys),
            "in front of a start": (batch, 1, 1, keys),
            "bands": (queries, keys),
        }
        if self.mask_kind == "none":
            return None
        hidden = self.random.random(shapes[self.mask_kind]) < 0.3
        if self.mask_kind == "nothing":
            return np.zeros_like(hidden)
        column = np.arange(keys)
        if self.mask_kind == "behind a length":
            return np.broadcast_to(column <= keys // 2, hidden.shape).copy()
        if self.mask_kind == "in front of a start":
            start = np.where(column < keys // 3, -np.inf, 0).astype(self.dtype)
            return np.broadcast_to(start, hidden.shape).copy()
        if self.mask_kind == "bands":  # whole blocks of keys are hidden, others are seen by all
            return (column // 128 + np.arange(queries)[:, None] // 64) % 2 == 0
        if self.mask_kind.startswith("bool"):
            return ~hidden
        values = self.random.standard_normal(hidden.shape).astype(self.dtype)
        values[hidden] = -np.inf
        return values

    def expected(self) -> Array:
        """The operator table's reference, in float64."""
        inputs = [x.astype(np.float64) for x in self.inputs]
        if self.mask is not None:
            mask = self.mask
            inputs.append(mask if mask.dtype == bool else mask.astype(np.float64))
        attrs = Attrs({"scale": self.scale, "causal": self.causal})
        op = Op("%o", TensorType(DType.F64), "attention", (), attrs)
        with np.errstate(all="ignore"):
            return OPERATORS["attention"].reference(op, inputs, {})

    @property
    def scale(self) -> float:
        return float(self.dtype(self.sizes[5] ** -0.5))

    def run(self, target: str) -> Array:
        library, _ = compile_kernels(SOURCE, target)
        kind = "none" if self.mask is None else "bool" if self.mask.dtype == bool else "additive"
        scores = (*self.sizes[:2], *self.sizes[3:5])
        mask = np.broadcast_to(self.mask if self.mask is not None else np.zeros(1), scores)
        arrays = (*self.inputs, self.output, mask)
        strides = np.array([s // x.itemsize for x in arrays for s in x.strides], np.int64)
        sizes = np.array([*self.sizes, self.causal], np.int64)
        function = library[f"{kind}_{np.dtype(self.dtype).name}"]
        call(function, sizes, self.scale, strides, *self.inputs, self.mask, self.output)
        return self.output

    def check(self, target: str) -> None:
        tolerance = 5e-6 if self.dtype is np.float32 else 1e-13
        np.testing.assert_allclose(self.run(target), self.expected(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("target", runnable_targets())
def test_kernel(target: str, mask: str, causal: bool) -> None:
    for sizes in SIZES:
        for layout in ("C", "tokens first", "F"):
            Case(sizes, mask, causal, layout).check(target)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", ["none", "bool", "behind a length"])
@pytest.mark.parametrize("target", runnable_targets())
def test_kernel_on_slices_of_one_product(target: str, mask: str, causal: bool) -> None:
    for sizes in (
        (2, 3, 3, 128, 128, 32, 32),
        (1, 6, 2, 200, 200, 64, 64),
        (3, 2, 2, 17, 17, 24, 24),
    ):
        Case(sizes, mask, causal, "slices of one product").check(target)


@pytest.mark.parametrize("target", runnable_targets())
def test_kernel_in_double_precision(target: str) -> None:
    for mask in ("none", "full", "bool"):
        Case(SIZES[2], mask, False, dtype=np.float64).check(target)
        Case(SIZES[8], mask, True, dtype=np.float64).check(target)


@pytest.mark.parametrize("queries", [1, 2, 40])
def test_not_a_number_spoils_its_row_alone(queries: int) -> None:
    case = Case((1, 1, 1, queries, 300, 32, 32), "none", False)
    case.inputs[0][0, 0, 0, 3] = np.nan
    result = case.run(runnable_targets()[0])
    assert np.all(np.isnan(result[0, 0, 0]))
    assert np.all(np.isfinite(result[0, 0, 1:]))


def in_torch(case: Case) -> Array:
    mask = None if case.mask is None else torch.from_numpy(case.mask)
    tensors = [torch.from_numpy(np.ascontiguousarray(x)) for x in case.inputs]
    attend = torch.nn.functional.scaled_dot_product_attention
    return attend(*tensors, attn_mask=mask, scale=case.scale).numpy()


@pytest.mark.parametrize("queries", [2, 70])
@pytest.mark.parametrize("mask", ["bool", "full"])
@pytest.mark.parametrize("target", runnable_targets())
def test_rows_without_a_key_are_zero_as_in_torch(target: str, mask: str, queries: int) -> None:
    case = Case((2, 2, 2, queries, 150, 32, 32), mask, False)
    assert case.mask is not None
    case.mask[:, :, ::3] = False if mask == "bool" else -np.inf
    result = case.run(target)
    assert not result[:, :, ::3].any()
    np.testing.assert_allclose(result, in_torch(case), rtol=0, atol=5e-6)


@pytest.mark.parametrize("queries", [2, 70])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("operand", [0, 1, 2])
@pytest.mark.parametrize("target", runnable_targets())
def test_values_that_are_no_numbers_spread_as_in_torch(
    target: str, operand: int, value: float, queries: int
) -> None:
    case = Case((1, 2, 2, queries, 150, 32, 32), "none", False)
    case.inputs[operand][0, 1, 1, 5] = value
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(case.run(target), in_torch(case), rtol=0, atol=5e-6)


def test_a_mask_of_the_least_number_weighs_hidden_keys_alike() -> None:
    case = Case((1, 1, 1, 33, 40, 16, 16), "key padding", False)
    assert case.mask is not None
    case.mask[...] = np.finfo(np.float32).min
    expected = np.broadcast_to(case.inputs[2].mean(axis=2, keepdims=True), case.output.shape)
    np.testing.assert_allclose(case.run(runnable_targets()[0]), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("position", [2, 200])
def test_infinite_scores_give_what_the_definition_gives(position: int) -> None:
    case = Case((1, 1, 1, 3, 300, 16, 16), "key padding", False)
    assert case.mask is not None
    case.mask[..., position] = np.inf
    assert np.all(np.isnan(case.expected()))
    assert np.all(np.isnan(case.run(runnable_targets()[0])))


def test_what_a_mask_hides_may_hold_anything_where_scores_are_infinite() -> None:
    case = Case((1, 1, 1, 40, 64, 16, 16), "bool padding", False)
    assert case.mask is not None
    case.mask[..., 5] = False
    case.inputs[1][0, 0, 5] = np.inf
    expected = case.expected()
    assert np.all(np.isfinite(expected))
    np.testing.assert_allclose(case.run(runnable_targets()[0]), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("queries", [1, 2, 40])
@pytest.mark.parametrize("mask", ["behind a length", "in front of a start"])
@pytest.mark.parametrize("target", runnable_targets())
def test_ends_that_a_mask_hides_are_not_read(target: str, mask: str, queries: int) -> None:
    case = Case((1, 2, 1, queries, 700, 32, 32), mask, False)
    expected = case.expected()
    hidden = slice(351, None) if mask == "behind a length" else slice(700 // 3)
    for operand in case.inputs[1:]:
        operand[:, :, hidden] = np.nan
    np.testing.assert_allclose(case.run(target), expected, rtol=0, atol=5e-6)


PROGRAM = """
program attend(B, S, T) {
  input  @q: f32[B, 4, S, 24]
  input  @k: f32[B, 2, T, 24]
  input  @v: f32[B, 2, T, 17]
  input  @m: f32[B, 1, S, T]
  input  @visible: bool[T]
  input  @d: f64[B, 2, T, 8]
  output @plain: f32[B, 4, S, 17]
  output @causal: f32[B, 4, S, 17]
  output @masked: f32[B, 4, S, 17]
  output @padded: f32[B, 4, S, 17]
  output @double: f64[B, 2, T, 8]
  state main {
    @plain: f32[B, 4, S, 17] = attention @q, @k, @v {scale = 0.2}
    @causal: f32[B, 4, S, 17] = attention @q, @k, @v {causal = true, scale = 0.2}
    @masked: f32[B, 4, S, 17] = attention @q, @k, @v, @m {scale = 0.2}
    @padded: f32[B, 4, S, 17] = attention @q, @k, @v, @visible {causal = true, scale = 0.2}
    @double: f64[B, 2, T, 8] = attention @d, @d, @d {causal = true, scale = 0.3}
  }
}
"""


@pytest.fixture(scope="module", params=["native", "pure"])
def attend(request: pytest.FixtureRequest) -> Compiled:
    return Compiled(PROGRAM, expansions={"attention": request.param})


@pytest.mark.parametrize(
    ("batch", "queries", "keys"), [(1, 1, 1), (1, 1, 31), (2, 7, 7), (1, 65, 130), (1, 31, 7)]
)
def test_library_node(attend: Compiled, batch: int, queries: int, keys: int) -> None:
    random = np.random.default_rng(batch * queries + keys)
    sizes = {"B": batch, "S": queries, "T": keys}
    shapes = {c.name: [sizes.get(str(d), d) for d in c.type.shape] for c in attend.program.inputs}
    inputs = {name: random.standard_normal(s).astype(np.float32) for name, s in shapes.items()}
    inputs["visible"] = random.random(keys) < 0.7
    inputs["d"] = inputs["d"].astype(np.float64)
    outputs = attend.run(inputs)
    expected = interpret(attend.program, inputs, precision=np.dtype(np.float64))
    for name, value in outputs.items():
        tolerance = 1e-13 if value.dtype == np.float64 else 5e-6
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=tolerance, err_msg=name)


def test_records_name_the_kernel(attend: Compiled) -> None:
    names = {record.implementation for record in attend.lowered.kernels}
    assert names in ({"native attention"}, {"pure attention"})


def test_half_precision_is_refused() -> None:
    program = parse(
        "program p() {\n  input @q: f16[1, 1, 4, 8]\n  output @o: f16[1, 1, 4, 8]\n"
        "  state main {\n"
        "    @o: f16[1, 1, 4, 8] = attention @q, @q, @q {scale = 0.2}\n  }\n}\n"
    )
    with pytest.raises(UnsupportedError, match="no attention kernel for f16"):
        lower(program, parse_target("cpu"))


def test_an_unknown_expansion_is_refused() -> None:
    program = parse(PROGRAM)
    with pytest.raises(UnsupportedError, match="no expansion 'magic'; there are native, pure"):
        lower(program, parse_target("cpu"), {"attention": "magic"})
