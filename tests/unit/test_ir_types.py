"""Dimensions, types and attributes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dfcompiler.ir import Affine, Attrs, Bitmap, DType, Layout, PhysicalAxis, TensorType
from dfcompiler.ir.dims import (
    ceil_div,
    equal,
    evaluate,
    floor_div,
    free_symbols,
    parse_dim,
    product,
    same_shape,
    show_dim,
    substitute,
    symbol,
)
from dfcompiler.ir.parser import parse_type

S, B = symbol("S"), symbol("B")


@pytest.mark.parametrize(
    "dim",
    [7, S, 2 * S + 1, B * S, S**2, floor_div(S, 2), ceil_div(S, 8), parse_dim("S % 4"),
     parse_dim("max(S, B)"), parse_dim("min(2*S, B + 3)"), floor_div(B * S + 1, 3)],
    ids=str,
)  # fmt: skip
def test_a_dimension_reads_as_it_prints(dim: object) -> None:
    assert parse_dim(show_dim(dim)) == dim  # type: ignore[arg-type]
    names = {"S": 37, "B": 5}
    functions = {"max": max, "min": min, "ceildiv": lambda a, b: -(-a // b)}
    python = eval(show_dim(dim), {**functions, **names})  # type: ignore[arg-type]
    assert python == evaluate(dim, names)  # type: ignore[arg-type]


def test_dimension_arithmetic() -> None:
    assert equal((B + 1) * S, B * S + S)
    assert not equal(B * S, B + S)
    assert not equal(floor_div(S, 2), ceil_div(S, 2))
    assert floor_div(4 * S, 2) == 2 * S
    assert product((2, S, 3)) == 6 * S
    assert product(()) == 1
    assert same_shape((2 * S,), (S + S,))
    assert not same_shape((S,), (S, 1))
    assert free_symbols(B * S, 4) == {"B", "S"}
    assert substitute(2 * S + B, {"S": 3, "B": S}) == S + 6
    assert floor_div(-7, 2) == -4


@pytest.mark.parametrize("text", ["", "S +", "f(S)", "S.x", "'a'", "1.5"])
def test_text_that_is_no_dimension(text: str) -> None:
    with pytest.raises(ValueError, match="is not a dimension"):
        parse_dim(text)


@pytest.mark.parametrize(
    ("tensor", "stored"),
    [
        ("f32[3, 5]", 60),
        ("bool[7]", 7),
        ("bf16[]", 2),
        ("f32[10, 100; 1/48 0 1%48]", 10 * 144 * 4),
        ("f32[10, 100; 1 0]", 4000),
        ("f32[64, 128] as affine(4, 0, 32, f16, 1)", (64 * 128 * 4 + 256 * (16 + 4)) // 8),
        ("f32[64, 128] as affine(8, 1, 0, f32, 0)", 64 * 128 + 128 * 4),
        ("f32[64, 64] as bitmap(0.25)", 64 * 64 // 8 + 64 * 64 * 4 // 4),
    ],
)
def test_stored_bytes(tensor: str, stored: int) -> None:
    found = parse_type(tensor)
    assert str(found) == tensor
    assert found.stored_bytes == stored


def test_layouts() -> None:
    panels = Layout((PhysicalAxis(1, 48), PhysicalAxis(0), PhysicalAxis(1, 48, True)))
    assert str(panels) == "1/48 0 1%48"
    assert panels.is_tiled
    assert panels.physical_shape((S, 100)) == (3, S, 48)
    assert Layout.permuted(0, 1, 2) == Layout()
    assert Layout.permuted(1, 0).physical_shape((3, 4)) == (4, 3)
    packed = TensorType(DType.F32, (2, 3), Layout.permuted(1, 0))
    assert packed.with_shape((2, 3)).layout.is_row_major
    assert not packed.same(TensorType(DType.F32, (2, 3)))
    gaps = Layout().padded(2, 16)
    assert str(gaps) == "0 1+16"
    assert gaps.physical_shape((S, 100)) == (S, 116)
    assert (gaps.is_row_major, gaps.is_tiled, gaps.unpadded()) == (False, False, Layout())
    assert str(Layout.permuted(1, 0).padded(2, 16)) == "1 0+16"
    assert TensorType(DType.F32, (3, 100), gaps).stored_bytes == 4 * 3 * 116
    with pytest.raises(ValueError, match="no rows to pad"):
        panels.padded(2, 16)
    assert TensorType(DType.F32, (2 * S,)).same(TensorType(DType.F32, (S + S,)))


@pytest.mark.parametrize("dtype", list(DType))
def test_element_types_have_the_bytes_of_their_numpy_dtype(dtype: DType) -> None:
    assert np.zeros(3, dtype.numpy).nbytes == 3 * dtype.bytes
    assert DType.of(dtype.numpy) is dtype


def test_encodings_are_part_of_a_type() -> None:
    a = TensorType(DType.F32, (8, 8), encoding=Affine(4, 0, 8))
    assert not a.same(TensorType(DType.F32, (8, 8)))
    assert not a.same(replace(a, encoding=Bitmap(0.5)))


def test_attributes_are_sorted_hashable_and_immutable() -> None:
    attrs = Attrs({"b": 1, "a": (1, S)})
    assert list(attrs) == ["a", "b"]
    assert hash(attrs) == hash(Attrs({"a": (1, S), "b": 1}))
    with pytest.raises(TypeError):
        attrs["a"] = 2  # type: ignore[index]
