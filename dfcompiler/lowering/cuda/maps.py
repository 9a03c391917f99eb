"""How operators reach the GPU: kernels that DaCe makes of maps, and launches of our own.

    add_map      (`lowering.maps`)  one thread for each iteration; neighbours have neighbouring
                                    iterations of the innermost range
    add_row_map                     a team of threads for each iteration; all of them run the code
    add_launch                      host code between kernels, which launches a kernel of ours

A map of one thread for each iteration:

         inner range ──▶
    ┌──────────┬──────────┬───┐
    │ threads  │  block   │   │  ranges
    │   x × y  │          │   │    0 … -2, as one
    ├──────────┼──────────┤   │      │
    └──────────┴──────────┴───┘      ▼

Blocks are counted along x over the outer ranges (up to 2³¹) and along y over the inner one (65535).
Where the elements lie in the order of the iterations, all ranges are one, and a thread takes
several of them (`cuda.packs`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dace
import sympy
from dace import dtypes, subsets
from dace.sdfg import nodes

from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.packs import ELEMENT, in_packs, is_flat
from dfcompiler.lowering.cuda.threads import Team
from dfcompiler.lowering.maps import ONCE, Access, MapBody, add_scopes, add_tasklet, whole
from dfcompiler.lowering.symbolic import is_static, product, quotient_and_rest, symbol, text

BLOCK = 256
"""Threads of a block of a map; with up to 8 such blocks a multiprocessor is full."""
_BLOCK_X, _BLOCK_Y = "_block_x", "_block_y"
_OUTER, _ROW, _ROWS, _THREAD = "_outer", "_row", "_rows", "_thread"


def add_thread_map(context: Context, state: dace.SDFGState, body: MapBody) -> None:
    """Adds a map with one thread for each iteration; `body.serial` means nothing here."""
    ranges = list(body.ranges) or [ONCE]
    if is_flat(context, body, _values(ranges, ELEMENT)):
        _, extent, body = _as_one(body, ranges, ELEMENT)
        body = in_packs(context, body, extent) or replace(body, ranges=[(ELEMENT, extent)])
        ranges = list(body.ranges)
    *outer, (inner, columns) = ranges
    width = _threads_along(columns)
    if not outer:
        _add_blocks(context, state, body, [(_BLOCK_X, inner, columns, width)])
        return
    name, rows, body = _as_one(body, outer, _OUTER)
    blocks = [(_BLOCK_Y, inner, columns, width), (_BLOCK_X, name, rows, BLOCK // width)]
    _add_blocks(context, state, body, blocks)


def add_row_map(context: Context, state: dace.SDFGState, body: MapBody, team: Team) -> None:
    """Adds a map with a team of threads for each iteration; all of them run `body.code`.

    The code calls device functions that share the work among the threads of the team; nothing but
    such calls may write. Teams of a block lie along y, the threads of a team along x.
    """
    name, rows, body = _as_one(body, list(body.ranges) or [ONCE], _ROW)
    inside: dict[str, tuple[Any, Any, Any]] = {_THREAD: (0, team.threads - 1, 1)}
    if team.rows == 1:
        grid = _device_map(body.label, {name: (0, rows - 1, 1)})
    else:
        grid = _device_map(body.label, {_ROWS: (0, rows - 1, team.rows)})
        last = sympy.Min(symbol(_ROWS) + team.rows - 1, rows - 1)
        inside = {name: (symbol(_ROWS), last, 1), **inside}
    block = nodes.Map(
        f"{body.label}_threads",
        list(inside),
        subsets.Range(list(inside.values())),
        dtypes.ScheduleType.GPU_ThreadBlock,
    )
    add_scopes(context, state, body, [grid, block])


def add_launch(
    context: Context,
    op: Op,
    reads: Mapping[str, str],
    code: str,
    *,
    work: Any,
) -> None:
    """Adds a state with host code that launches kernels on ``__dace_current_stream``.

    The code writes to the operator's result through ``_o``.

    Args:
        context: where to.
        op: the operator that the code computes.
        reads: device pointers to first elements: connector → ``%value`` or ``@container``.
        code: C++; calls are wrapped: ``DFC_CUDA(__state, dfc::cuda::gemm<…>(…));``.
        work: cost of the operator in element-wise operations.
    """
    context.include("cuda/check.h")
    context.works.append(work)
    state = context.new_state(op)
    ins = [whole(context, c, context.array(name)) for c, name in reads.items()]
    out = whole(context, "_o", context.array(op.result))
    add_tasklet(context, state, op.kind, ins, [out], code)


def _threads_along(extent: Any) -> int:
    """Threads of a block along the innermost range: a power of two that covers short ones."""
    if not is_static(extent):
        return BLOCK
    width = 1
    while width < min(int(extent), BLOCK):
        width *= 2
    return width


def _add_blocks(
    context: Context,
    state: dace.SDFGState,
    body: MapBody,
    blocks: Sequence[tuple[str, str, Any, int]],
) -> None:
    """A map over blocks and one over the threads of a block, for (block, param, extent, size)."""
    grid = _device_map(
        body.label, {name: (0, extent - 1, size) for name, _, extent, size in blocks}
    )
    # The innermost range has the threads of x, whichever axis its blocks are counted along.
    inside = {
        param: (symbol(name), sympy.Min(symbol(name) + size - 1, extent - 1), 1)
        for name, param, extent, size in reversed(blocks)
    }
    threads = nodes.Map(
        f"{body.label}_threads",
        list(inside),
        subsets.Range(list(inside.values())),
        dtypes.ScheduleType.GPU_ThreadBlock,
    )
    add_scopes(context, state, body, [grid, threads])


def _device_map(label: str, ranges: Mapping[str, tuple[Any, Any, Any]]) -> nodes.Map:
    return nodes.Map(
        label,
        list(ranges),
        subsets.Range(list(ranges.values())),
        dtypes.ScheduleType.GPU_Device,
    )


def _as_one(
    body: MapBody, ranges: Sequence[tuple[str, Any]], name: str
) -> tuple[str, Any, MapBody]:
    """`ranges` as one parameter: its name, its extent, and the body with their values from it."""
    values = _values(ranges, name)

    def moved(access: Access) -> Access:
        subset = subsets.Range([tuple(_at(x, values) for x in r) for r in access.subset.ranges])
        return replace(access, subset=subset)

    heads = [
        f"const int64_t {param} = {text(values[symbol(param)])};"
        for param, _ in ranges
        if re.search(rf"\b{param}\b", body.code)
    ]
    body = replace(
        body,
        reads=[moved(access) for access in body.reads],
        writes=[moved(access) for access in body.writes],
        code="\n".join([*heads, body.code]),
    )
    return name, product(extent for _, extent in ranges), body


def _values(ranges: Sequence[tuple[str, Any]], name: str) -> dict[Any, Any]:
    """The parameters of ranges by a position that counts all of their iterations."""
    position: Any = symbol(name)
    values: dict[Any, Any] = {}
    for param, extent in reversed(ranges[1:]):
        position, values[symbol(param)] = quotient_and_rest(position, extent)
    values[symbol(ranges[0][0])] = position
    return values


def _at(value: Any, values: Mapping[Any, Any]) -> Any:
    return value.subs(values) if isinstance(value, sympy.Basic) else value
