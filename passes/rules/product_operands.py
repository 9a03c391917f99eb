"""What a matrix product reads, by itself or in a fused region."""

from __future__ import annotations

from dfcompiler.ir import Op


def operands(op: Op) -> tuple[str, str] | None:
    """The names of A and B of a product by itself or in a fused region; None for anything else."""
    if op.kind == "matmul":
        return op.inputs[0], op.inputs[1]
    if op.kind != "fused" or op.attr("kernel", "") != "linear":
        return None
    codes = {inner.result: inner.inputs[0] for inner in op.region if inner.kind == "dequantize"}
    a, b = next(inner for inner in op.region if inner.kind == "matmul").inputs
    return a, codes.get(b, b)
