"""Calls of the launchers of matrix products: their templates, and the host code around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dfcompiler.analysis.gpu_plans import Plan
from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.cpp import SPACE, STORAGE, checked
from dfcompiler.lowering.cuda.matmul_cutlass import cutlass_flags
from dfcompiler.lowering.cuda.matmul_kernels import kernels_of, plan_code
from dfcompiler.lowering.cuda.product import Product, unsupported
from dfcompiler.lowering.nodes.expansion import offset
from dfcompiler.lowering.nodes.matmul import Problem
from dfcompiler.lowering.symbolic import text

FAMILIES: Mapping[str, str] = {
    "cublaslt": "gemm_lt",
    "wgmma": "gemm_wgmma",
    "cutlass": "gemm_cutlass",
}
"""The header of the kernels of each expansion that has one of its own."""


def launcher_of(
    context: Context,
    op: Op,
    found: Product,
    problem: Problem,
    implementation: str,
    plans: Sequence[Plan],
) -> str:
    """The launcher of an expansion with these plans, which the program instantiates."""
    family = FAMILIES.get(implementation, "gemm")
    dtype = STORAGE[op.type.dtype]
    flags = [f"{SPACE}Activation::{found.activation}", f"{SPACE}Residual::{found.residual}"]
    if family == "gemm":
        flags.append(f"{SPACE}Floats::{'tf32' if implementation == 'tf32' else 'exact'}")
    if implementation == "cutlass":
        flags += cutlass_flags(context, op, found, problem, dtype, plans)
    elif family != "gemm_lt":
        flags.append(kernels_of(context, op, (found.a, found.b), problem, implementation, plans))
    return instantiated(context, family, f"{SPACE}{family}<{dtype}, {', '.join(flags)}>", dtype)


def instantiated(context: Context, family: str, template: str, dtype: str) -> str:
    """The launcher `template` of a family, which the program instantiates."""
    signature = f"(cudaStream_t, {SPACE}Gemm<{dtype}>)"
    context.instantiate(family, f"template cudaError_t {template}{signature};")
    return template


def launch_code(
    op: Op, found: Product, problem: Problem, calls: Sequence[tuple[str, Sequence[Plan]]]
) -> str:
    """The call; batch axes but the last one become loops of the host around it.

    Args:
        op: the product.
        found: its operands.
        problem: its extents and strides.
        calls: launchers, each with the plans that it takes, in the order of their rows.

    Raises:
        UnsupportedError: if rows of the result or of the residual are not contiguous.
    """
    outer = [f"_b{i}" for i in range(len(problem.batch[:-1]))]
    gemm = _gemm(op, found, problem, outer)
    launches = []
    for number, (template, plans) in enumerate(calls, 1):
        planned = f"{gemm}.with({plan_code(problem, plans)})" if plans else gemm
        launch = f"{template}(__dace_current_stream, {planned})"
        few = f"{text(problem.rows)} <= {plans[-1].most_rows} ? " if number < len(calls) else ""
        launches.append(few + launch)
    call = checked(" : ".join(launches))
    for name, extent in reversed(list(zip(outer, problem.batch[:-1], strict=True))):
        call = f"for (int64_t {name} = 0; {name} < {text(extent)}; ++{name}) {{\n{call}\n}}"
    return call


def _gemm(op: Op, found: Product, problem: Problem, outer: Sequence[str]) -> str:
    """C++ of the problem, `Gemm` of ``gemm.h``, at the batch that the loops `outer` are at."""

    def at(connector: str) -> str:
        return f"{connector}{offset(outer, problem.strides[connector][: len(outer)])}"

    def stride(connector: str) -> str:
        inner = problem.strides[connector][:-2][len(outer) :]
        return text(inner[0]) if inner else "0"

    def rows(connector: str) -> str:
        if problem.columns != 1 and problem.strides[connector][-1] != 1:
            what = "its result" if connector == "_o" else "the value that it is combined with"
            raise unsupported(op, f"{what} has strided columns")
        return text(problem.strides[connector][-2])

    def matrix(connector: str) -> str:
        row, column = problem.strides[connector][-2:]
        return f"{at(connector)}, {text(row)}, {text(column)}, {stride(connector)}"

    extents = (problem.batch[-1] if problem.batch else 1, problem.rows, problem.columns)
    sizes = ", ".join(map(text, (*extents, problem.depth)))
    fields = [sizes, matrix("_a"), matrix("_b"), f"{at('_o')}, {rows('_o')}, {stride('_o')}"]
    if found.bias or found.other:
        fields.append("_bias" if found.bias else "nullptr")
    if found.other:
        fields.append(f"{at('_residual')}, {rows('_residual')}, {stride('_residual')}")
    gemm = f"{SPACE}Gemm<{STORAGE[op.type.dtype]}>{{{', '.join(fields)}}}"
    if found.gain:
        gemm = f"{gemm}.normalized(_gain, {found.epsilon!r}f)"
    return f"{gemm}.with_weights()" if found.b_is_weight else gemm
