"""Reductions on a GPU: teams of threads for rows, blocks for columns.

reduced axes, as one    x: │ part 0 │ part 1 │ … │       few results of many elements: blocks
▼        ▼                take parts of them, and a second map
%.parts: │ results, parts │      adds up the parts, in their order
▼
o                                the same result in every run
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dfcompiler.ir.dims import Dim
from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType, TensorType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.maps import BLOCK, add_row_map
from dfcompiler.lowering.cuda.row_maps import KERNELS, add_rows
from dfcompiler.lowering.cuda.threads import LOAD_BYTES, WARP, Team, team_of
from dfcompiler.lowering.loops import parameter
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, pointer
from dfcompiler.lowering.reduction import (
    Axes,
    accumulator_type,
    argmax_body,
    axes_of,
    cumsum_body,
    operation,
    positions,
    reduction_body,
    result_axes,
    result_of,
)
from dfcompiler.lowering.symbolic import (
    ceil_div,
    expression,
    is_static,
    product,
    quotient_and_rest,
    symbol,
    text,
)

HEADER = "cuda/reduction.h"
_PART_BYTES = 64 << 10
"""Least part of a reduction: what a block reads in the time that a second kernel takes."""
_PART, _COLUMNS, _R = "_part", "_columns", "_r"


def lower_reduction(context: Context, op: Op) -> None:
    """Rows or columns, depending on whether the innermost axis is reduced or kept."""
    axes = axes_of(context, op)
    context.include(HEADER, KERNELS)
    if axes.innermost in axes.kept:
        _lower_columns(context, op, axes)
    else:
        _lower_rows(context, op, axes)


# ---------------------------------------------------------------------------------- reduced axes


@dataclass(frozen=True)
class Runs:
    """Reduced axes that follow each other in memory as one, the outermost first.

    Attributes:
        extents: of the merged axes.
        steps: elements between neighbours along each.
    """

    extents: tuple[Any, ...]
    steps: tuple[Any, ...]

    @staticmethod
    def of(context: Context, name: str, axes: Axes) -> Runs:
        """The reduced axes of an operand, those merged that lie in one another."""
        extents: list[Any] = []
        steps: list[Any] = []
        for axis in reversed(axes.reduced):
            step, extent = context.stride(name, axis), axes.extents[axis]
            if steps and text(step) == text(steps[0] * extents[0]):
                extents[0] = extents[0] * extent
            else:
                extents.insert(0, extent)
                steps.insert(0, step)
        return Runs(tuple(extents), tuple(steps))

    @property
    def count(self) -> Any:
        """Positions in all runs together."""
        return product(self.extents)

    def offset(self, position: Any) -> Any:
        """Elements between the first position and the one with a number."""
        offset: Any = 0
        for extent, step in zip(self.extents[:0:-1], self.steps[:0:-1], strict=True):
            position, rest = quotient_and_rest(position, extent)
            offset = offset + rest * step
        return offset + position * self.steps[0] if self.steps else offset

    def inner(self) -> tuple[Runs, Any]:
        """The runs around the innermost one, and the elements of that."""
        return Runs(self.extents[:-1], self.steps[:-1]), self.extents[-1] if self.extents else 1


@dataclass(frozen=True)
class Parts:
    """How the positions of a reduction are split among blocks.

    Attributes:
        count: of the parts; 1 where nothing is split.
        begin: C++ of the first position of part `_part`.
        end: C++ of the one behind its last.
    """

    count: int
    begin: str
    end: str

    @staticmethod
    def of(context: Context, blocks: Any, positions: Any, position_bytes: Any) -> Parts:
        """Parts enough for every multiprocessor, each worth a block of its own.

        Args:
            context: for the target.
            blocks: that there are without parts; what is no number is taken to be enough.
            positions: to be split.
            position_bytes: what a block reads for each of them.
        """
        whole = Parts(1, "0", text(positions))
        if not is_static(blocks):
            return whole
        wanted = -(-2 * context.gpu.multiprocessors // int(blocks))
        if is_static(positions) and is_static(position_bytes):
            wanted = min(wanted, int(positions) * int(position_bytes) // _PART_BYTES)
        if wanted < 2:
            return whole
        # Whole packs, so that parts of a row begin at aligned addresses.
        length = ceil_div(ceil_div(positions, wanted), LOAD_BYTES) * LOAD_BYTES
        begin = f"int64_t({_PART}) * {text(length)}"
        return Parts(
            wanted, begin, f"dfc::minimum<int64_t>({begin} + {text(length)}, {text(positions)})"
        )

    @property
    def ranges(self) -> list[tuple[str, Any]]:
        return [(_PART, self.count)] if self.count > 1 else []


# ------------------------------------------------------------------------------------------- rows


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
    body = reduction_body(context, op, axes, [_folded(op, team, add)])
    written = _through_pointer(body.writes[0])
    value = result_of(op, axes, "_value")
    if parts.count > 1:
        written, value = _part_of(context, op, axes, parts), "_value"
    store = f"if (threadIdx.x == 0) *_o = {value};"
    body = replace(
        body,
        ranges=[*body.ranges, *parts.ranges],
        writes=[written],
        code=f"{body.code}\n{store}",
    )
    add_row_map(context, context.new_state(op), body, team)
    reason = f"the innermost axis is reduced: {team}"
    _finish(context, op, axes, parts, "dace-map + row folds", reason)


def _folded(op: Op, team: Team, add: str) -> str:
    """C++ that gives `_value` what `add` adds to `_total`."""
    kind = f"dfc::{operation(op)}, {accumulator_type(op)}, {team.threads}"
    return f"dfc::RowReduction<{kind}> _total;\n{add}\nconst auto _value = _total.value();"


def _through_pointer(write: Access) -> Access:
    """The write of code that writes ``*_o``, so that not every thread of a team has to."""
    return replace(write, pointer=True)


# ---------------------------------------------------------------------------------------- columns


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
        written = _part_of(context, op, axes, parts, {inner: column})
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


# ------------------------------------------------------------------------------------------ parts


def _parts_name(op: Op) -> str:
    return f"{op.result.replace('@', '%')}.parts"


def _part_of(
    context: Context, op: Op, axes: Axes, parts: Parts, begin: dict[int, Any] | None = None
) -> Access:
    """The place of part `_part` of the results, in a value [results, parts] made for it."""
    (name,) = op.inputs
    shape: tuple[Dim, ...] = tuple(context.type(name).shape[a] for a in axes.kept)
    room = TensorType(_part_dtype(op), (*shape, parts.count))
    context.define(Op(_parts_name(op), room, op.kind, op.inputs, source=op.source))
    place = [(begin or {}).get(a, symbol(parameter(a))) for a in axes.kept]
    walked = tuple(i for i, a in enumerate(axes.kept) if a in (begin or {}))
    array = context.array(_parts_name(op))
    return pointer(context, "_o", array, [*place, symbol(_PART)], walked)


def _part_dtype(op: Op) -> DType:
    """The element type in which a reduction adds up."""
    dtype = op.type.dtype
    if dtype is DType.BOOL:
        return DType.U8
    if op.kind == "reduce_mean" and not dtype.is_float:
        return DType.F64
    return DType.F32 if dtype.is_float and dtype.bytes < 4 else dtype


def _finish(
    context: Context, op: Op, axes: Axes, parts: Parts, implementation: str, reason: str
) -> None:
    """Adds up the parts where there are some; the record."""
    if parts.count > 1:
        _add_parts(context, op, axes, parts)
        reason = f"{reason}; in {parts.count} parts, which a second kernel adds up"
    context.record(KernelRecord(op, implementation, reason))


def _add_parts(context: Context, op: Op, axes: Axes, parts: Parts) -> None:
    name = _parts_name(op)
    results = product(axes.extents[a] for a in axes.kept)
    team = team_of(context, parts.count, results, _part_dtype(op).bytes)
    code = _folded(op, team, f"_total.add(_x, {parts.count});")
    begin: list[Any] = [symbol(parameter(a)) for a in axes.kept]
    body = reduction_body(context, op, axes, [code])
    body = replace(
        body,
        label=f"{op.kind}_parts",
        reads=[pointer(context, "_x", context.array(name), [*begin, 0], (len(begin),))],
        writes=[_through_pointer(body.writes[0])],
        code=f"{code}\nif (threadIdx.x == 0) *_o = {result_of(op, axes, '_value')};",
        work=results * parts.count,
    )
    add_row_map(context, context.new_state(op, "_parts"), body, team)


# ------------------------------------------------------------------------------- along one axis


def lower_argmax(context: Context, op: Op) -> None:
    """A team for each result."""
    (name,) = op.inputs
    axis, length, team = _team_along_operand(context, op)
    step = text(context.stride(name, axis))
    code = (
        f"const auto _position = dfc::argmax_row<{team.threads}>(_x, {step}, {text(length)});\n"
        "if (threadIdx.x == 0) *_o = _position;"
    )
    body = argmax_body(context, op, code)
    body = replace(body, writes=[_through_pointer(write) for write in body.writes])
    add_rows(context, op, body, team)
    reason = f"greatest value and its position; {team}"
    context.record(KernelRecord(op, "dace-map + row function", reason))


def lower_cumsum(context: Context, op: Op) -> None:
    """One block for each row."""
    _, _, team = _team_along_operand(context, op)
    team = Team(max(WARP, team.threads), team.packs)
    add_rows(context, op, cumsum_body(context, op), team)
    reason = f"a scan of tiles, in order; {team}"
    context.record(KernelRecord(op, "dace-map + row function", reason))


def _team_along_operand(context: Context, op: Op) -> tuple[int, Any, Team]:
    """The operator's axis, its extent, and a team for each row of the operand along it."""
    context.include(HEADER, KERNELS)
    source = context.type(op.inputs[0])
    axis = normalize_axis(int(op.attr("axis")), source.rank)
    length = expression(source.shape[axis])
    rows = product(expression(dim) for a, dim in enumerate(source.shape) if a != axis)
    return axis, length, team_of(context, length, rows, source.dtype.bytes)
