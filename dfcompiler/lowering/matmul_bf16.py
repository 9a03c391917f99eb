"""Products of bfloat16 operands, alone and with what is fused behind them; rounding to bfloat16."""

from __future__ import annotations

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context, location
from dfcompiler.lowering.elementwise import lower_elementwise
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import MapBody, add_map, whole
from dfcompiler.lowering.matmul import operands, stages_of
from dfcompiler.lowering.nodes import MatMulBf16
from dfcompiler.lowering.symbolic import ceil_div, contraction_work, expression, product, text

HEADER = "cpu/gemm_bf16.h"
# Elements that one iteration of a rounding map converts.
ROUND_BLOCK = 8192
# How many multiply-adds of a form take as long as one of float vectors.
_RATES = {"amx": 8, "bf16": 2, "": 1}
_FORMS = {
    "amx": "tiles of the processor (AMX)",
    "bf16": "dot products of pairs (AVX512_BF16)",
    "": "both halves of a pair widened to float",
}


def is_bf16_product(context: Context, op: Op) -> bool:
    """Whether an operator is a product of bfloat16 operands that adds up in float."""
    first = op.region[0] if op.region else op
    if first.kind != "matmul" or first.attr("accumulate", None) is not DType.F32:
        return False
    return all(context.type(name).dtype is DType.BF16 for name in first.inputs)


def lower_bf16_product(context: Context, op: Op) -> None:
    """The region matmul; bias; activation; residual; rounding, or a product alone.

    Raises:
        UnsupportedError: if the region holds anything else, or B is not packed for this kernel.
    """
    first, *rest = op.region or (op,)
    a, b = first.inputs
    if rest and rest[-1].kind == "cast" and rest[-1].type.dtype is DType.BF16:
        rest.pop()
    stages = stages_of(op, first.result, rest, context.types_of(op))
    implementation = context.expansion(op, "matmul", MatMulBf16.implementations)
    _check(context, op, b)
    kinds = [stage.kind for stage in stages]
    node = MatMulBf16("matmul", kinds, panel=context.cpu.bf16_nr)
    node.implementation = implementation
    context.include(HEADER)
    *batch, rows, columns = (expression(dim) for dim in op.type.shape)
    rate = _RATES[context.cpu.extension]
    elements = columns * expression(context.type(a).shape[-1])
    work = contraction_work(elements, ceil_div(product((*batch, rows)), rate))
    context.add_library_node(op, node, operands(a, b, stages), work)
    fused = f"; epilogue {' + '.join(kinds)}" if kinds else ""
    form = _FORMS[context.cpu.extension]
    context.record(
        KernelRecord(
            op,
            f"{implementation} gemm bf16",
            f"{form}, weights packed in pairs, sums in float{fused}",
            context.cpu.extension,
        )
    )


def _check(context: Context, op: Op, b: str) -> None:
    width, found = context.cpu.bf16_nr, str(context.type(b).layout)
    expected = f"1/{width} 0/2 1%{width} 0%2"
    if found != expected:
        raise UnsupportedError(
            f"this product of bfloat16 reads B in the layout {expected}, found "
            f"{found or 'row-major'}",
            location(op),
            hint="pack-weights gives weights this layout",
        )


def lower_cast(context: Context, op: Op) -> None:
    """Rounding of whole rows to bfloat16; other casts element by element."""
    (name,) = op.inputs
    source = context.type(name)
    plain = source.layout == op.type.layout and not source.layout.is_tiled
    if (source.dtype, op.type.dtype) != (DType.F32, DType.BF16) or not plain:
        lower_elementwise(context, op)
        return
    if any(context.stride(name, a) != context.stride(op.result, a) for a in range(op.type.rank)):
        lower_elementwise(context, op)
        return
    count = expression(op.type.elements)
    context.include(HEADER)
    body = MapBody(
        label="round",
        ranges=[("_block", ceil_div(count, ROUND_BLOCK))],
        reads=[whole(context, "_x", context.array(name))],
        writes=[whole(context, "_o", context.array(op.result))],
        code=f"dfc::round_block(reinterpret_cast<dfc::bf16*>(_o), _x, _block, {ROUND_BLOCK}, "
        f"{text(count)});",
        work=count,
    )
    add_map(context, context.new_state(op), body)
    extension = context.cpu.extension
    context.record(KernelRecord(op, "dace-map + rounding", "rows to bfloat16", extension))
