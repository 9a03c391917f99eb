"""Matrix products of programs for a GPU: every expansion against float64, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from scipy import special

from dfcompiler.codegen.dace_sources import generate_program
from dfcompiler.codegen.library import PRELUDE
from dfcompiler.errors import UnsupportedError
from dfcompiler.ir import interpret, parse
from dfcompiler.lowering import lower
from dfcompiler.target import parse_target
from tests.cuda_emulation import emulated_model, toolkit
from tests.programs import product_text
from tests.tolerances import assert_close

DTYPES = {"f32": np.float32, "bf16": ml_dtypes.bfloat16, "f16": np.float16}
LINEAR = """program linear(S) {{
  input @x: {T}[S, 24]
  input @r: {T}[S, 40]
  input @w: {T}[24, 40]
  input @b: {T}[40]
  output @y: {T}[S, 40]
  state main {{
    @y: {T}[S, 40] = fused @x, @w, @b, @r {{kernel = "linear"}} do
      %.0: {T}[S, 40] = matmul @x, @w
      %.1: {T}[S, 40] = add %.0, @b
      %.2: {T}[S, 40] = gelu %.1
      %.3: {T}[S, 40] = mul %.2, @r
    end
  }}
}}"""

emulated = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")


def values(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    scale = 1 / np.sqrt(shape[-2]) if len(shape) > 1 else 1
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(DTYPES[dtype])


@emulated
@pytest.mark.parametrize("rows", [1, 7, 70])
@pytest.mark.parametrize(
    ("dtype", "expansion"),
    [
        ("f32", "native"),
        ("f32", "tf32"),
        ("f32", "pure"),
        ("bf16", "native"),
        ("bf16", "wgmma"),
        ("bf16", "cutlass"),
    ],
)
def test_a_fused_product(dtype: str, expansion: str, rows: int) -> None:
    shapes = {"x": (rows, 24), "r": (rows, 40), "w": (24, 40), "b": (40,)}
    inputs = {n: values(s, dtype, i) for i, (n, s) in enumerate(shapes.items())}
    model = emulated_model(LINEAR.format(T=dtype), expansions={"matmul": expansion})
    wide = {name: value.astype(np.float64) for name, value in inputs.items()}
    sums = wide["x"] @ wide["w"] + wide["b"]
    expected = (sums * special.ndtr(sums) * wide["r"]).astype(DTYPES[dtype])
    computed = "float16" if expansion == "tf32" else ""
    assert_close(model.run(inputs)["y"], expected, computed_in=computed)


COLUMNS = """program columns() {{
  input @x: {T}[1, 3, 48]
  input @r: {T}[1, 3, 24]
  weight @g: {T}[48]
  weight @w: {T}[48, 24; 1 0]
  weight @v: {T}[24, 42; 1 0]
  output @y: {T}[1, 3, 24]
  output @z: {T}[1, 3, 21]
  state main {{
    @y: {T}[1, 3, 24] = fused @x, @g, @w, @r {{kernel = "linear"}} do
      %.0: {T}[1, 3, 48] = rms_norm @x, @g {{epsilon = 0.01}}
      %.1: {T}[1, 3, 24] = matmul %.0, @w
      %.2: {T}[1, 3, 24] = add @r, %.1
    end
    @z: {T}[1, 3, 21] = fused @r, @v {{kernel = "linear"}} do
      %.0: {T}[1, 3, 42] = matmul @r, @v
      %.1: {T}[1, 3, 21] = slice %.0 {{starts = [0, 0, 0]}}
      %.2: {T}[1, 3, 21] = slice %.0 {{starts = [0, 0, 21]}}
      %.3: {T}[1, 3, 21] = gelu %.1 {{approximate = "tanh"}}
      %.4: {T}[1, 3, 21] = mul %.2, %.3
    end
  }}
}}"""


@emulated
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_normalized_rows_and_gates(dtype: str) -> None:
    model = emulated_model(COLUMNS.format(T=dtype))
    shapes = {"x": (1, 3, 48), "r": (1, 3, 24), "g": (48,), "w": (48, 24), "v": (24, 42)}
    given = {n: values(s, dtype, i) for i, (n, s) in enumerate(shapes.items())}
    model.program = replace(model.program, data={n: given[n] for n in "gwv"})
    inputs = {n: given[n] for n in "xr"}
    expected = interpret(model.program, inputs, precision=np.dtype(np.float64))
    for name, found in model.run(inputs).items():
        assert_close(found, expected[name].astype(found.dtype), name)


ONE_COLUMN = """program score() {
  input @x: bf16[1, 3, 48]
  weight @g: bf16[48]
  weight @w: bf16[48, 1; 1 0]
  weight @v: bf16[48, 2; 1 0]
  output @y: bf16[1, 3, 1]
  output @z: bf16[1, 3, 1]
  state main {
    @y: bf16[1, 3, 1] = fused @x, @g, @w {kernel = "linear"} do
      %.0: bf16[1, 3, 48] = rms_norm @x, @g {epsilon = 0.01}
      %.1: bf16[1, 3, 1] = matmul %.0, @w
    end
    @z: bf16[1, 3, 1] = fused @x, @v {kernel = "linear"} do
      %.0: bf16[1, 3, 2] = matmul @x, @v
      %.1: bf16[1, 3, 1] = slice %.0 {starts = [0, 0, 0]}
      %.2: bf16[1, 3, 1] = slice %.0 {starts = [0, 0, 1]}
      %.3: bf16[1, 3, 1] = silu %.1
      %.4: bf16[1, 3, 1] = mul %.2, %.3
    end
  }
}"""


@emulated
def test_a_score_of_normalized_rows_and_a_gate_of_one_column() -> None:
    model = emulated_model(ONE_COLUMN)
    shapes = {"x": (1, 3, 48), "g": (48,), "w": (48, 1), "v": (48, 2)}
    given = {n: values(s, "bf16", i) for i, (n, s) in enumerate(shapes.items())}
    model.program = replace(model.program, data={n: given[n] for n in "gwv"})
    expected = interpret(model.program, {"x": given["x"]}, precision=np.dtype(np.float64))
    for name, found in model.run({"x": given["x"]}).items():
        assert_close(found, expected[name].astype(found.dtype), name)


def test_the_record_tells_of_normalized_rows_and_gates() -> None:
    found = records(COLUMNS.format(T="bf16"), expansion="cublaslt")
    assert "rows of A are normalized; epilogue add; cublaslt has no such kernel" in found
    assert "epilogue gelu_tanh + gate; cublaslt has no such kernel" in found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("48, 24; 1 0", "48, 24"), "for weights along depth in whole chunks of 16 bytes"),
        (("mul %.2, %.3", "mul %.1, %.3"), "what it does with parts of its columns is no gate"),
        (("matmul %.0, @w", "matmul @x, @w"), "its left operand is not the normalization"),
    ],
)
def test_what_is_no_gate_is_refused(change: tuple[str, str], said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        records(COLUMNS.format(T="bf16").replace(*change))


BATCHES = [
    # Batch axes that one stride walks, that none does, and that only one operand has.
    ((2, 3, 5, 16), (2, 3, 16, 9)),
    ((2, 3, 5, 16), (3, 16, 9)),
    ((2, 3, 5, 16), (2, 1, 16, 9)),
    ((5, 16), (3, 16, 9)),
]


@emulated
@pytest.mark.parametrize(("left", "right"), BATCHES)
def test_batches(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    x, w = values(left, "f32", 1), values(right, "f32", 2)
    expected = (x.astype(np.float64) @ w.astype(np.float64)).astype(np.float32)
    shapes = (f"f32{list(shape)}" for shape in (left, right, expected.shape))
    source = product_text(**dict(zip("xwy", shapes, strict=True)))
    model = emulated_model(source.replace("(S)", "()"))
    assert_close(model.run({"x": x, "w": w})["y"], expected)


# Every tile, up to some number of rows; k in 2 parts or 3 where there are few.
TILES = {
    "bf16": [
        *("[40, 32, 128, 32, 6, 2]", "[100, 64, 64, 32, 5, 3]", "[130, 128, 128, 32, 4, 1]"),
        "[0, 128, 256, 32, 4, 1]",
    ],
    "f32": ["[40, 64, 64, 16, 3, 2]", "[100, 128, 128, 16, 3, 1]", "[0, 64, 64, 16, 3, 1]"],
}
VECTORS = {"bf16": "[8, 8, 64, 128, 1, 2]", "f32": "[8, 8, 32, 128, 1, 2]"}
MANY = ("MEDIUM", "LARGE")


def planned(dtype: str, tiles: list[str], rows: str = "S", columns: int = 40) -> str:
    """relu(x)·w of a depth of 392, with tiles; relu's result certainly begins at 16 bytes."""
    shapes = {"x": f"{dtype}[{rows}, 392]", "w": f"{dtype}[392, {columns}]"}
    source = product_text(**shapes, y=f"{dtype}[{rows}, {columns}]")
    source = source.replace("input @w", "weight @w").replace("matmul @x,", "matmul %0,")
    source = source.replace("    @y", f"    %0: {shapes['x']} = relu @x\n    @y")
    return source.replace("%0, @w", f"%0, @w {{tile = [{', '.join(tiles)}]}}")


@emulated
@pytest.mark.parametrize("dtype", TILES)
def test_every_tile_of_a_plan(dtype: str) -> None:
    w = values((392, 40), dtype, 1)
    source = planned(dtype, [VECTORS[dtype], *TILES[dtype]])
    model = emulated_model(source.replace("weight @w", "input @w"))
    for rows in (1, 8, 9, 40, 41, 100, 101, 140):
        x = values((rows, 392), dtype, rows)
        wide = np.maximum(x.astype(np.float64), 0) @ w.astype(np.float64)
        assert_close(model.run({"x": x, "w": w})["y"], wide.astype(DTYPES[dtype]))


def instance(source: str) -> str:
    (found,) = lower(parse(source), parse_target("cuda:sm_90")).instances["gemm"]
    return found


def test_an_instance_holds_the_tiles_of_its_plans() -> None:
    found = instance(planned("bf16", [TILES["bf16"][0], TILES["bf16"][-1]]))
    assert "dfc::cuda::WIDTH | dfc::cuda::FEW | dfc::cuda::WIDE>" in found


@pytest.mark.parametrize(
    ("rows", "name"), [(8, "VECTOR"), (40, "FEW"), (41, "MEDIUM"), (4096, "WIDE")]
)
def test_rows_that_are_a_number_take_one_tile(rows: int, name: str) -> None:
    found = instance(planned("bf16", [VECTORS["bf16"], *TILES["bf16"]], str(rows)))
    assert f"dfc::cuda::WIDTH | dfc::cuda::{name}>" in found


def test_other_expansions_have_tiles_of_their_own() -> None:
    lowered = lower(
        parse(planned("f32", TILES["f32"])), parse_target("cuda:sm_90"), {"matmul": "tf32"}
    )
    (found,) = lowered.instances["gemm"]
    assert "VECTOR | dfc::cuda::FEW | dfc::cuda::MEDIUM | dfc::cuda::LARGE>" in found


@pytest.mark.parametrize(
    ("tiles", "columns", "said"),
    [
        (["[0, 256, 256, 32, 4, 1]"], 40, r"no kernel has the tile \[256, 256, 32, 4\] in 1"),
        (["[0, 128, 128, 32, 4, 0]"], 40, "in 0 parts; there are 8×64×128×1, 8×16×256×6"),
        (["6", "64", "128", "512"], 40, r"a list of \[rows, BM, BN, BK, stages, parts\]"),
        (["[64, 128, 128, 32, 4, 1]"], 40, r"the last is 0 for any number, not \[64\]"),
        ([VECTORS["bf16"].replace("[8, ", "[0, ")], 40, "a tile of 8 rows is for at most as many"),
        ([VECTORS["bf16"], TILES["bf16"][-1]], 36, r"this is bf16\[S, 36\] with a depth of 392"),
    ],
)
def test_tiles_without_a_kernel_are_refused(tiles: list[str], columns: int, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        instance(planned("bf16", tiles, columns=columns))


def records(source: str, target: str = "cuda:sm_90", expansion: str = "native") -> str:
    lowered = lower(parse(source), parse_target(target), {"matmul": expansion})
    return "; ".join(f"{kernel.implementation}: {kernel.reason}" for kernel in lowered.kernels)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (("bf16[8, 64]", "bf16[64, 32]", "bf16[8, 32]"), "matrix-vector: 8 rows"),
        (("bf16[32, 64]", "bf16[64, 32]", "bf16[32, 32]"), "32x128x32 mma.sync: 32 rows"),
        (("bf16[S, 64]", "bf16[64, 32]", "bf16[S, 32]"), "matrix-vector up to 8 rows, 32x128 up"),
        (("f32[64, 33]", "f32[33, 32]", "f32[64, 32]"), "unaligned: a stride of A, 33, is no"),
        (("f32[64, 32]", "f32[32, 30]", "f32[64, 30]"), "unaligned: a stride of B, 30, is no"),
    ],
)
def test_the_record_names_the_kernel(shapes: tuple[str, str, str], said: str) -> None:
    assert said in records(product_text(**dict(zip("xwy", shapes, strict=True))))


@pytest.mark.parametrize(
    ("rows", "depth", "said"),
    [
        ("128", 64, ""),
        ("S", 64, "; native below 65 rows"),
        ("64", 64, "; but 64 rows are left to the native kernel"),
        ("128", 33, "; but TMA cannot copy it: a stride of A, 33, is no multiple of 8, so"),
    ],
)
def test_the_record_says_when_wgmma_is_not_taken(rows: str, depth: int, said: str) -> None:
    types = (f"bf16[{rows}, {depth}]", f"bf16[{depth}, 32]", f"bf16[{rows}, 32]")
    found = records(product_text(**dict(zip("xwy", types, strict=True))), expansion="wgmma")
    assert f"wgmma gemm bf16: asked for{said}" in found
    assert bool(said) == ("native" in found)


def test_the_record_names_the_tiles_and_their_rows() -> None:
    found = records(planned("bf16", [VECTORS["bf16"], TILES["bf16"][1], TILES["bf16"][-1]]))
    shapes, _, ranges = found.partition(": least modelled time: ")
    assert shapes.endswith("matrix-vector or 64x64x32 mma.sync or 128x256x32 mma.sync")
    few, medium, large = ranges.split(", ")
    assert few == "up to 8 rows matrix-vector with k in 2 parts"
    assert medium == "up to 100 rows 64x64 with k in 3 parts"
    assert large == "128x256"


@pytest.mark.parametrize(
    ("dtype", "target", "expansion", "said"),
    [
        ("f64", "cuda:sm_90", "native", "there is no kernel for operands of f64 into f64"),
        ("f32", "cuda:sm_90", "wgmma", "wgmma is for bf16 or f16 on sm_90; this is f32"),
        ("bf16", "cuda:sm_80", "wgmma", "this is bf16 on cuda:sm_80"),
        ("bf16", "cuda:sm_90", "tf32", "tf32 is for floats, rounded to tf32; this is bf16"),
        ("f32", "cuda:sm_90", "other", "there are cublaslt, cutlass, native, pure, tf32, wgmma"),
    ],
)
def test_what_has_no_kernel_is_refused(dtype: str, target: str, expansion: str, said: str) -> None:
    shapes = dict.fromkeys("xwy", f"{dtype}[16, 16]")
    with pytest.raises(UnsupportedError, match=said):
        records(product_text(**shapes), target, expansion)


def test_another_order_of_stages_is_refused() -> None:
    source = LINEAR.format(T="f32")
    swapped = source.replace("add %.0, @b", "mul %.0, @r").replace("mul %.2, @r", "add %.2, @b")
    with pytest.raises(UnsupportedError, match="the kernel's order is bias, activation, residual"):
        records(swapped)


@pytest.mark.parametrize(
    ("shapes", "kernels"),
    [
        # Inputs may begin anywhere, so that the kernel for elements stays.
        (("f32[S, 64]", "f32[64, 32]", "f32[S, 32]"), ["WIDTH", "ELEMENTS", "VECTOR", *MANY]),
        (("bf16[32, 64]", "bf16[64, 32]", "bf16[32, 32]"), ["WIDTH", "ELEMENTS", "FEW"]),
        (("bf16[33, 64]", "bf16[64, 1]", "bf16[33, 1]"), ["WIDTH", "DEPTH", "ELEMENTS", *MANY]),
        (("f32[8, 64]", "f32[64, 30]", "f32[8, 30]"), ["WIDTH", "ELEMENTS", "VECTOR", *MANY]),
        (("f32[8, 64]", "f32[64, 32]", "f32[8, 32]"), ["WIDTH", "ELEMENTS", "VECTOR"]),
    ],
)
def test_an_instance_holds_what_its_strides_can_need(
    shapes: tuple[str, str, str], kernels: list[str]
) -> None:
    source = product_text(**dict(zip("xwy", shapes, strict=True)))
    lowered = lower(parse(source), parse_target("cuda:sm_90"))
    assert (
        " | ".join(f"dfc::cuda::{name}" for name in kernels) + ">" in lowered.instances["gemm"][0]
    )


def test_columns_of_a_weight_are_read_beside_an_input_at_any_address() -> None:
    source = product_text(x="bf16[8, 64]", w="bf16[64, 32; 1 0]", y="bf16[8, 32]")
    source = source.replace("input @w", "weight @w")
    source = source.replace("@x, @w", "@x, @w {tile = [[0, 8, 16, 256, 6, 1]]}")
    lowered = lower(parse(source), parse_target("cuda:sm_90"))
    assert "dfc::cuda::DEPTH | dfc::cuda::VECTOR>" in lowered.instances["gemm"][0]


def test_weights_and_values_of_whole_chunks_need_no_elements() -> None:
    source = product_text(x="f32[S, 64]", w="f32[64, 32]", y="f32[S, 32]")
    source = source.replace("input @w", "weight @w").replace("matmul @x,", "matmul %0,")
    source = source.replace("    @y", "    %0: f32[S, 64] = relu @x\n    @y")
    (instance,) = lower(parse(source), parse_target("cuda:sm_90")).instances["gemm"]
    assert "ELEMENTS" not in instance


@pytest.mark.parametrize("role", ["weight", "input", "persist"])
def test_only_weights_are_read_before_the_predecessor_has_ended(role: str) -> None:
    source = product_text(x="f32[S, 64]", w="f32[64, 32]", y="f32[S, 32]")
    lowered = lower(parse(source.replace("input @w", f"{role} @w")), parse_target("cuda:sm_90"))
    generated = generate_program(lowered.sdfg, PRELUDE, lowered.work)
    assert (".with_weights()" in generated.code) == (role == "weight")
