"""Matrix products on a GPU, alone and with what is fused behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from dfcompiler.analysis.gpu_expansions import CHOICES, NATIVE
from dfcompiler.analysis.gpu_plans import Plan, plans_from
from dfcompiler.analysis.gpu_tiles import CHUNK_BYTES, VECTOR_ROWS
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.cpp import SPACE, STORAGE
from dfcompiler.lowering.cuda.maps import add_launch
from dfcompiler.lowering.cuda.matmul_cutlass import cutlass_record, why_not_cutlass
from dfcompiler.lowering.cuda.matmul_kernels import (
    is_vector_plan,
    plans_for,
    takes_columns,
)
from dfcompiler.lowering.cuda.matmul_launch import instantiated, launch_code, launcher_of
from dfcompiler.lowering.cuda.matmul_pure import add_pure
from dfcompiler.lowering.cuda.matmul_record import record_of
from dfcompiler.lowering.cuda.product import Product, problem_of, product_of, unsupported
from dfcompiler.lowering.nodes.matmul import Problem
from dfcompiler.lowering.symbolic import (
    contraction_work,
    expression,
    product,
)

ELEMENTS = (DType.F32, DType.BF16, DType.F16)
"""Element types of products."""
IMPLEMENTATIONS: Mapping[str, str] = {
    "native": "",
    "tf32": "floats, rounded to tf32",
    "wgmma": "bf16 or f16 on sm_90",
    "cutlass": "bf16 or f16 on sm_90",
    "cublaslt": "",
    "pure": "",
}
"""Expansions of products, and what alone they are for; `native` is taken where none is named."""


def lower_product(context: Context, op: Op) -> None:
    """A matrix product, or the region norm; matmul; bias; activation; residual; rounding, at once.

    A gate is the region matmul; both halves of its columns; activation; mul.

    Raises:
        UnsupportedError: if the region holds anything else, or there is no kernel for its types.
    """
    found = product_of(context, op)
    _check_types(context, op, found)
    chosen = str(op.attr("expansion", NATIVE))
    if chosen not in CHOICES:
        there = ", ".join(CHOICES)
        raise unsupported(op, f"its expansion is {chosen}; one product may take {there}")
    implementation = context.expansion(op, "matmul", IMPLEMENTATIONS, chosen)
    is_float, is_hopper = op.type.dtype is DType.F32, context.gpu.arch == "90a"
    if (implementation == "tf32" and not is_float) or (
        implementation in ("wgmma", "cutlass") and (is_float or not is_hopper)
    ):
        scope = IMPLEMENTATIONS[implementation]
        found_here = f"{op.type.dtype.value} on {context.gpu.name}"
        raise unsupported(op, f"{implementation} is for {scope}; this is {found_here}")
    problem = problem_of(context, op, found)
    if not found.is_plain:
        _add_columns(context, op, found, problem, implementation)
    elif implementation == "pure":
        add_pure(context, op, found, problem, _work(context, op, found))
    else:
        _add_launches(context, op, found, problem, implementation, chosen)


def _add_launches(
    context: Context,
    op: Op,
    found: Product,
    problem: Problem,
    implementation: str,
    chosen: str,
) -> None:
    """The launcher of each expansion that the plans name, for its ranges of rows."""
    # What CUTLASS cannot take is a product as if it had not been asked for.
    why_not = why_not_cutlass(problem) if implementation == "cutlass" else ""
    if why_not:
        implementation = NATIVE if chosen == "cutlass" else chosen
    # Plans are for the kernels that the operator names.
    plans = _plans_of(context, op, problem) if implementation == chosen else ()
    calls = [
        (launcher_of(context, op, found, problem, own or implementation, some), some)
        for own, some in runs(plans)
    ]
    code = launch_code(op, found, problem, calls)
    add_launch(context, op, found.reads, code, work=_work(context, op, found))
    if implementation == "cutlass" and not plans:
        context.record(cutlass_record(context, op, found, problem))
        return
    why = "measured" if op.attr("tuned", False) else "least modelled time"
    if implementation == context.expansions.get("matmul", NATIVE) != NATIVE:
        why = "asked for"
    record = record_of(op, why, found.epilogue, problem, implementation, plans)
    reason = f"not cutlass, because {why_not}; {record.reason}" if why_not else record.reason
    context.record(replace(record, reason=reason))


def _check_types(context: Context, op: Op, found: Product) -> None:
    for name in found.reads.values():
        if context.type(name).layout.is_tiled:
            layout = context.type(name).layout
            raise unsupported(op, f"the kernel does not read the layout {layout} of {name}")
    dtypes = [context.type(name).dtype for name in found.reads.values()]
    kind = op.type.dtype
    if kind not in ELEMENTS or any(dtype is not kind for dtype in dtypes):
        names = ", ".join(dict.fromkeys(dtype.value for dtype in dtypes))
        raise unsupported(op, f"there is no kernel for operands of {names} into {kind.value}")


def runs(plans: Sequence[Plan]) -> list[tuple[str, Sequence[Plan]]]:
    """Neighbours among the plans that are of one expansion; one run of none for no plan."""
    found = [(name, list(some)) for name, some in groupby(plans, lambda p: p.tile.expansion)]
    return [*found] or [("", ())]


def _add_columns(
    context: Context, op: Op, found: Product, problem: Problem, implementation: str
) -> None:
    """The matrix-vector kernel, which alone normalizes rows and has the sums of gates."""
    if not takes_columns(problem, CHUNK_BYTES // op.type.dtype.bytes):
        raise unsupported(
            op,
            "normalized rows and gates are for at most "
            f"{VECTOR_ROWS} rows, and for weights along depth in whole chunks of 16 bytes",
        )
    enums = {"Activation": found.activation, "Residual": found.residual, "Floats": "exact"}
    flags = [f"{SPACE}{enum}::{name}" for enum, name in enums.items()]
    flags += [f"{SPACE}DEPTH | {SPACE}VECTOR"]
    flags += [f"{SPACE}Norm::{'root_mean_square' if found.gain else 'none'}"]
    dtype = STORAGE[op.type.dtype]
    template = instantiated(context, "gemm", f"{SPACE}gemm<{dtype}, {', '.join(flags)}>", dtype)
    code = launch_code(op, found, problem, [(template, ())])
    add_launch(context, op, found.reads, code, work=_work(context, op, found))
    asked = "" if implementation == NATIVE else f"; {implementation} has no such kernel"
    record = record_of(op, "few rows", found.epilogue, problem, NATIVE, ())
    context.record(replace(record, reason=record.reason + asked))


def _plans_of(context: Context, op: Op, problem: Problem) -> tuple[Plan, ...]:
    """The plans of the operator's `tile` that the product can take; none if it has no tile."""
    if "tile" not in op.attrs:
        return ()
    expansion = str(op.attr("expansion", NATIVE))
    try:
        plans = plans_from(op.attr("tile"), op.type.dtype.bytes, context.gpu, expansion)
    except ValueError as error:
        raise unsupported(op, str(error)) from error
    plans = plans_for(problem, plans)
    chunk = CHUNK_BYTES // op.type.dtype.bytes
    vectors = (plan for plan in plans if plan.tile.name == "VECTOR")
    if not all(is_vector_plan(problem, plan, chunk) for plan in vectors):
        raise unsupported(
            op,
            f"a tile of {VECTOR_ROWS} rows is for at most as many, and for columns and depths of "
            f"whole 16 bytes; this is {op.type} with a depth of {problem.depth}",
        )
    return plans


def _work(context: Context, op: Op, found: Product) -> Any:
    *batch, rows, columns = (expression(dim) for dim in op.type.shape)
    depth = expression(context.type(found.a).shape[-1])
    columns = 2 * columns if found.residual == "gate" else columns
    return contraction_work(columns * depth, product((*batch, rows)))
