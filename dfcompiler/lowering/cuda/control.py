"""Control flow around kernels: the host decides, so it fetches what it decides on."""

from __future__ import annotations

from collections.abc import Callable

import dace
from dace.sdfg.state import ControlFlowRegion, LoopRegion

from dfcompiler.analysis.captured_loops import why_not_captured
from dfcompiler.ir.program import Loop
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.control import add_loop
from dfcompiler.lowering.cuda.cpp import checked, truth
from dfcompiler.lowering.maps import Access, add_tasklet, whole
from dfcompiler.lowering.profile import PROFILE
from dfcompiler.lowering.symbolic import expression, text, unit_range
from dfcompiler.lowering.views import DACE_TYPES

_FETCH = (
    "DFC_CUDA(__state, cudaMemcpyAsync(&_value, _flag, sizeof(_value), cudaMemcpyDeviceToHost,"
    " __dace_current_stream));"
)
"""DaCe waits for the stream behind it: code that writes to the host has to be done."""


def add_captured_loop(context: Context, loop: Loop, lower_body: Callable[[], None]) -> None:
    """A loop whose iterations the device counts and ends (`kernels/cuda/loop.h`).

    The region is no loop over iterations: it enqueues the body as often as the graph asks for, once
    as it is and once to be captured. A loop whose body the host has a part in is one of the host,
    as is a loop inside of another one: in the graph of that it is unrolled. So are loops whose
    operators are measured, by events that a graph does not record.
    """
    is_measured = PROFILE in context.program.table()
    if is_measured or _is_in_loop(context.region) or why_not_captured(loop):
        add_loop(context, loop, lower_body)
        return
    has_flag = truth(loop.until)
    step = f"dfc::cuda::step_loop<{has_flag}>(cudaStream_t, dfc::cuda::LoopStep)"
    context.instantiate("loop", f"template cudaError_t {step};")
    bounds = ", ".join(text(expression(dim)) for dim in (loop.start, loop.stop))
    reads = [whole(context, "_ended", context.array(loop.until))] if loop.until else []
    # DaCe declares the stream, and wants it used, where code has to do with memory of the device.
    stream = "__dace_current_stream" if loop.until else "__state->gpu_context->streams[0]"
    call = (
        f"dfc::cuda::begin_loop<{has_flag}>({stream}, {context.captured_loops}, {bounds}, "
        f"{'_ended' if loop.until else 'nullptr'})"
    )
    context.captured_loops += 1
    state = context.add_state(context.label(f"{loop.name}_begin"))
    add_tasklet(context, state, "begin_loop", reads, [], checked(call))
    region = LoopRegion(context.label(loop.name), "DFC_NEXT_PASS()")
    context.append(region)
    outer = context.enter(region)
    lower_body()
    context.leave(outer)


def _is_in_loop(region: ControlFlowRegion | None) -> bool:
    while region is not None and not isinstance(region, LoopRegion):
        region = region.parent_graph
    return region is not None


def fetched_flag(context: Context, name: str) -> str:
    """Appends a state that brings a flag to the host; the variable that holds it then.

    The flag is copied on the stream behind the kernel that wrote it, and the host waits: a call
    with such a branch cannot be captured as a graph.
    """
    flag = context.array(name)
    number = sum(1 for array in context.sdfg.arrays if array.startswith("host_flag"))
    variable = f"host_flag{number}"
    context.sdfg.add_scalar(variable, DACE_TYPES[context.type(name).dtype], transient=True)
    context.include("cuda/check.h")
    source, value = whole(context, "_flag", flag), Access("_value", variable, unit_range(0))
    state = context.add_state(f"fetch_{variable}")
    add_tasklet(context, state, "fetch_flag", [source], [value], _FETCH)
    return variable


def begin_arm(region: ControlFlowRegion, label: str) -> None:
    """An empty state: kernels of a stream run in order, so nobody has to wait."""
    region.add_state(label, is_start_block=True)


def named(body: dace.SDFG, name: str) -> dace.SDFG:
    """The body itself under the name of the function."""
    body.name = name
    return body
