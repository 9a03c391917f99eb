"""Control flow around kernels: the host decides, so it fetches what it decides on."""

from __future__ import annotations

import dace
from dace.sdfg.state import ControlFlowRegion

from dfcompiler.lowering.context import Context
from dfcompiler.lowering.maps import Access, add_tasklet, whole
from dfcompiler.lowering.symbolic import unit_range
from dfcompiler.lowering.views import DACE_TYPES

_FETCH = (
    "DFC_CUDA(__state, cudaMemcpyAsync(&_value, _flag, sizeof(_value), cudaMemcpyDeviceToHost,"
    " __dace_current_stream));"
)
"""DaCe waits for the stream behind it: code that writes to the host has to be done."""


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
