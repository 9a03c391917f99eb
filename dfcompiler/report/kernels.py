"""What each operator of a compiled program costs, and how it was implemented."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dfcompiler.analysis.cost import OpCost, op_costs
from dfcompiler.ir import Op, Program
from dfcompiler.lowering.lowered import KernelRecord


def kernel_rows(
    program: Program, kernels: Iterable[KernelRecord], symbols: Mapping[str, int]
) -> list[dict[str, Any]]:
    """One row for every operator, in program order, with its costs at one binding of the symbols.

    Moved bytes are those of the schedule chosen; the bound is that of the operator alone, None
    where there is no proof. An operator that was lowered in several parts lists all of them.
    """
    chosen: dict[tuple[str, str], list[KernelRecord]] = {}
    for record in kernels:
        chosen.setdefault(_key(record.op), []).append(record)
    return [_row(cost, chosen.get(_key(cost.op), [])) for cost in op_costs(program, symbols)]


def _key(op: Op) -> tuple[str, str]:
    """What tells an operator from others; the parts of one that is split keep its source."""
    return op.result.removesuffix(".next").lstrip("%@"), op.source


def _row(cost: OpCost, records: list[KernelRecord]) -> dict[str, Any]:
    op = cost.op
    return {
        "kind": f"fused {op.attr('kernel')}" if op.region else op.kind,
        "result": op.result,
        "type": str(op.type),
        "operators": [inner.kind for inner in op.region] or [op.kind],
        "sources": list(dict.fromkeys(o.source for o in (*op.region, op) if o.source)),
        "implementation": ", ".join(dict.fromkeys(r.implementation for r in records)),
        "reason": "; ".join(dict.fromkeys(r.reason for r in records if r.reason)),
        "runs": cost.runs,
        "flops": cost.flops,
        "moved_bytes": cost.moved_bytes,
        "io_bound_bytes": cost.io_bound_bytes,
        "theorem": cost.theorem,
    }
