"""Tiles of products on GPUs: the model's figures counted by hand, and what the search chooses."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from math import ceil, isclose

import ml_dtypes
import numpy as np
import pytest
from rich.console import Console

from dfcompiler.analysis.gpu_expansions import WGMMA_TILES
from dfcompiler.analysis.gpu_plans import loop_tile, plans_from
from dfcompiler.analysis.gpu_tiles import TILES, BlockTile
from dfcompiler.analysis.gpu_tiling import RUNGS, best_plan, plans_of, splits
from dfcompiler.analysis.gpu_time import BlockProduct, modelled
from dfcompiler.analysis.io_bound.levels import kernel_bounds, levels_of
from dfcompiler.analysis.machine import Machine
from dfcompiler.analysis.tiling import Tile
from dfcompiler.ir import parse, show
from dfcompiler.pipeline import Step, assemble
from dfcompiler.report.bounds import bound_rows, bound_table
from dfcompiler.target import CudaTarget, parse_target
from tests.cuda_emulation import build, emulated_model, toolkit
from tests.programs import product_text
from tests.tolerances import assert_close

H200, A100 = (parse_target(name) for name in ("cuda:sm_90", "cuda:sm_80"))
assert isinstance(H200, CudaTarget)
assert isinstance(A100, CudaTarget)
ALL_TILES = [(width, tile) for width, tiles in TILES.items() for tile in tiles]

SHAPE = """
extern "C" int shape_{number}(long* found) {{
  using S = {shape};
  const long all[] = {{S::BM, S::BN, S::BK, S::STAGES, S::THREADS, S::SHARED_BYTES}};
  for (int i = 0; i < 6; ++i) found[i] = all[i];
  return 0;
}}
"""
SHAPES = {
    (4, "LARGE"): "FloatLarge",
    (4, "MEDIUM"): "FloatSmall",
    (2, "WIDE"): "TensorWide<__half>",
    (2, "LARGE"): "TensorLarge<__half>",
    (2, "MEDIUM"): "TensorMedium<__half>",
    (2, "FEW"): "TensorFew<__half>",
}
WGMMA_SHAPES = {"WIDE": "WgmmaWide", "LARGE": "WgmmaTurns"}


def tile_called(name: str, width: int = 2) -> BlockTile:
    (found,) = (tile for tile in TILES[width] if tile.name == name)
    return found


@pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")
def test_the_tiles_are_those_of_the_kernels() -> None:
    tiles = {shape: tile_called(name, width) for (width, name), shape in SHAPES.items()}
    tiles |= {WGMMA_SHAPES[tile.name]: tile for tile in WGMMA_TILES["wgmma"]}
    head = '#include "cuda/gemm_wgmma.cuh"\nusing namespace dfc::cuda;\n'
    texts = (SHAPE.format(number=i, shape=s) for i, s in enumerate(tiles))
    library = build(head + "".join(texts))
    for number, (shape, tile) in enumerate(tiles.items()):
        found = library.array((6,), np.int64)
        library.call(f"shape_{number}", found)
        assert found.tolist() == [*tile.shape, tile.threads, tile.shared_bytes], shape


@pytest.mark.parametrize("target", [H200, A100], ids=lambda target: target.device)
@pytest.mark.parametrize(("width", "tile"), ALL_TILES, ids=str)
def test_every_tile_fits_every_target(width: int, tile: BlockTile, target: CudaTarget) -> None:
    blocks = tile.resident(target)
    assert blocks >= 1
    assert blocks * (tile.shared_bytes + 1024) <= target.shared_bytes + 1024
    assert blocks * tile.threads * tile.registers <= target.registers


def test_a_tile_that_exceeds_shared_memory_is_not_chosen() -> None:
    small = replace(H200, shared_bytes=64 << 10)
    assert tile_called("LARGE").resident(small) == 1
    product = BlockProduct(1, 4096, 1024, 1024, 2)
    assert best_plan(product, H200).tile.name == "WIDE"
    middle = best_plan(product, replace(H200, shared_bytes=64 << 10))
    assert middle.tile.name == "LARGE"
    smaller = best_plan(product, replace(H200, shared_bytes=(64 << 10) - 1))
    assert smaller.tile.name == "MEDIUM"
    assert best_plan(product, replace(H200, shared_bytes=1 << 10)) is None
    assert plans_of(product, (4096,), replace(H200, shared_bytes=1 << 10)) is None


def test_the_model_of_a_large_tile_counted_by_hand() -> None:
    """4096 × 1024 × 1024 of bf16 on an H200: 256 tiles, two for the busiest multiprocessor."""
    found = modelled(BlockProduct(1, 4096, 1024, 1024, 2), tile_called("LARGE"), 1, H200)
    flops = 2 * 2 * 128 * 128 * 1024 / (989e12 * 0.63 / 132)
    # 8 warps read 2·(64 + 32) bytes and the block writes 2·(128 + 128), 128 bytes a cycle.
    shared = 2 * 1024 * (8 * 192 + 512) / 128 / 1.83e9
    assert isclose(found.compute, flops)
    assert isclose(found.shared, shared)
    assert isclose(found.l2, 256 * 1024 * (128 + 128) * 2 / 9.0e12)
    assert isclose(found.memory, 2 * (4096 * 1024 * 2 + 1024 * 1024) / 4.8e12)
    assert found.limit == "shared"
    assert found.total == found.shared


def test_another_tile_for_the_busiest_multiprocessor_costs_a_wave() -> None:
    """132 tiles are one wave; one more makes it two."""
    tile = tile_called("LARGE")
    one, two = (modelled(BlockProduct(1, 128 * n, 128, 4096, 2), tile, 1, H200) for n in (132, 133))
    assert isclose(two.compute, 2 * one.compute)
    assert isclose(two.shared, 2 * one.shared)


def test_a_weight_beyond_the_l2_is_read_for_each_group_of_tiles() -> None:
    """8 tiles of 128 rows share B; 64 MiB of it do not stay in 50."""
    product = BlockProduct(1, 2048, 8192, 4096, 2)
    tile = tile_called("LARGE")
    passes = (modelled(product, tile, 1, H200).memory * H200.memory_rate / 2) - 2048 * 12288
    assert isclose(passes / (8192 * 4096), 2)


def test_a_split_fills_idle_multiprocessors_and_pays_for_its_sums() -> None:
    product = BlockProduct(1, 32, 768, 3072, 2)
    tile = tile_called("MEDIUM")
    whole, split = (modelled(product, tile, parts, H200) for parts in (1, 8))
    assert split.latency < whole.latency / 4
    assert (whole.finish, split.finish > 0) == (0, True)
    extra = 2 * 8 * 4 * 32 * 768
    assert isclose(split.l2 - whole.l2, extra / H200.l2_rate)


@pytest.mark.parametrize("depth", [128, 255, 256, 768, 1000, 4096])
def test_parts_are_equal_and_as_deep_as_the_kernel_wants(depth: int) -> None:
    for parts in splits(BlockProduct(1, 16, 64, depth, 2), tile_called("FEW")):
        steps = ceil(ceil(depth / parts) / 32) * 32 if parts > 1 else depth
        assert parts == 1 or depth / parts >= 128
        assert (parts - 1) * steps < depth <= parts * steps


def test_partial_sums_have_room() -> None:
    product = BlockProduct(1, 4096, 1024, 4096, 2)
    assert list(splits(product, tile_called("LARGE"))) == [1, 2]
    many_tiles = BlockProduct(1 << 14, 8, 128, 4096, 2)
    assert list(splits(many_tiles, tile_called("FEW"))) == [1]


EXAMPLES = [
    # BERT-large, 8 × 512: the products of a layer.
    (H200, 2, (4096, 1024, 1024), ("WIDE", 1)),
    (H200, 2, (4096, 4096, 1024), ("WIDE", 1)),
    (H200, 2, (4096, 1024, 4096), ("WIDE", 1)),
    (A100, 2, (4096, 4096, 1024), ("WIDE", 1)),
    (H200, 4, (4096, 4096, 1024), ("LARGE", 1)),
    # BERT-base, 1 × 128: 6 tiles of 128 × 128 would leave 126 multiprocessors idle.
    (H200, 2, (128, 768, 768), ("MEDIUM", 1)),
    (H200, 2, (128, 3072, 768), ("MEDIUM", 1)),
    # A token of a decoder: bound by reading B.
    (H200, 2, (1, 8192, 2048), ("VECTOR", 2)),
    (H200, 4, (1, 8192, 2048), ("VECTOR", 1)),
    (H200, 2, (16, 4096, 4096), ("FEW", 3)),
]


@pytest.mark.parametrize(("target", "width", "extents", "chosen"), EXAMPLES)
def test_what_is_chosen(
    target: CudaTarget, width: int, extents: tuple[int, int, int], chosen: tuple[str, int]
) -> None:
    plan = best_plan(BlockProduct(1, *extents, width), target)
    assert (plan.tile.name, plan.parts) == chosen


@pytest.mark.parametrize("extents", [(1, 2048, 2048), (1, 3072, 2048), (1, 2048, 8192)])
def test_whole_columns_need_no_split(extents: tuple[int, int, int]) -> None:
    along_width, along_depth = (
        BlockProduct(1, *extents, 2),
        BlockProduct(1, *extents, 2, along_depth=True),
    )
    split, whole = (best_plan(product, H200) for product in (along_width, along_depth))
    assert (split.parts > 1, whole.parts, whole.tile.columns) == (True, 1, 16)
    seconds = modelled(along_depth, whole.tile, 1, H200)
    assert seconds.total < modelled(along_width, split.tile, split.parts, H200).total


@pytest.mark.parametrize("rows", [1, 9, 32, 100, 512, 4096])
@pytest.mark.parametrize("target", [H200, A100], ids=lambda target: target.device)
def test_nothing_is_much_faster_than_the_choice(rows: int, target: CudaTarget) -> None:
    """Against all tiles and splits; parts of unequal depth, which the search leaves out, too."""
    product = BlockProduct(1, rows, 1024, 1024, 2)
    plan = best_plan(product, target)
    least = min(
        modelled(product, tile, parts, target).total
        for tile in TILES[2]
        if (tile.name == "VECTOR") == (rows <= 8) and tile.splits_depth
        for parts in range(1, 9)
    )
    assert modelled(product, plan.tile, plan.parts, target).total <= 1.05 * least


@pytest.mark.parametrize("width", TILES)
@pytest.mark.parametrize(("columns", "depth"), [(1024, 1024), (3072, 768), (32000, 2048)])
def test_plans_for_any_number_of_rows(columns: int, depth: int, width: int) -> None:
    family = BlockProduct(1, 1, columns, depth, width)
    plans = plans_of(family, RUNGS, H200)
    assert plans_from(tuple(plan.attribute for plan in plans), width, H200) == plans
    assert plans[0].tile.name == "VECTOR"
    assert plans[0].most_rows == 8
    assert plans[-1].tile.rows == 128
    assert len({plan.tile for plan in plans}) <= 3
    losses = []
    for most in RUNGS:
        plan = next(p for p in plans if most <= p.most_rows or not p.most_rows)
        product = replace(family, rows=most)
        best = best_plan(product, H200)
        found, least = (modelled(product, p.tile, p.parts, H200).total for p in (plan, best))
        losses.append(found / least)
    assert np.mean(losses) <= 1.1, losses


def test_a_schedule_sees_the_tile_of_its_rows() -> None:
    attribute = ((64, 64, 64, 32, 5, 4), (0, 128, 128, 32, 4, 1))
    assert loop_tile(attribute, 64) == Tile(64, 64, 32, 64)
    assert loop_tile(attribute, 65) == Tile(128, 128, 32, 128)
    assert loop_tile((6, 64, 128, 516), 65) == Tile(6, 64, 128, 516)


@pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")
def test_a_product_with_the_plans_of_the_pass() -> None:
    """Through the pass, its text form, the lowering and the kernels, in several ranges of rows."""
    source = product_text(x="bf16[S, 264]", w="bf16[264, 1024]", y="bf16[S, 1024]")
    program = assemble(["tile-for-io"], H200).run(parse(source)).program
    (op,) = program.ops()
    model = emulated_model(show(program))
    random = np.random.default_rng(0)
    w = (random.standard_normal((264, 1024)) / 16).astype(ml_dtypes.bfloat16)
    ends = [most + 1 for most, *_ in op.attr("tile") if 0 < most < 200]
    assert ends
    for rows in (1, 7, *ends):
        x = random.standard_normal((rows, 264)).astype(ml_dtypes.bfloat16)
        expected = x.astype(np.float64) @ w.astype(np.float64)
        assert_close(model.run({"x": x, "w": w})["y"], expected.astype(ml_dtypes.bfloat16))


def test_the_table_of_bounds_shows_tiles() -> None:
    target, machine = parse_target("cpu:x86-64-v4"), Machine.nominal(H200)
    tile = "[[64, 64, 64, 32, 5, 4], [0, 128, 128, 32, 4, 1]]"
    source = product_text(x="bf16[S, 64]", w="bf16[64, 64]", y="bf16[S, 64]")
    program = parse(source.replace("@x, @w", f"@x, @w {{tile = {tile}}}"))
    found = bound_rows(
        kernel_bounds(program, {"B": 1, "S": 9}, levels_of(target, machine), machine)
    )
    console = Console(width=200, record=True, file=StringIO())
    console.print(bound_table(found, {"S": 9}))
    text = console.export_text()
    assert "tile 64×64×32×5×4 or" in text
    assert "128×128×32×4×1" in text


def after(x: str, w: str, y: str, **options: int) -> tuple[str, str]:
    """The tile that the pass gives a product, and why it gives none."""
    step = Step("tile-for-io", tuple(options.items()))
    result = assemble([step], H200).run(parse(product_text(x=x, w=w, y=y)))
    (op,) = result.program.ops()
    (record,) = result.records
    return str(op.attr("tile", "")), "; ".join(map(str, record.declined))


def test_a_product_of_one_size_has_one_tile() -> None:
    tile, declined = after("bf16[8, 512, 1024]", "bf16[1024, 4096]", "bf16[8, 512, 4096]")
    assert tile == "((0, 128, 256, 32, 4, 1),)"
    assert declined == ""


def test_a_product_of_any_rows_has_a_tile_for_few_and_one_for_many() -> None:
    tile, _ = after("bf16[B, S, 2048]", "bf16[2048, 8192]", "bf16[B, S, 8192]")
    assert tile.startswith("((8, 8, 64, 128, 1, 2), ")
    assert tile.endswith("(0, 128, 256, 32, 4, 1))")


def test_options_stand_for_the_device_s_figures() -> None:
    types = ("bf16[4096, 1024]", "bf16[1024, 4096]", "bf16[4096, 4096]")
    assert after(*types, l1_bytes=48 << 10)[0] == "((0, 64, 64, 32, 5, 1),)"
    tile, declined = after(*types, l1_bytes=1024)
    assert tile == ""
    assert "no tile fits a multiprocessor" in declined


def test_matrices_of_a_batch_are_no_rows() -> None:
    """12 matrices of 64 rows are not 768 rows of one."""
    batch, _ = after("f32[12, 64, 512]", "f32[12, 512, 64]", "f32[12, 64, 64]")
    rows, _ = after("f32[12, 64, 512]", "f32[512, 64]", "f32[12, 64, 64]")
    shared, _ = after("f32[12, 64, 512]", "f32[1, 512, 64]", "f32[12, 64, 64]")
    assert rows == shared
    family = BlockProduct(12, 64, 64, 512, 4)
    assert batch == str(tuple(plan.attribute for plan in plans_of(family, (64,), H200)))


@pytest.mark.parametrize(
    ("types", "said"),
    [
        (("f32[S, 64]", "f32[64, B]", "f32[S, B]"), "its columns or its depth vary"),
        (("bf16[S, 64]", "bf16[64, 36]", "bf16[S, 36]"), "36 columns are no multiple of 8"),
        (("f32[S, 33]", "f32[33, 32]", "f32[S, 32]"), "a depth of 33 or 32 columns are no mult"),
        (("f64[S, 64]", "f64[64, 32]", "f64[S, 32]"), "no kernel with tiles for f64 and f64 into"),
    ],
)
def test_why_a_product_has_no_tile(types: tuple[str, str, str], said: str) -> None:
    tile, declined = after(*types)
    assert tile == ""
    assert said in declined
