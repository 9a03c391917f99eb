"""Matrix products on a GPU, alone and with what is fused behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from dfcompiler.analysis.gpu_expansions import CHOICES, NATIVE
from dfcompiler.analysis.gpu_plans import Plan, plans_from
from dfcompiler.analysis.gpu_tiles import VECTOR_ROWS
from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.maps import add_launch
from dfcompiler.lowering.cuda.matmul_cutlass import (
    cutlass_flags,
    cutlass_record,
    why_not_cutlass,
)
from dfcompiler.lowering.cuda.matmul_kernels import (
    is_vector_plan,
    kernels_of,
    plan_code,
    plans_for,
    record_of,
    takes_columns,
)
from dfcompiler.lowering.cuda.product import Product, problem_of, product_of, unsupported
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import MapBody, add_map
from dfcompiler.lowering.maps import whole as whole_array
from dfcompiler.lowering.nodes.expansion import offset
from dfcompiler.lowering.nodes.matmul import Problem
from dfcompiler.lowering.symbolic import (
    contraction_work,
    expression,
    product,
    text,
)

STORAGE: Mapping[DType, str] = {
    DType.F32: "float",
    DType.BF16: "__nv_bfloat16",
    DType.F16: "__half",
}
"""Element types of products, as the kernels call them."""
IMPLEMENTATIONS: Mapping[str, str] = {
    "native": "",
    "tf32": "floats, rounded to tf32",
    "wgmma": "bf16 or f16 on sm_90",
    "cutlass": "bf16 or f16 on sm_90",
    "cublaslt": "",
    "pure": "",
}
"""Expansions of products, and what alone they are for; `native` is taken where none is named."""
FAMILIES: Mapping[str, str] = {
    "cublaslt": "gemm_lt",
    "wgmma": "gemm_wgmma",
    "cutlass": "gemm_cutlass",
}
"""The header of the kernels of each expansion that has one of its own."""
_SPACE = "dfc::cuda::"


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
        _add_pure(context, op, found, problem)
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
        (_template(context, op, found, problem, own or implementation, some), some)
        for own, some in runs(plans)
    ]
    code = _launch_code(op, found, problem, calls)
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
    if kind not in STORAGE or any(dtype is not kind for dtype in dtypes):
        names = ", ".join(dict.fromkeys(dtype.value for dtype in dtypes))
        raise unsupported(op, f"there is no kernel for operands of {names} into {kind.value}")


def runs(plans: Sequence[Plan]) -> list[tuple[str, Sequence[Plan]]]:
    """Neighbours among the plans that are of one expansion; one run of none for no plan."""
    found = [(name, list(some)) for name, some in groupby(plans, lambda p: p.tile.expansion)]
    return [*found] or [("", ())]


def _template(
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
    flags = [f"{_SPACE}Activation::{found.activation}", f"{_SPACE}Residual::{found.residual}"]
    if family == "gemm":
        flags.append(f"{_SPACE}Floats::{'tf32' if implementation == 'tf32' else 'exact'}")
    if implementation == "cutlass":
        flags += cutlass_flags(context, op, found, problem, dtype, plans)
    elif family != "gemm_lt":
        flags.append(kernels_of(context, op, (found.a, found.b), problem, implementation, plans))
    return _instance(context, family, f"{_SPACE}{family}<{dtype}, {', '.join(flags)}>", dtype)


def _instance(context: Context, family: str, template: str, dtype: str) -> str:
    """The launcher `template`, which the program instantiates."""
    signature = f"(cudaStream_t, {_SPACE}Gemm<{dtype}>)"
    context.instantiate(family, f"template cudaError_t {template}{signature};")
    return template


def _add_columns(
    context: Context, op: Op, found: Product, problem: Problem, implementation: str
) -> None:
    """The matrix-vector kernel, which alone normalizes rows and has the sums of gates."""
    if not takes_columns(problem, 16 // op.type.dtype.bytes):
        raise unsupported(
            op,
            "normalized rows and gates are for at most "
            f"{VECTOR_ROWS} rows, and for weights along depth in whole chunks of 16 bytes",
        )
    enums = {"Activation": found.activation, "Residual": found.residual, "Floats": "exact"}
    flags = [f"{_SPACE}{enum}::{name}" for enum, name in enums.items()]
    flags += [f"{_SPACE}DEPTH | {_SPACE}VECTOR"]
    flags += [f"{_SPACE}Norm::{'root_mean_square' if found.gain else 'none'}"]
    dtype = STORAGE[op.type.dtype]
    template = _instance(context, "gemm", f"{_SPACE}gemm<{dtype}, {', '.join(flags)}>", dtype)
    code = _launch_code(op, found, problem, [(template, ())])
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
    chunk = 16 // op.type.dtype.bytes
    vectors = (plan for plan in plans if plan.tile.name == "VECTOR")
    if not all(is_vector_plan(problem, plan, chunk) for plan in vectors):
        raise unsupported(
            op,
            f"a tile of {VECTOR_ROWS} rows is for at most as many, and for columns and depths of "
            f"whole 16 bytes; this is {op.type} with a depth of {problem.depth}",
        )
    return plans


def _launch_code(
    op: Op, found: Product, problem: Problem, calls: Sequence[tuple[str, Sequence[Plan]]]
) -> str:
    """The call; batch axes but the last one become loops of the host around it.

    Args:
        op: the product.
        found: its operands.
        problem: its extents and strides.
        calls: launchers, each with the plans that it takes, in the order of their rows.
    """
    dtype = STORAGE[op.type.dtype]
    outer = len(problem.batch[:-1])
    parameters = [f"_b{i}" for i in range(outer)]

    def at(connector: str) -> str:
        return f"{connector}{offset(parameters, problem.strides[connector][:outer])}"

    def stride(connector: str) -> str:
        inner = problem.strides[connector][:-2][outer:]
        return text(inner[0]) if inner else "0"

    def rows(connector: str) -> str:
        if problem.columns != 1 and problem.strides[connector][-1] != 1:
            raise UnsupportedError(f"operand {connector} of a matrix product has strided columns")
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
    gemm = f"{_SPACE}Gemm<{dtype}>{{{', '.join(fields)}}}"
    if found.gain:
        gemm = f"{gemm}.normalized(_gain, {found.epsilon!r}f)"
    if found.b_is_weight:
        gemm = f"{gemm}.with_weights()"
    launch = ""
    for number, (template, plans) in enumerate(calls, 1):
        if number < len(calls):
            launch += f"{text(problem.rows)} <= {plans[-1].most_rows} ? "
        planned = f"{gemm}.with({plan_code(problem, plans)})" if plans else gemm
        launch += f"{template}(__dace_current_stream, {planned})"
        launch += " : " if number < len(calls) else ""
    call = f"DFC_CUDA(__state, {launch});"
    for name, extent in reversed(list(zip(parameters, problem.batch[:-1], strict=True))):
        call = f"for (int64_t {name} = 0; {name} < {text(extent)}; ++{name}) {{\n{call}\n}}"
    return call


def _add_pure(context: Context, op: Op, found: Product, problem: Problem) -> None:
    """One thread for each element of C, which walks along k: slow, and the oracle of the others."""
    context.include(context.backend.scalars)
    context.include("cuda/storage.h")
    batch = [f"_b{i}" for i in range(len(problem.batch))]
    axes = [*batch, "_i", "_j"]

    def element(connector: str, indices: Sequence[str]) -> str:
        strides = offset(indices, problem.strides[connector])
        return f"dfc::cuda::to_float({connector}[0{strides}])"

    lines = [
        "float _sum = 0.0f;",
        f"for (int64_t _k = 0; _k < {text(problem.depth)}; ++_k)",
        f"  _sum += {element('_a', [*batch, '_i', '_k'])} * {element('_b', [*batch, '_k', '_j'])};",
    ]
    if found.bias:
        lines.append("_sum += dfc::cuda::to_float(_bias[_j]);")
    if found.activation != "none":
        lines.append(f"_sum = dfc::{found.activation}(_sum);")
    if found.other:
        sign = "+" if found.residual == "add" else "*"
        lines.append(f"_sum = _sum {sign} {element('_residual', axes)};")
    place = offset(axes, problem.strides["_o"])
    lines.append(f"_o[0{place}] = dfc::cuda::from_float<{STORAGE[op.type.dtype]}>(_sum);")
    extents = (*problem.batch, problem.rows, problem.columns)
    body = MapBody(
        label="product",
        ranges=list(zip(axes, extents, strict=True)),
        reads=[whole_array(context, c, context.array(n)) for c, n in found.reads.items()],
        writes=[whole_array(context, "_o", context.array(op.result))],
        code="\n".join(lines),
        work=_work(context, op, found),
    )
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "pure gemm", f"asked for{found.epilogue}"))


def _work(context: Context, op: Op, found: Product) -> Any:
    *batch, rows, columns = (expression(dim) for dim in op.type.shape)
    depth = expression(context.type(found.a).shape[-1])
    columns = 2 * columns if found.residual == "gate" else columns
    return contraction_work(columns * depth, product((*batch, rows)))
