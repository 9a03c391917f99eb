"""What a matrix product reads, by itself or in a fused region."""

from __future__ import annotations

from dfcompiler.ir import Op


def operands(op: Op) -> tuple[str, str] | None:
    """The names of A and B of a product by itself or in a fused region; None for anything else."""
    if op.kind == "matmul":
        return op.inputs[0], op.inputs[1]
    if op.kind != "fused" or op.attr("kernel", "") != "linear":
        return None
    before = {op.result: op.inputs[0] for op in op.region if op.kind in ("dequantize", "rms_norm")}
    a, b = next(inner for inner in op.region if inner.kind == "matmul").inputs
    return before.get(a, a), before.get(b, b)
