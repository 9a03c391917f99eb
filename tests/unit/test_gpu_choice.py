"""Which expansion a product on a GPU takes: by the model, by request; its code, its prediction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from dfcompiler.analysis import gpu_expansions
from dfcompiler.analysis.gpu_expansions import NATIVE, WGMMA_TILES
from dfcompiler.analysis.gpu_time import BlockProduct, modelled
from dfcompiler.analysis.machine import Machine
from dfcompiler.analysis.program_time import program_times
from dfcompiler.errors import UnsupportedError, VerifyError
from dfcompiler.ir import Op, parse, show, verify
from dfcompiler.lowering import lower
from dfcompiler.lowering.lowered import Lowered
from dfcompiler.pipeline import Step, assemble
from dfcompiler.target import CudaTarget, parse_target
from tests.cuda_emulation import emulated_model, toolkit
from tests.programs import product_text
from tests.tolerances import assert_close

H200, A100 = (parse_target(name) for name in ("cuda:sm_90", "cuda:sm_80"))
assert isinstance(H200, CudaTarget)
assert isinstance(A100, CudaTarget)
COMPLETE = replace(H200, libraries=("cutlass",))
LARGE = ("bf16[4096, 1024]", "bf16[1024, 4096]", "bf16[4096, 4096]")
ANY = ("bf16[S, 1024]", "bf16[1024, 4096]", "bf16[S, 4096]")


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUTLASS among what the model may choose."""
    monkeypatch.setattr(gpu_expansions, "TRUSTED", (NATIVE, "cutlass"))


def after(
    types: tuple[str, str, str], target: CudaTarget = H200, expansion: str = ""
) -> tuple[Op, str]:
    """A product as the pass leaves it, and what the pass said about it."""
    step = Step("tile-for-io", (("expansion", expansion),))
    source = parse(product_text(x=types[0], w=types[1], y=types[2]))
    result = assemble([step], target).run(source)
    (op,) = result.program.ops()
    (record,) = result.records
    return op, "; ".join(map(str, record.declined))


def expansions(op: Op) -> list[tuple[int, bool]]:
    """Of each range of rows its end, and whether its tile is one by wgmma."""
    shapes = {tile.shape for tiles in WGMMA_TILES.values() for tile in tiles}
    return [(most, tuple(shape) in shapes) for most, *shape, _ in op.attr("tile")]


def test_what_is_not_trusted_is_not_chosen() -> None:
    for types in (LARGE, ANY):
        op, said = after(types, COMPLETE)
        assert (op.attr("expansion"), said) == (None, "")


@pytest.mark.usefixtures("trusted")
def test_the_model_chooses_what_is_trusted_and_installed() -> None:
    op, said = after(LARGE, COMPLETE)
    assert (op.attr("expansion"), said) == ("cutlass", "")
    assert op.attr("tile") == ((0, 128, 256, 64, 4, 1),)
    for types in (LARGE, ANY):
        op, _ = after(types, replace(A100, libraries=("cutlass",)))
        assert op.attr("expansion") is None


@pytest.mark.usefixtures("trusted")
def test_what_is_not_installed_is_named() -> None:
    op, said = after(LARGE)
    assert op.attr("expansion") is None
    assert "the model prefers cutlass, but the headers of cutlass are not installed" in said
    assert "the native kernel is taken" in said


@pytest.mark.usefixtures("trusted")
def test_few_rows_keep_the_native_kernels() -> None:
    op, _ = after(ANY, COMPLETE)
    assert op.attr("expansion") == "cutlass"
    found = expansions(op)
    assert found[0] == (8, False)
    assert found[-1] == (0, True)


TWO = """
program p(S) {
  input @x: bf16[4096, 1024]
  input @z: bf16[256, 1024]
  weight @w: bf16[1024, 4096]
  output @y: bf16[4096, 4096]
  output @v: bf16[256, 4096]
  state main {
    @y: bf16[4096, 4096] = matmul @x, @w
    @v: bf16[256, 4096] = matmul @z, @w
  }
}
"""


@pytest.mark.usefixtures("trusted")
def test_products_share_kernels() -> None:
    """The smaller product would take another tile by itself, but saves little of both."""
    alone, _ = after(("bf16[256, 1024]", "bf16[1024, 4096]", "bf16[256, 4096]"), COMPLETE)
    ops = list(assemble(["tile-for-io"], COMPLETE).run(parse(TWO)).program.ops())
    by_wgmma = {op.attr("tile")[0][1:5] for op in ops if op.attr("expansion") == "cutlass"}
    assert by_wgmma == {(128, 256, 64, 4)}
    assert alone.attr("expansion") == "cutlass"
    assert alone.attr("tile")[0][1:5] not in by_wgmma


@pytest.mark.parametrize("expansion", ["wgmma", "cutlass"])
def test_what_was_asked_for_is_taken(expansion: str) -> None:
    for types in (LARGE, ANY):
        op, said = after(types, H200, expansion)
        assert (op.attr("expansion"), said) == (expansion, "")
        assert all(by_wgmma == (most == 0 or most > 64) for most, by_wgmma in expansions(op))
    few, _ = after(("bf16[64, 1024]", "bf16[1024, 4096]", "bf16[64, 4096]"), H200, expansion)
    assert few.attr("expansion") is None


@pytest.mark.parametrize("expansion", ["native", "tf32", "cublaslt", "pure"])
def test_expansions_without_tiles_leave_the_native_ones(expansion: str) -> None:
    op, _ = after(ANY, H200, expansion)
    assert (op.attrs, op.attr("expansion")) == (after(ANY)[0].attrs, None)


# ------------------------------------------------------------------------------------ the attribute


def planned(tiles: str, attributes: str = 'expansion = "wgmma", ', rows: str = "S") -> str:
    """relu(x)·w with tiles; relu's result certainly begins at 16 bytes."""
    types = {"x": f"bf16[{rows}, 136]", "w": "bf16[136, 264]", "y": f"bf16[{rows}, 264]"}
    source = product_text(**types).replace("input @w", "weight @w")
    source = source.replace("    @y", f"    %0: {types['x']} = relu @x\n    @y")
    return source.replace("matmul @x, @w", f"matmul %0, @w {{{attributes}tile = {tiles}}}")


MIXED = (
    "[[8, 8, 64, 128, 1, 1], [64, 64, 64, 32, 5, 1], [130, 128, 128, 64, 6, 1], "
    "[0, 128, 256, 64, 4, 1]]"
)


def test_the_attribute_survives_text() -> None:
    source = planned(MIXED)
    assert 'expansion = "wgmma"' in show(parse(source))
    assert parse(show(parse(source))) == parse(source)


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ('"wgmma"', "7", "an expansion is a name, not 7"),
        ("relu @x", 'relu @x {expansion = "wgmma"}', "relu has no expansions; only matrix prod"),
    ],
)
def test_the_verifier_knows_the_attribute(before: str, now: str, said: str) -> None:
    verify(parse(planned(MIXED)))
    with pytest.raises(VerifyError, match=said):
        verify(parse(planned(MIXED).replace(before, now)))


def lowered(source: str, asked: dict[str, str] | None = None, name: str = "cuda:sm_90") -> Lowered:
    return lower(parse(source), parse_target(name), asked)


def test_an_operator_names_its_kernels() -> None:
    found = lowered(planned(MIXED))
    assert set(found.instances) == {"gemm", "gemm_wgmma"}
    (native,), (other,) = found.instances["gemm"], found.instances["gemm_wgmma"]
    assert "WIDTH | dfc::cuda::VECTOR | dfc::cuda::MEDIUM>" in native
    assert "WIDTH | dfc::cuda::LARGE | dfc::cuda::WIDE>" in other
    record = found.kernels[-1]
    assert record.implementation.startswith("wgmma gemm bf16 matrix-vector or 64x64x32 mma.sync or")
    assert record.implementation.endswith("128x256x64 wgmma")
    assert record.reason.startswith("least modelled time: up to 8 rows matrix-vector, up to 64 row")


def test_rows_that_are_a_number_need_one_expansion() -> None:
    assert set(lowered(planned(MIXED, rows="64")).instances) == {"gemm"}
    assert set(lowered(planned(MIXED, rows="65")).instances) == {"gemm_wgmma"}


def test_a_request_for_all_products_wins() -> None:
    found = lowered(planned(MIXED), {"matmul": "native"})
    assert set(found.instances) == {"gemm"}
    assert found.kernels[-1].implementation.startswith("native gemm")
    asked = lowered(planned(MIXED), {"matmul": "wgmma"}).kernels[-1]
    assert asked.reason.startswith("asked for: up to 8 rows matrix-vector")
    assert lowered(planned(MIXED), {"matmul": "cublaslt"}).kernels[-1].reason == "asked for"


def test_what_was_measured_says_so() -> None:
    found = lowered(planned(MIXED, 'expansion = "wgmma", tuned = true, '))
    assert found.kernels[-1].reason.startswith("measured: up to 8 rows matrix-vector")


@pytest.mark.parametrize(
    ("attributes", "target", "said"),
    [
        ('expansion = "tf32", ', "cuda:sm_90", "its expansion is tf32; one product may take nat"),
        ('expansion = "magic", ', "cuda:sm_90", "its expansion is magic; one product may take"),
        ('expansion = "wgmma", ', "cuda:sm_80", "wgmma is for bf16 or f16 on sm_90"),
        ("", "cuda:sm_90", r"no kernel has the tile \[128, 128, 64, 6\]"),
    ],
)
def test_expansions_that_an_operator_may_not_take(attributes: str, target: str, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        lowered(planned(MIXED, attributes), name=target)


@pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")
def test_the_attribute_changes_no_numbers() -> None:
    """Every range of rows, native and by wgmma, against float64."""
    random = np.random.default_rng(0)
    w = (random.standard_normal((136, 264)) / 16).astype(ml_dtypes.bfloat16)
    model = emulated_model(planned(MIXED).replace("weight @w", "input @w"))
    for rows in (1, 64, 65, 130, 131):
        x = random.standard_normal((rows, 136)).astype(ml_dtypes.bfloat16)
        expected = np.maximum(x.astype(np.float64), 0) @ w.astype(np.float64)
        assert_close(model.run({"x": x, "w": w})["y"], expected.astype(ml_dtypes.bfloat16))


# -------------------------------------------------------------------------------------- predictions


@pytest.mark.parametrize(
    ("attributes", "name", "parts"),
    [
        ("", "MEDIUM", 1),
        ("{tile = [[0, 64, 64, 32, 5, 4]]}", "MEDIUM", 4),
        ('{expansion = "cutlass", tile = [[0, 64, 128, 64, 8, 1]]}', "cutlass MEDIUM", 1),
    ],
)
def test_predictions_are_the_seconds_of_the_choice(attributes: str, name: str, parts: int) -> None:
    source = product_text(x="bf16[128, 768]", w="bf16[768, 768]", y="bf16[128, 768]")
    program = parse(source.replace("@x, @w", f"@x, @w {attributes}".strip()))
    machine = Machine.nominal(H200)
    (found,) = program_times(program, {}, machine)
    tiles: dict[str, Any] = {tile.name: tile for tile in gpu_expansions.tiles_of(NATIVE, 2, H200)}
    tiles |= {f"cutlass {tile.name}": tile for tile in WGMMA_TILES["cutlass"]}
    product = BlockProduct(1, 128, 768, 768, 2)
    expected = modelled(product, tiles[name], parts, H200).total + machine.meet_s
    assert found.seconds == pytest.approx(expected)


def test_a_residual_is_read_as_well() -> None:
    product = BlockProduct(1, 4096, 1024, 1024, 2)
    tile = WGMMA_TILES["cutlass"][0]
    with_residual = modelled(replace(product, operands=1), tile, 1, H200)
    added = with_residual.memory - modelled(product, tile, 1, H200).memory
    assert added == pytest.approx(2 * 4096 * 1024 / H200.memory_rate)


def test_a_tile_of_wgmma_counted_by_hand() -> None:
    """4096 × 1024 × 1024 on an H200: 128 tiles of 128 × 256, one for each multiprocessor."""
    found = modelled(BlockProduct(1, 4096, 1024, 1024, 2), WGMMA_TILES["cutlass"][0], 1, H200)
    assert found.compute == pytest.approx(2 * 128 * 256 * 1024 / (989e12 * 0.8 / 132))
    # Two products of 64 × 256 read 2·320 bytes each a step of k; copies write 2·384.
    assert found.shared == pytest.approx(1024 * (2 * 640 + 768) / 128 / 1.83e9)
    assert found.l2 == pytest.approx(128 * 1024 * (128 + 256) * 2 / 9.0e12)
