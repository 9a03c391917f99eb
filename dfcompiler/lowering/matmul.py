"""Matrix products, alone and with what is fused behind them, as `MatMul` library nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.dims import Shape, same_shape
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType, TensorType
from dfcompiler.lowering.context import Context, location
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.nodes import MatMul
from dfcompiler.lowering.nodes.matmul import BLOCK_ROWS, STEP_DEPTH
from dfcompiler.lowering.symbolic import contraction_work, expression, product

ACTIVATIONS = ("gelu", "silu", "relu", "tanh", "sigmoid")
HEADER = "cpu/gemm.h"


@dataclass(frozen=True)
class Stage:
    """One step of an epilogue and the value it reads, if any."""

    kind: str
    operand: str = ""


def lower_matmul(context: Context, op: Op) -> None:
    """A matrix product by itself."""
    a, b = op.inputs
    _add_node(context, op, a, b, ())


def lower_linear(context: Context, op: Op) -> None:
    """The region [dequantize]; matmul; bias; activation; residual as one product.

    Raises:
        UnsupportedError: if the region holds anything else.
    """
    types = context.types_of(op)
    rest = list(op.region)
    codes = rest.pop(0) if rest and rest[0].kind == "dequantize" else None
    if not rest or rest[0].kind != "matmul":
        raise _unsupported(op, "it does not start with a matrix product")
    product = rest.pop(0)
    a, b = product.inputs
    stages: list[Stage] = []
    if codes is not None:
        if b != codes.result or len(codes.inputs) != 2:
            raise _unsupported(op, "its codes have zero points or are not the second operand")
        b, scale = codes.inputs
        stages.append(Stage(_scale_kind(op, types[scale].shape, product.type), scale))
    stages += stages_of(op, product.result, rest, types)
    _add_node(context, op, a, b, stages)


def _scale_kind(op: Op, shape: Shape, result: TensorType) -> str:
    ones = [dim for dim in shape if dim != 1]
    if not ones:
        return "scale"
    if len(ones) == 1 and same_shape(shape[-1:], result.shape[-1:]) and shape[-1] == ones[0]:
        return "column_scale"
    raise _unsupported(op, f"scales of shape {list(shape)} are not one for each column")


def stages_of(
    op: Op, value: str, rest: Sequence[Op], types: Mapping[str, TensorType]
) -> list[Stage]:
    """The epilogue that the operators behind a product's value are, each on the one before it.

    Raises:
        UnsupportedError: if one of them is no stage.
    """
    values = [value, *(inner.result for inner in rest)]
    return [stage_of(op, inner, v, types) for inner, v in zip(rest, values, strict=False)]


def operands(a: str, b: str, stages: Sequence[Stage]) -> dict[str, str]:
    """What a product with an epilogue reads, by connector."""
    return {"_a": a, "_b": b} | {f"_e{i}": s.operand for i, s in enumerate(stages) if s.operand}


def stage_of(op: Op, inner: Op, value: str, types: Mapping[str, TensorType]) -> Stage:
    """The stage of an epilogue that an operator on the product's value is.

    Raises:
        UnsupportedError: if it is none.
    """
    if inner.kind in ACTIVATIONS and inner.inputs == (value,):
        return Stage(activation_of(inner))
    if inner.kind in ("add", "mul") and value in inner.inputs:
        (operand,) = [name for name in inner.inputs if name != value] or [value]
        shape = types[operand].shape
        if operand != value and same_shape(shape, inner.type.shape):
            return Stage(inner.kind, operand)
        column = same_shape(shape[-1:], inner.type.shape[-1:])
        if operand != value and column and all(dim == 1 for dim in shape[:-1]):
            return Stage("bias" if inner.kind == "add" else "column_scale", operand)
    raise _unsupported(op, f"{inner.kind} is no stage of an epilogue")


def activation_of(op: Op) -> str:
    """What kernels call an activation."""
    tanh = op.kind == "gelu" and op.attr("approximate", "none") == "tanh"
    return "gelu_tanh" if tanh else op.kind


def _add_node(context: Context, op: Op, a: str, b: str, stages: Sequence[Stage]) -> None:
    implementation = context.expansion(op, "matmul", MatMul.implementations)
    _check(context, op, a, b)
    packed = context.type(b).layout.is_tiled
    kinds = [stage.kind for stage in stages]
    target = context.cpu
    node = MatMul("matmul", kinds, packed=packed, panel=target.gemm_nr, cores=target.cores)
    node.step_depth, node.block_rows = _tile(context, op)
    node.implementation = implementation
    context.include(HEADER)
    *batch, rows, columns = (expression(dim) for dim in op.type.shape)
    depth = expression(context.type(a).shape[-1])
    work = contraction_work(columns * depth, product((*batch, rows)))
    context.add_library_node(op, node, operands(a, b, stages), work)
    context.record(_record(context, op, b, implementation, kinds))


def _tile(context: Context, op: Op) -> tuple[int, int]:
    """Depth of a step of k and rows of a block: from `tile = [mr, nr, kc, mc]`, or the kernel's."""
    tile = op.attr("tile")
    if tile is None:
        return STEP_DEPTH, BLOCK_ROWS
    rows, columns, depth, block = (int(x) for x in cast("tuple[int, ...]", tile))
    if (rows, columns) != (context.cpu.gemm_mr, context.cpu.gemm_nr):
        raise _unsupported(op, f"the kernel has no register tile of {rows} × {columns}")
    if depth < 16 or depth % 16 or block < rows:
        raise _unsupported(op, f"a tile needs a depth of 16·n and {rows} rows, not {tile}")
    return depth, block


def _check(context: Context, op: Op, a: str, b: str) -> None:
    left, right = context.type(a).dtype, context.type(b).dtype
    if left not in (DType.F32, DType.F64) or right not in (left, DType.I8):
        raise _unsupported(op, f"there is no kernel for {left.value} times {right.value}")
    packed = context.type(b).layout
    if packed.is_tiled and f"{packed}" != f"1/{context.cpu.gemm_nr} 0 1%{context.cpu.gemm_nr}":
        raise _unsupported(op, f"the kernel does not read the layout {packed}")


def _record(
    context: Context, op: Op, b: str, implementation: str, stages: Sequence[str]
) -> KernelRecord:
    if implementation != "native":
        return KernelRecord(op, f"{implementation} gemm", "asked for")
    tile = f"{context.cpu.gemm_mr}x{context.cpu.gemm_nr}"
    right = context.type(b)
    codes = ", int8 codes" if right.dtype is DType.I8 else ""
    fused = f"; epilogue {' + '.join(stages)}" if stages else ""
    if right.layout.is_tiled:
        reason = f"a weight, packed at compile time{fused}"
        return KernelRecord(op, f"native gemm {tile}, packed B{codes}", reason)
    reason = f"B is computed or not packed: panels are copied while running{fused}"
    return KernelRecord(op, f"native gemm {tile}, strided B{codes}", reason)


def _unsupported(op: Op, reason: str) -> UnsupportedError:
    return UnsupportedError(f"this matrix product cannot be lowered: {reason}", location(op))
