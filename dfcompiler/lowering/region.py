"""One parallel region for a whole call: its threads meet at the end of each operator's map.

A region of its own for each operator would wake and join the threads each time (1 to 2 µs with
libgomp); a barrier between threads that are already running takes 0.2 to 0.4 µs. Every thread runs
the control flow of the program; the iterations of a map are shared (`#pragma omp for`), so
whatever must happen once stands in a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import dace
from dace import dtypes, subsets
from dace.sdfg import nodes
from dace.sdfg.state import ControlFlowRegion


def in_one_region(body: dace.SDFG, name: str) -> dace.SDFG:
    """The SDFG called `name` that runs `body` on all threads, with the same arrays and symbols.

    Args:
        body: the program; every array is an argument.
        name: the name of the generated function.
    """
    sdfg = dace.SDFG(name)
    for symbol, dtype in body.symbols.items():
        sdfg.add_symbol(symbol, dtype)
    for array, descriptor in body.arrays.items():
        sdfg.add_datadesc(array, descriptor.clone())
    state = sdfg.add_state("call", is_start_block=True)
    scope = nodes.Map(
        "call", ["_thread"], subsets.Range([(0, 0, 1)]), dtypes.ScheduleType.CPU_Persistent
    )
    entry, exit_ = nodes.MapEntry(scope), nodes.MapExit(scope)
    reads, writes = _accessed(body)
    symbols = {symbol: symbol for symbol in sorted(map(str, body.free_symbols))}
    call = state.add_nested_sdfg(body, dict.fromkeys(reads), dict.fromkeys(writes), symbols)
    state.add_nodes_from([entry, exit_])
    for array in reads:
        memlet = dace.Memlet.from_array(array, sdfg.arrays[array])
        state.add_memlet_path(state.add_read(array), entry, call, dst_conn=array, memlet=memlet)
    for array in writes:
        memlet = dace.Memlet.from_array(array, sdfg.arrays[array])
        state.add_memlet_path(call, exit_, state.add_write(array), src_conn=array, memlet=memlet)
    if not reads:
        state.add_nedge(entry, call, dace.Memlet())
    if not writes:
        state.add_nedge(call, exit_, dace.Memlet())
    return sdfg


def add_barrier(region: ControlFlowRegion, label: str) -> None:
    """A state, the first of `region`, in which the threads wait for each other.

    Each arm of a data-dependent branch begins with one: no thread may overwrite a flag that
    another has not read yet.
    """
    state: dace.SDFGState = region.add_state(label, is_start_block=True)
    state.add_tasklet(label, {}, {}, "#pragma omp barrier", dtypes.Language.CPP, side_effects=True)


def _accessed(body: dace.SDFG) -> tuple[Sequence[str], Sequence[str]]:
    """The arrays that the program reads and those that it writes, sorted by name."""
    reads, writes = set(body.arglist()) & set(body.arrays), set()
    for state in body.states():
        for node in state.data_nodes():
            if state.in_degree(node) > 0:
                writes.add(node.data)
    return sorted(reads), sorted(writes)
