"""Lower bounds of the operators and fused regions of a program."""

from __future__ import annotations

from dfcompiler.analysis.cost import op_costs
from dfcompiler.analysis.io_bound import gemm, rows
from dfcompiler.analysis.io_bound.gemm import Product
from dfcompiler.analysis.io_bound.operator import op_bound
from dfcompiler.analysis.io_bound.words import bits_per_value, bytes_of_elements
from dfcompiler.ir import DType, Op, TensorType
from dfcompiler.ir.types import Affine
from tests.one_state import program_of


def bounds_of(ops: str, containers: str, fast_bytes: int) -> list[tuple[int, str]]:
    program = program_of(ops, containers)
    costs = op_costs(program, {}, fast_bytes)
    assert all(c.io_bound_bytes is not None and c.io_bound_bytes <= c.moved_bytes for c in costs)
    return [(int(c.io_bound_bytes or 0), c.theorem) for c in costs]


def test_words_by_encoding() -> None:
    assert bits_per_value(4, 128, 16, 16) == 4.25
    weight = TensorType(DType.F32, (256, 512), encoding=Affine(4, 0, 128, DType.F16, False))
    assert bytes_of_elements(weight, 256 * 512) * 8 / (256 * 512) == bits_per_value(4, 128, 16)
    assert bytes_of_elements(weight, 128 * 512) == bytes_of_elements(weight, 256 * 512) // 2


def test_an_epilogue_adds_what_it_reads() -> None:
    containers = """input @x: f32[512, 512]
        weight @w: f32[512, 512]
        weight @b: f32[512]
        input @r: f32[512, 512]
        output @y: f32[512, 512]"""
    ((alone, _),) = bounds_of("@y: f32[512, 512] = matmul @x, @w", containers, 1 << 14)
    region = """@y: f32[512, 512] = fused @x, @w, @b, @r {kernel = "linear"} do
        %0: f32[512, 512] = matmul @x, @w
        %1: f32[512, 512] = add %0, @b
        %2: f32[512, 512] = gelu %1
        %3: f32[512, 512] = add %2, @r
        end"""
    ((fused, theorem),) = bounds_of(region, containers, 1 << 14)
    assert fused == alone + 4 * (512 + 512 * 512)
    assert "1908.09606" in theorem


def test_a_result_that_is_reduced_need_not_be_stored() -> None:
    containers = """input @x: f32[512, 512]
        weight @w: f32[512, 512]
        output @y: f32[512]"""
    region = """@y: f32[512] = fused @x, @w do
        %0: f32[512, 512] = matmul @x, @w
        %1: f32[512] = reduce_sum %0 {axes = [0]}
        end"""
    fast = 1 << 12
    ((found, theorem),) = bounds_of(region, containers, fast)
    reads = gemm.segment_words(Product(512, 512, 512), 1 << 10) - 512 * 512
    assert found == 4 * (reads + 512)
    assert "1702.02017" in theorem


def test_an_operand_multiplied_with_itself_has_the_compulsory_bound() -> None:
    containers = "input @x: f32[512, 512]\noutput @y: f32[512, 512]"
    region = """@y: f32[512, 512] = fused @x do
        %0: f32[512, 512] = transpose @x {perm = [1, 0]}
        %1: f32[512, 512] = matmul @x, %0
        end"""
    program = program_of(region, containers)
    (op,) = program.ops()
    assert isinstance(op, Op)
    assert op_bound(op, (program.container("x").type,), 1 << 12) == (
        4 * 2 * 512 * 512,
        gemm.COMPULSORY,
    )


def test_rows_that_do_not_fit_are_read_again() -> None:
    containers = "input @x: f32[8, 4096]\noutput @y: f32[8, 4096]"
    ((found, theorem),) = bounds_of("@y: f32[8, 4096] = softmax @x {axis = 1}", containers, 1 << 12)
    assert found == 4 * (2 * 8 * 4096 + 8 * (4096 - 1024))
    assert theorem == rows.ROWS
    ((fits, _),) = bounds_of("@y: f32[8, 4096] = softmax @x {axis = 1}", containers, 1 << 16)
    assert fits == 4 * 2 * 8 * 4096


def test_attention_at_its_own_size() -> None:
    containers = """input @q: f32[1, 2, 4096, 8]
        input @k: f32[1, 2, 4096, 8]
        input @v: f32[1, 2, 4096, 8]
        output @y: f32[1, 2, 4096, 8]"""
    text = "@y: f32[1, 2, 4096, 8] = attention @q, @k, @v {scale = 1.0}"
    ((found, theorem),) = bounds_of(text, containers, 1 << 11)
    assert "2402.07443" in theorem
    causal = text.replace("scale = 1.0", "scale = 1.0, causal = true")
    ((half, _),) = bounds_of(causal, containers, 1 << 11)
    compulsory = 4 * 4 * 2 * 4096 * 8
    assert compulsory <= half < found


def op_of(a: str, b: str, y: str, fast_bytes: int = 4096) -> int:
    program = program_of(
        f"@y: {y} = matmul @a, @b", f"input @a: {a}\ninput @b: {b}\noutput @y: {y}"
    )
    (cost,) = op_costs(program, {}, fast_bytes)
    assert cost.io_bound_bytes is not None
    return cost.io_bound_bytes


def test_batches_and_shared_operands() -> None:
    alone, _ = gemm.product_words(Product(512, 512, 512), 1024)
    batched, _ = gemm.product_words(Product(512, 512, 512, 4), 1024)
    assert batched == 4 * alone
    for fast in (1 << 12, 1 << 24):
        shared = op_of("f32[4, 512, 512]", "f32[512, 512]", "f32[4, 512, 512]", fast)
        assert shared == op_of("f32[2048, 512]", "f32[512, 512]", "f32[2048, 512]", fast)
    apart = op_of("f32[4, 512, 512]", "f32[4, 512, 512]", "f32[4, 512, 512]", 1 << 24)
    assert apart == shared + 3 * 4 * 512 * 512
