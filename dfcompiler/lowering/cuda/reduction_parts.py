"""Reductions with few results of many elements, split among blocks.

reduced axes, as one    x: │ part 0 │ part 1 │ … │       blocks take parts of the axes, and a
▼        ▼                second map adds up the parts, in
%.parts: │ results, parts │      their order
▼
o                                the same result in every run
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dfcompiler.ir.dims import Dim
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType, TensorType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.maps import add_row_map
from dfcompiler.lowering.cuda.row_maps import written_once
from dfcompiler.lowering.cuda.threads import LOAD_BYTES, Team, team_of
from dfcompiler.lowering.loops import parameter
from dfcompiler.lowering.maps import Access, pointer
from dfcompiler.lowering.reduction import (
    Axes,
    accumulator_type,
    operation,
    reduction_body,
    result_of,
)
from dfcompiler.lowering.symbolic import ceil_div, is_static, product, symbol, text

_PART_BYTES = 64 << 10
"""Least part of a reduction: what a block reads in the time that a second kernel takes."""
PART = "_part"
"""The number of a part in the code of its block."""


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
        begin = f"int64_t({PART}) * {text(length)}"
        return Parts(
            wanted, begin, f"dfc::minimum<int64_t>({begin} + {text(length)}, {text(positions)})"
        )

    @property
    def ranges(self) -> list[tuple[str, Any]]:
        return [(PART, self.count)] if self.count > 1 else []


def folded(op: Op, team: Team, add: str) -> str:
    """C++ that gives `_value` what `add` adds to `_total`."""
    kind = f"dfc::{operation(op)}, {accumulator_type(op)}, {team.threads}"
    return f"dfc::RowReduction<{kind}> _total;\n{add}\nconst auto _value = _total.value();"


def part_of(context: Context, op: Op, axes: Axes, parts: Parts, begin: Mapping[int, Any]) -> Access:
    """The place of part `_part` of the results, in a value [results, parts] made for it.

    Args:
        context: where the value is defined.
        op: the reduction.
        axes: its axes.
        parts: how they are split.
        begin: the first of the results side by side that a block has, by their axis.
    """
    (name,) = op.inputs
    shape: tuple[Dim, ...] = tuple(context.type(name).shape[a] for a in axes.kept)
    room = TensorType(_part_dtype(op), (*shape, parts.count))
    context.define(Op(_parts_name(op), room, op.kind, op.inputs, source=op.source))
    place = [begin.get(a, symbol(parameter(a))) for a in axes.kept]
    walked = tuple(i for i, a in enumerate(axes.kept) if a in begin)
    array = context.array(_parts_name(op))
    return pointer(context, "_o", array, [*place, symbol(PART)], walked)


def add_parts(context: Context, op: Op, axes: Axes, parts: Parts) -> None:
    """The map that adds up the parts of each result."""
    name = _parts_name(op)
    results = product(axes.extents[a] for a in axes.kept)
    team = team_of(context, parts.count, results, _part_dtype(op).bytes)
    begin: list[Any] = [symbol(parameter(a)) for a in axes.kept]
    body = reduction_body(context, op, axes, [folded(op, team, f"_total.add(_x, {parts.count});")])
    body = replace(
        body,
        label=f"{op.kind}_parts",
        reads=[pointer(context, "_x", context.array(name), [*begin, 0], (len(begin),))],
        work=results * parts.count,
    )
    state = context.new_state(op, "_parts")
    add_row_map(context, state, written_once(body, result_of(op, axes, "_value")), team)


def _parts_name(op: Op) -> str:
    return f"{op.result.replace('@', '%')}.parts"


def _part_dtype(op: Op) -> DType:
    """The element type in which a reduction adds up."""
    dtype = op.type.dtype
    if dtype is DType.BOOL:
        return DType.U8
    if op.kind == "reduce_mean" and not dtype.is_float:
        return DType.F64
    return DType.F32 if dtype.is_float and dtype.bytes < 4 else dtype
