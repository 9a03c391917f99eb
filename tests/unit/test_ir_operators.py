"""Every row of the operator table against torch or plain numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from dfcompiler.ir import OPERATORS, Attrs, DType, Op, TensorType, parse
from dfcompiler.ir.dims import symbol
from tests.tolerances import assert_close

RNG = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return (RNG.random(shape) + 0.1).astype(np.float32)


def integers(*shape: int, low: int = -9, high: int = 9) -> np.ndarray:
    return RNG.integers(low, high, shape)


def bools(*shape: int) -> np.ndarray:
    return RNG.random(shape) < 0.5


def run(
    kind: str,
    *inputs: np.ndarray,
    result: TensorType | None = None,
    bindings: dict[str, int] | None = None,
    **attrs: Any,
) -> np.ndarray:
    """The operator's reference, after its type rule; the result must have the inferred type."""
    types = [TensorType(DType.of(a.dtype), a.shape) for a in inputs]
    op = Op("%r", result or TensorType(DType.F32), kind, tuple("abcd"[: len(inputs)]), Attrs(attrs))
    inferred = OPERATORS[kind].infer(op, types)
    op = Op("%r", inferred, kind, op.inputs, op.attrs)
    found = np.asarray(OPERATORS[kind].reference(op, inputs, bindings or {}))
    assert OPERATORS[kind].flops(op, types) >= 0
    if not bindings:
        assert found.shape == inferred.shape
    assert found.dtype == inferred.dtype.numpy
    return found


def check(found: np.ndarray, expected: torch.Tensor | np.ndarray) -> None:
    array = expected.numpy() if isinstance(expected, torch.Tensor) else np.asarray(expected)
    assert_close(found, array)


UNARY: dict[str, tuple[Callable[..., Any], np.ndarray]] = {
    "neg": (torch.neg, floats(3, 5)),
    "abs": (torch.abs, floats(3, 5)),
    "sign": (torch.sign, floats(3, 5)),
    "exp": (torch.exp, floats(3, 5)),
    "log": (torch.log, positive(3, 5)),
    "sqrt": (torch.sqrt, positive(3, 5)),
    "rsqrt": (torch.rsqrt, positive(3, 5)),
    "reciprocal": (torch.reciprocal, positive(3, 5)),
    "sin": (torch.sin, floats(3, 5)),
    "cos": (torch.cos, floats(3, 5)),
    "tanh": (torch.tanh, floats(3, 5)),
    "erf": (torch.erf, floats(3, 5)),
    "sigmoid": (torch.sigmoid, floats(3, 5)),
    "silu": (F.silu, floats(3, 5)),
    "relu": (torch.relu, floats(3, 5)),
    "floor": (torch.floor, floats(3, 5) * 4),
    "ceil": (torch.ceil, floats(3, 5) * 4),
    "round": (torch.round, np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.4], np.float32)),
    "not": (torch.logical_not, bools(3, 5)),
    "isnan": (torch.isnan, np.array([1.0, np.nan, np.inf], np.float32)),
    "isinf": (torch.isinf, np.array([1.0, np.nan, -np.inf], np.float32)),
}

BINARY: dict[str, tuple[Callable[..., Any], np.ndarray, np.ndarray]] = {
    "add": (torch.add, floats(3, 1, 5), floats(4, 1)),
    "sub": (torch.sub, floats(3, 5), floats(5)),
    "mul": (torch.mul, floats(3, 5), floats()),
    "div": (torch.div, floats(3, 5), positive(5)),
    "mod": (torch.remainder, integers(3, 5), np.array([3, -3, 2, -2, 7])),
    "pow": (torch.pow, positive(3, 5), floats(5)),
    "min": (torch.minimum, floats(3, 5), np.array([0, np.nan, 0, 1, 2], np.float32)),
    "max": (torch.maximum, floats(3, 5), np.array([0, np.nan, 0, 1, 2], np.float32)),
    "equal": (torch.eq, integers(3, 5, low=0, high=2), integers(5, low=0, high=2)),
    "not_equal": (torch.ne, integers(3, 5, low=0, high=2), integers(5, low=0, high=2)),
    "less": (torch.lt, integers(3, 5), integers(5)),
    "less_equal": (torch.le, integers(3, 5), integers(5)),
    "greater": (torch.gt, floats(3, 5), floats(5)),
    "greater_equal": (torch.ge, integers(3, 5), integers(5)),
    "and": (torch.logical_and, bools(3, 5), bools(5)),
    "or": (torch.logical_or, bools(3, 5), bools(5)),
    "xor": (torch.logical_xor, bools(3, 5), bools(5)),
}


@pytest.mark.parametrize("kind", UNARY)
def test_unary(kind: str) -> None:
    function, x = UNARY[kind]
    check(run(kind, x), function(torch.from_numpy(x)))


@pytest.mark.parametrize("kind", BINARY)
def test_binary(kind: str) -> None:
    function, a, b = BINARY[kind]
    check(run(kind, a, b), function(torch.from_numpy(a), torch.from_numpy(b)))


def test_integer_division_rounds_toward_zero() -> None:
    a, b = integers(20), np.where(integers(20) == 0, 3, -4)
    expected = torch.div(torch.from_numpy(a), torch.from_numpy(b), rounding_mode="trunc")
    check(run("div", a, b), expected)


def test_relu_of_nan_is_nan() -> None:
    x = np.array([np.nan, -1.0, 2.0], np.float32)
    check(run("relu", x), torch.relu(torch.from_numpy(x)))


def test_where_broadcasts_all_three() -> None:
    c, a, b = bools(3, 1, 1), floats(4, 1), floats(5)
    expected = torch.where(*map(torch.from_numpy, (c, a, b)))
    check(run("where", c, a, b), expected)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate: str) -> None:
    x = floats(3, 5) * 3
    check(
        run("gelu", x, approximate=approximate),
        F.gelu(torch.from_numpy(x), approximate=approximate),
    )


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.array([1.9, -1.9, 0.0, 7.0], np.float32), DType.I64),
        (np.array([0.5, 0.0, -2.0, np.nan], np.float32), DType.BOOL),
        (np.array([0, 1, 2, -1]), DType.BOOL),
        (np.array([True, False]), DType.F32),
        (np.array([2**24 + 1, 3]), DType.F32),
        (floats(8), DType.F16),
        (np.array([300, -129, 5]), DType.I8),
    ],
    ids=lambda value: str(getattr(value, "dtype", value)),
)
def test_cast(source: np.ndarray, target: DType) -> None:
    kinds = {
        DType.I64: torch.int64,
        DType.BOOL: torch.bool,
        DType.F32: torch.float32,
        DType.F16: torch.float16,
        DType.I8: torch.int8,
    }
    check(run("cast", source, to=target), torch.from_numpy(source).to(kinds[target]))


def test_cast_to_bfloat16_rounds_to_nearest() -> None:
    x = floats(64)
    found = run("cast", x, to=DType.BF16).astype(np.float32)
    check(found, torch.from_numpy(x).to(torch.bfloat16).to(torch.float32))


def test_dequantize() -> None:
    codes = integers(6, 4, low=-128, high=128).astype(np.int8)
    scale, zero = positive(4), integers(4, low=-5, high=5).astype(np.int8)
    expected = (codes.astype(np.float64) - zero) * scale
    check(run("dequantize", codes, scale, zero), expected.astype(np.float32))
    check(run("dequantize", codes, scale), (codes * scale.astype(np.float64)).astype(np.float32))


def rotate(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool
) -> torch.Tensor:
    """By complex multiplication, in float64."""
    half = x.shape[-1] // 2
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    turned = torch.complex(a.double(), b.double()) * torch.complex(cos.double(), sin.double())
    if interleaved:
        return torch.view_as_real(turned).flatten(-2).float()
    return torch.cat([turned.real, turned.imag], dim=-1).float()


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary(interleaved: bool) -> None:
    x, angle = floats(2, 3, 5, 8), floats(5, 4)
    cos, sin = np.cos(angle), np.sin(angle)
    expected = rotate(*map(torch.from_numpy, (x, cos, sin)), interleaved)
    check(run("rotary", x, cos, sin, interleaved=interleaved), expected)


@pytest.mark.parametrize(
    ("a", "b"),
    [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (6, 4, 5)), ((1, 4), (4, 1))],
)
def test_matmul(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, w = floats(*a), floats(*b)
    check(run("matmul", x, w), torch.matmul(torch.from_numpy(x), torch.from_numpy(w)))


MASKS: dict[str, Callable[[], np.ndarray | None]] = {
    "none": lambda: None,
    "bool": lambda: np.concatenate([np.ones((2, 1, 5, 1), bool), bools(2, 1, 5, 6)], axis=-1),
    "bool per key": lambda: np.concatenate([np.ones((2, 1, 1, 1), bool), bools(2, 1, 1, 6)], -1),
    "additive": lambda: floats(4, 5, 7),
    "additive infinite": lambda: np.where(
        np.arange(7) < 4, np.float32(0), np.float32(-np.inf)
    ).astype(np.float32)[None, None, None, :],
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_attention(mask: str, kv_heads: int) -> None:
    q, k, v = floats(2, 4, 5, 8), floats(2, kv_heads, 7, 8), floats(2, kv_heads, 7, 6)
    given = MASKS[mask]()
    inputs = [q, k, v] if given is None else [q, k, v, given]
    tensors = [torch.from_numpy(array) for array in (q, k, v)]
    expected = F.scaled_dot_product_attention(
        *tensors,
        attn_mask=None if given is None else torch.from_numpy(given),
        scale=0.4,
        enable_gqa=kv_heads != 4,
    )
    check(run("attention", *inputs, scale=0.4), expected)


@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (1, 7), (3, 7)])
def test_causal_attention_aligns_the_last_query_with_the_last_key(queries: int, keys: int) -> None:
    q, k, v = floats(2, 2, queries, 8), floats(2, 2, keys, 8), floats(2, 2, keys, 8)
    visible = np.tril(np.ones((queries, keys), bool), keys - queries)
    expected = F.scaled_dot_product_attention(
        *map(torch.from_numpy, (q, k, v)), attn_mask=torch.from_numpy(visible), scale=0.3
    )
    check(run("attention", q, k, v, scale=0.3, causal=True), expected)


def test_attention_without_a_visible_key_gives_zeros() -> None:
    q = floats(1, 1, 2, 4)
    mask = np.array([[[[True, False], [False, False]]]])
    found = run("attention", q, q, q, mask, scale=1.0)
    check(found[0, 0, 1], np.zeros(4, np.float32))
    check(found[0, 0, 0], q[0, 0, 0])


REDUCTIONS = {
    "reduce_sum": torch.sum,
    "reduce_mean": torch.mean,
    "reduce_max": torch.amax,
    "reduce_min": torch.amin,
}


@pytest.mark.parametrize("kind", REDUCTIONS)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axes", [(-1,), (0, 2), (1,)])
def test_reduction(kind: str, keepdims: bool, axes: tuple[int, ...]) -> None:
    x = floats(3, 4, 5)
    expected = REDUCTIONS[kind](torch.from_numpy(x), dim=axes, keepdim=keepdims)
    check(run(kind, x, axes=axes, keepdims=keepdims), expected)


def test_product_of_an_axis() -> None:
    x = floats(3, 4)
    check(run("reduce_prod", x, axes=(1,)), torch.prod(torch.from_numpy(x), dim=1))


@pytest.mark.parametrize("keepdims", [False, True])
def test_argmax_takes_the_first_greatest(keepdims: bool) -> None:
    x = np.array([[1, 3, 3, 2], [5, 5, 0, 5]], np.float32)
    found = run("argmax", x, axis=-1, keepdims=keepdims)
    expected = np.array([1, 0])
    check(found, expected[:, None] if keepdims else expected)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_and_cumsum(axis: int) -> None:
    x = floats(3, 4, 5) * 10
    check(run("softmax", x, axis=axis), torch.softmax(torch.from_numpy(x), dim=axis))
    check(run("cumsum", x, axis=axis), torch.cumsum(torch.from_numpy(x), dim=axis))


@pytest.mark.parametrize("parameters", [0, 1, 2])
def test_layer_norm(parameters: int) -> None:
    x, scale, bias = floats(2, 3, 8) + 3, floats(8), floats(8)
    given = (scale, bias)[:parameters]
    expected = F.layer_norm(
        torch.from_numpy(x), (8,), *(torch.from_numpy(array) for array in given), eps=1e-5
    )
    check(run("layer_norm", x, *given, epsilon=1e-5), expected)


@pytest.mark.parametrize("parameters", [0, 1])
def test_rms_norm(parameters: int) -> None:
    x, scale = floats(2, 3, 8), floats(8)
    given = (scale,)[:parameters]
    expected = F.rms_norm(
        torch.from_numpy(x), (8,), *(torch.from_numpy(array) for array in given), eps=1e-6
    )
    check(run("rms_norm", x, *given, epsilon=1e-6), expected)


def of(shape: tuple[int, ...], dtype: DType = DType.F32) -> TensorType:
    return TensorType(dtype, shape)


def test_shape_changes() -> None:
    x = floats(2, 3, 4)
    tensor = torch.from_numpy(x)
    check(run("copy", x), tensor)
    check(run("reshape", x, result=of((4, 6))), tensor.reshape(4, 6))
    check(run("transpose", x, perm=(2, 0, 1)), tensor.permute(2, 0, 1))
    check(run("expand", floats(0 + 1, 4)[:, :1], result=of((3, 2, 4))).std(), np.float32(0))
    row = floats(4)
    check(run("expand", row, result=of((2, 3, 4))), torch.from_numpy(row).expand(2, 3, 4))


@pytest.mark.parametrize(
    ("starts", "steps", "shape", "picked"),
    [
        ((0, 1), None, (4, 2), np.s_[:, 1:3]),
        ((1, 0), (2, 1), (2, 5), np.s_[1::2, :]),
        ((3, 4), (-1, -2), (4, 3), np.s_[::-1, ::-2]),
        ((4, 0), None, (0, 5), np.s_[4:, :]),
    ],
)
def test_slice(
    starts: tuple[int, ...], steps: tuple[int, ...] | None, shape: tuple[int, ...], picked: Any
) -> None:
    x = floats(4, 5)
    attrs = {"starts": starts} | ({"steps": steps} if steps else {})
    check(run("slice", x, result=of(shape), **attrs), x[picked])


def test_slice_by_symbols() -> None:
    x, s = floats(6, 5), symbol("S")
    found = run(
        "slice", x, result=TensorType(DType.F32, (s, 5)), bindings={"S": 2}, starts=(s + 1, 0)
    )
    check(found, x[3:5])


def test_concat_and_pad() -> None:
    a, b = floats(2, 3), floats(2, 1)
    check(run("concat", a, b, axis=-1), np.concatenate([a, b], axis=1))
    padded = run("pad", a, before=(1, 0), after=(0, 2), value=-1.5)
    check(padded, F.pad(torch.from_numpy(a), (0, 2, 1, 0), value=-1.5))


def test_a_number_padded_on_no_axis_is_itself() -> None:
    number = np.array(2.5, np.float32)
    check(run("pad", number, before=(), after=()), number)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(axis: int) -> None:
    x, index = floats(4, 5, 6), np.array([[0, 3], [-1, 2]])
    check(run("gather", x, index, axis=axis), np.take(x, index, axis=axis))


def test_take_along() -> None:
    x, index = floats(4, 5), integers(4, 2, low=0, high=5)
    expected = torch.take_along_dim(torch.from_numpy(x), torch.from_numpy(index), dim=1)
    check(run("take_along", x, index, axis=1), expected)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_index_copy(axis: int) -> None:
    x, index = floats(4, 5, 6), np.array([3, 0])
    shape = list(x.shape)
    shape[axis] = 2
    source = floats(*shape)
    expected = torch.from_numpy(x.copy()).index_copy(
        axis, torch.from_numpy(index), torch.from_numpy(source)
    )
    check(run("index_copy", x, index, source, axis=axis), expected)


@pytest.mark.parametrize("axis", [0, -1])
def test_index_copy_into_a_part(axis: int) -> None:
    x, index = floats(3, 4, 5), np.array([3, 0])
    source = floats(2, 5) if axis == 0 else floats(4, 2)
    expected = torch.from_numpy(x.copy())
    expected[1] = expected[1].index_copy(axis, torch.from_numpy(index), torch.from_numpy(source))
    found = run("index_copy", x, index, source, axis=axis, part=symbol("l"), bindings={"l": 1})
    check(found, expected)
    check(run("index_copy", x, index, source, axis=axis, part=1), expected)


def test_index_copy_into_a_part_of_a_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="no parts along its first axis"):
        run("index_copy", floats(3), np.array([0]), floats(1), axis=0, part=0)


def test_values_from_nothing() -> None:
    s = symbol("S")
    check(run("constant", result=of((2, 2)), value=0.5), np.full((2, 2), 0.5, np.float32))
    nested = ((1, 2), (3, 4))
    check(run("constant", result=of((2, 2), DType.I64), value=nested), np.array(nested))
    check(run("constant", result=of((), DType.F32), value=-math.inf), np.float32(-np.inf))
    check(run("dim", result=of((), DType.I64), bindings={"S": 4}, value=2 * s + 1), np.array(9))
    found = run("iota", result=TensorType(DType.I32, (s,)), bindings={"S": 4}, start=s, step=2)
    check(found, np.arange(4, 12, 2, dtype=np.int32))


def test_fused_is_its_region() -> None:
    program = parse(
        """program p() {
          input @x: f32[2, 3]
          input @b: f32[3]
          output @y: f32[2, 3]
          state main {
            @y: f32[2, 3] = fused @x, @b {kernel = "elementwise"} do
              %.0: f32[2, 3] = add @x, @b
              %.1: f32[2, 3] = relu %.0
            end
          }
        }"""
    )
    (op,) = program.ops()
    x, b = floats(2, 3), floats(3)
    types = [program.container(name).type for name in op.inputs]
    found = OPERATORS["fused"].reference(op, [x, b], {})
    check(np.asarray(found), torch.relu(torch.from_numpy(x) + torch.from_numpy(b)))
    assert OPERATORS["fused"].flops(op, types) == 12


def test_every_operator_is_tested_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    missing = [kind for kind in OPERATORS if f'"{kind}"' not in text]
    assert not missing


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("matmul", 2 * 3 * 4 * 5), ("add", 12), ("cast", 0), ("reduce_sum", 12)],
)
def test_flops_count_a_multiply_add_as_two(kind: str, expected: int) -> None:
    a, b = of((3, 4)), of((4, 5))
    cases = {
        "matmul": (Op("%r", of((3, 5)), "matmul", ("a", "b")), [a, b]),
        "add": (Op("%r", a, "add", ("a", "b")), [a, a]),
        "cast": (Op("%r", a, "cast", ("a",), Attrs({"to": DType.F64})), [a]),
        "reduce_sum": (Op("%r", of((3,)), "reduce_sum", ("a",), Attrs({"axes": (1,)})), [a]),
    }
    op, types = cases[kind]
    assert OPERATORS[kind].flops(op, types) == expected
