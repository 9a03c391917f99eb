"""Matrix products on a GPU without any kernel: one thread for each element, the oracle in tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.cpp import SPACE, STORAGE
from dfcompiler.lowering.cuda.product import Product
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import MapBody, add_map, whole
from dfcompiler.lowering.nodes.expansion import offset
from dfcompiler.lowering.nodes.matmul import Problem
from dfcompiler.lowering.symbolic import text


def add_pure(context: Context, op: Op, found: Product, problem: Problem, work: Any) -> None:
    """One thread for each element of C, which walks along k: slow, and the oracle of the others."""
    context.include(context.backend.scalars)
    context.include("cuda/storage.h")
    batch = [f"_b{i}" for i in range(len(problem.batch))]
    axes = [*batch, "_i", "_j"]

    def element(connector: str, indices: Sequence[str]) -> str:
        strides = offset(indices, problem.strides[connector])
        return f"{SPACE}to_float({connector}[0{strides}])"

    lines = [
        "float _sum = 0.0f;",
        f"for (int64_t _k = 0; _k < {text(problem.depth)}; ++_k)",
        f"  _sum += {element('_a', [*batch, '_i', '_k'])} * {element('_b', [*batch, '_k', '_j'])};",
    ]
    if found.bias:
        lines.append(f"_sum += {SPACE}to_float(_bias[_j]);")
    if found.activation != "none":
        lines.append(f"_sum = dfc::{found.activation}(_sum);")
    if found.other:
        sign = "+" if found.residual == "add" else "*"
        lines.append(f"_sum = _sum {sign} {element('_residual', axes)};")
    place = offset(axes, problem.strides["_o"])
    lines.append(f"_o[0{place}] = {SPACE}from_float<{STORAGE[op.type.dtype]}>(_sum);")
    extents = (*problem.batch, problem.rows, problem.columns)
    body = MapBody(
        label="product",
        ranges=list(zip(axes, extents, strict=True)),
        reads=[whole(context, c, context.array(n)) for c, n in found.reads.items()],
        writes=[whole(context, "_o", context.array(op.result))],
        code="\n".join(lines),
        work=work,
    )
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "pure gemm", f"asked for{found.epilogue}"))
