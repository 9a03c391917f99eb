"""Reductions on a GPU: teams of threads for rows, blocks for columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.maps import BLOCK, add_row_map
from dfcompiler.lowering.cuda.reduced_runs import Runs
from dfcompiler.lowering.cuda.reduction_parts import Parts, add_parts, folded, part_of
from dfcompiler.lowering.cuda.row_maps import KERNELS, written_once
from dfcompiler.lowering.cuda.threads import LOAD_BYTES, WARP, Team, team_of
from dfcompiler.lowering.loops import parameter
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import MapBody, pointer
from dfcompiler.lowering.reduction import (
    Axes,
    accumulator_type,
    axes_of,
    operation,
    positions,
    reduction_body,
    result_axes,
    result_of,
)
from dfcompiler.lowering.symbolic import ceil_div, is_static, product, symbol, text

HEADER = "cuda/reduction.h"
_R = "_r"


def lower_reduction(context: Context, op: Op) -> None:
    """Rows or columns, depending on whether the innermost axis is reduced or kept."""
    axes = axes_of(context, op)
    context.include(HEADER, KERNELS)
    if axes.innermost in axes.kept:
        _lower_columns(context, op, axes)
    else:
        _lower_rows(context, op, axes)


def _lower_rows(context: Context, op: Op, axes: Axes) -> None:
    """A team for each result, or for each part of one; it folds runs of neighbouring elements."""
    (name,) = op.inputs
    outer, run = Runs.of(context, name, axes).inner()
    results = product(axes.extents[a] for a in axes.kept)
    dtype = context.type(name).dtype
    team = team_of(context, run, results, dtype.bytes)
    split = outer.count if outer.extents else run
    bytes_each = dtype.bytes * run if outer.extents else dtype.bytes
    parts = Parts.of(context, results, split, bytes_each)
    if parts.count > 1 and not outer.extents:
        team = team_of(context, ceil_div(run, parts.count), results * parts.count, dtype.bytes)
    add = f"_total.add(_x + {parts.begin}, {parts.end} - {parts.begin});"
    if outer.extents:
        loop = f"for (int64_t {_R} = {parts.begin}; {_R} < {parts.end}; ++{_R})"
        add = f"{loop} _total.add(_x + {text(outer.offset(symbol(_R)))}, {text(run)});"
    body = reduction_body(context, op, axes, [folded(op, team, add)])
    value = result_of(op, axes, "_value")
    if parts.count > 1:
        written, value = part_of(context, op, axes, parts, {}), "_value"
        body = replace(body, ranges=[*body.ranges, *parts.ranges], writes=[written])
    add_row_map(context, context.new_state(op), written_once(body, value), team)
    reason = f"the innermost axis is reduced: {team}"
    _finish(context, op, axes, parts, "dace-map + row folds", reason)


def _lower_columns(context: Context, op: Op, axes: Axes) -> None:
    """Blocks of columns side by side, whose threads share the rows among each other."""
    (name,) = op.inputs
    source, inner = context.type(name), axes.innermost
    runs = Runs.of(context, name, axes)
    pack = LOAD_BYTES // source.dtype.bytes
    side = _side_by_side(axes.extents[inner], pack)
    columns, extent = side * pack, axes.extents[inner]
    blocks = {inner: ceil_div(extent, columns)}
    count = product(blocks.get(a, axes.extents[a]) for a in axes.kept)
    width = min(columns, int(extent)) if is_static(extent) else columns
    parts = Parts.of(context, count, runs.count, width * source.dtype.bytes)
    begin, place = positions(op, axes)
    column = symbol(parameter(inner)) * columns
    begin[inner] = column
    out_axis = result_axes(op, source.rank)[inner]
    place[out_axis] = column
    value, step = result_of(op, axes, "_v"), context.stride(op.result, out_axis)
    written = pointer(context, "_o", context.array(op.result), place, (out_axis,))
    if parts.count > 1:
        written = part_of(context, op, axes, parts, {inner: column})
        value, step = "_v", parts.count
    kind = f"dfc::{operation(op)}, {accumulator_type(op)}, {side}, {BLOCK // side}"
    pitches = [f"({text(step)}) * {source.dtype.bytes} % {LOAD_BYTES} == 0" for step in runs.steps]
    code = [
        f"dfc::reduce_columns<{kind}>(_x, {text(extent - column)}, {parts.begin}, {parts.end},",
        f"    {' && '.join(pitches) or 'true'},",
        f"    [=](int64_t {_R}) -> int64_t {{ return {text(runs.offset(symbol(_R)))}; }},",
        f"    [&](int64_t _j, {accumulator_type(op)} _v) {{ _o[_j * {text(step)}] = {value}; }});",
    ]
    body = MapBody(
        label=op.kind,
        ranges=[
            *((parameter(a), blocks.get(a, axes.extents[a])) for a in axes.kept),
            *parts.ranges,
        ],
        reads=[pointer(context, "_x", context.array(name), begin, (*axes.reduced, inner))],
        writes=[written],
        code="\n".join(code),
        work=product(axes.extents),
    )
    add_row_map(context, context.new_state(op), body, Team(BLOCK, 1))
    reason = f"the innermost axis is kept: {columns} columns by {BLOCK // side} rows a block"
    _finish(context, op, axes, parts, "dace-map + column folds", reason)


def _side_by_side(columns: Any, pack: int) -> int:
    """Threads along the columns: a power of two of packs that covers few of them."""
    if not is_static(columns):
        return WARP
    side = 1
    while side < WARP and side * pack < int(columns):
        side *= 2
    return side


def _finish(
    context: Context, op: Op, axes: Axes, parts: Parts, implementation: str, reason: str
) -> None:
    """Adds up the parts where there are some; the record."""
    if parts.count > 1:
        add_parts(context, op, axes, parts)
        reason = f"{reason}; in {parts.count} parts, which a second kernel adds up"
    context.record(KernelRecord(op, implementation, reason))
