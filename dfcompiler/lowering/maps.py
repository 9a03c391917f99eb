"""One map around one tasklet: the form in which operators reach DaCe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import dace
from dace import dtypes, subsets
from dace.sdfg import nodes

from dfcompiler.errors import UnsupportedError
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.symbolic import full_range, is_static
from dfcompiler.lowering.views import everything, extents, placed

MAX_STATIC_ELEMENTS = 2**31 - 1
ONCE = ("_once", 1)
"""The range of a map whose body runs a single time."""


@dataclass(frozen=True)
class Access:
    """A connector of a tasklet and the elements that it stands for.

    Attributes:
        connector: the variable in the tasklet's code.
        array: the SDFG array.
        subset: the elements; a pointer to the first of them when `pointer`.
        pointer: whether the code gets a pointer instead of a value.
    """

    connector: str
    array: str
    subset: subsets.Range
    pointer: bool = False


@dataclass(frozen=True)
class MapBody:
    """A tasklet inside a map.

    Attributes:
        label: name of the map in the graph.
        ranges: parameters with their extents, outermost first; none for a single run.
        reads: what the tasklet reads.
        writes: what it writes.
        code: C++ over the connectors and the parameters.
        work: element-wise operations of the whole map, for choosing threads.
        serial: inner parameters that the thread of the outermost ones runs in order.
    """

    label: str
    ranges: Sequence[tuple[str, Any]]
    reads: Sequence[Access]
    writes: Sequence[Access]
    code: str
    work: Any
    serial: int = 0


def whole(context: Context, connector: str, array: str) -> Access:
    """A pointer to a whole array."""
    return Access(connector, array, full_range(extents(context.sdfg.arrays[array])), pointer=True)


def pointer(
    context: Context, connector: str, array: str, begin: Sequence[Any], axes: Sequence[int]
) -> Access:
    """A pointer to element `begin`, from which the code walks along `axes` to their ends.

    The array of a tensor of rank 0 has one element: `begin` may be empty.
    """
    shape = extents(context.sdfg.arrays[array])
    ranges = [
        (first, extent - 1 if axis in axes else first, 1)
        for axis, (first, extent) in enumerate(zip(begin or [0], shape, strict=True))
    ]
    return Access(connector, array, subsets.Range(ranges), pointer=True)


def add_map(context: Context, state: dace.SDFGState, body: MapBody) -> None:
    """Adds the map to `state`, in the form that the backend gives to maps."""
    context.backend.add_map(context, state, body)


def add_shared_map(context: Context, state: dace.SDFGState, body: MapBody) -> None:
    """Adds a map whose iterations the threads of a call share among each other."""
    ranges = list(body.ranges) or [ONCE]
    params = [name for name, _ in ranges]
    extents = subsets.Range([(0, extent - 1, 1) for _, extent in ranges])
    scope = nodes.Map(body.label, params, extents, dtypes.ScheduleType.Sequential)
    share(scope, max(1, len(params) - body.serial))
    add_scopes(context, state, body, [scope])


def add_scopes(
    context: Context, state: dace.SDFGState, body: MapBody, scopes: Sequence[nodes.Map]
) -> None:
    """Adds the tasklet of `body` inside maps, the outermost one first, and its memlets."""
    sdfg = context.sdfg
    _check_offsets(sdfg, body)
    tasklet = nodes.Tasklet(
        body.label,
        {read.connector: connector_type(sdfg, read) for read in body.reads},
        {write.connector: connector_type(sdfg, write) for write in body.writes},
        body.code,
        dtypes.Language.CPP,
    )
    state.add_node(tasklet)
    entries = [nodes.MapEntry(scope) for scope in scopes]
    exits = [nodes.MapExit(scope) for scope in scopes]
    state.add_nodes_from([*entries, *exits])
    context.works.append(body.work)
    _connect_reads(state, body, entries, tasklet, sdfg)
    _connect_writes(state, body, exits[::-1], tasklet, sdfg)


def add_tasklet(
    context: Context,
    state: dace.SDFGState,
    label: str,
    reads: Sequence[Access],
    writes: Sequence[Access],
    code: str,
) -> None:
    """Adds code outside of any map: every thread of a call runs it, or the host of a GPU."""
    sdfg = context.sdfg
    tasklet = state.add_tasklet(
        label,
        {access.connector: connector_type(sdfg, access) for access in reads},
        {access.connector: connector_type(sdfg, access) for access in writes},
        code,
        dtypes.Language.CPP,
        side_effects=True,
    )
    for access in reads:
        source = state.add_read(access.array)
        state.add_edge(source, None, tasklet, access.connector, memlet(sdfg, access))
    for access in writes:
        target = state.add_write(access.array)
        state.add_edge(tasklet, access.connector, target, None, memlet(sdfg, access))


def _check_offsets(sdfg: dace.SDFG, body: MapBody) -> None:
    """Refuses offsets that do not fit: DaCe counts over constant extents in 32 bits."""
    params = {name for name, extent in body.ranges if is_static(extent)}
    for access in (*body.reads, *body.writes):
        elements = sdfg.arrays[access.array].total_size
        if not is_static(elements) or elements <= MAX_STATIC_ELEMENTS:
            continue
        if params & {str(symbol) for symbol in access.subset.free_symbols}:
            raise UnsupportedError(
                f"{body.label} walks an array of {elements} elements; "
                f"the generated loops reach {MAX_STATIC_ELEMENTS}",
                hint="leave one of its sizes free, then offsets have 64 bits",
            )


def share(scope: nodes.Map, axes: int) -> None:
    """Shares the iterations over the outer `axes` of a map among the threads of the call.

    What is in no such map would be run by every thread: a call is one parallel region.
    """
    scope.schedule = dtypes.ScheduleType.CPU_Multicore
    scope.collapse = axes


def _connect_reads(
    state: dace.SDFGState, body: MapBody, entries: Sequence[Any], tasklet: Any, sdfg: dace.SDFG
) -> None:
    """Memlets from arrays through the entries to the tasklet."""
    inner = entries[-1]
    for array in dict.fromkeys(read.array for read in body.reads):
        chain = [state.add_read(array), *entries]
        for entry in entries:
            entry.add_in_connector(f"IN_{array}")
            entry.add_out_connector(f"OUT_{array}")
        for number, (source, entry) in enumerate(pairwise(chain)):
            whole = dace.Memlet(data=array, subset=everything(sdfg.arrays[array]))
            out = f"OUT_{array}" if number else None
            state.add_edge(source, out, entry, f"IN_{array}", whole)
    for read in body.reads:
        state.add_edge(inner, f"OUT_{read.array}", tasklet, read.connector, memlet(sdfg, read))
    if not body.reads:
        for source, target in pairwise([*entries, tasklet]):
            state.add_nedge(source, target, dace.Memlet())


def _connect_writes(
    state: dace.SDFGState, body: MapBody, exits: Sequence[Any], tasklet: Any, sdfg: dace.SDFG
) -> None:
    """Memlets from the tasklet through the exits, the innermost one first, to arrays."""
    for write in body.writes:
        array = write.array
        for exit_ in exits:
            exit_.add_in_connector(f"IN_{array}")
            exit_.add_out_connector(f"OUT_{array}")
        state.add_edge(tasklet, write.connector, exits[0], f"IN_{array}", memlet(sdfg, write))
        chain = [*exits, state.add_write(array)]
        for exit_, target in pairwise(chain):
            whole = dace.Memlet(data=array, subset=everything(sdfg.arrays[array]))
            into = None if target is chain[-1] else f"IN_{array}"
            state.add_edge(exit_, f"OUT_{array}", target, into, whole)


def memlet(sdfg: dace.SDFG, access: Access) -> dace.Memlet:
    """The memlet of an access."""
    # The volume of a pointer's memlet is not known to be what the code touches: a gather reads
    # one row of the table that it points into.
    subset = placed(sdfg.arrays[access.array], access.subset)
    return dace.Memlet(data=access.array, subset=subset, dynamic=access.pointer)


def connector_type(sdfg: dace.SDFG, access: Access) -> dtypes.typeclass:
    """The type of a connector in the tasklet's code."""
    dtype = sdfg.arrays[access.array].dtype
    return dtypes.pointer(dtype) if access.pointer else dtype
