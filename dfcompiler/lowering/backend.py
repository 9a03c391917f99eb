"""What a kind of machine asks of the graph: the seam between the lowering of CPUs and of GPUs.

An operator's lowering says which elements a tasklet reads and writes and what it computes; the
backend says where arrays lie and how the iterations of a map become threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import dace
from dace import dtypes
from dace.sdfg.state import ControlFlowRegion

if TYPE_CHECKING:
    from dfcompiler.ir.program import Loop, Op
    from dfcompiler.lowering.context import Context
    from dfcompiler.lowering.maps import MapBody
    from dfcompiler.lowering.profile import Stamps

Lowering: TypeAlias = "Callable[[Context, Op], None]"
"""What puts one operator into the graph."""


@dataclass(frozen=True)
class Backend:
    """One kind of machine.

    Attributes:
        name: what messages call it.
        lowerings: the function that lowers each operator.
        expansions: of each kind of operator that has several: what they are called.
        storage: where the arrays of a program lie.
        locations: generated files that get the headers of kernels.
        scalars: header with the scalar functions that tasklets call.
        movement: header with checked indices and copies of rows.
        nosync: whether a state ends without waiting for the device.
        add_map: adds one map around one tasklet to a state.
        add_loop: adds a loop, whose body a function lowers.
        condition: makes the flag of a branch readable there; C++ of its value.
        begin_arm: adds the first state of an arm of a branch to its region.
        stamps: what measures the operators of an artifact that does.
        enclose: the graph of the whole function around the body, with a name.
    """

    name: str
    lowerings: Mapping[str, Lowering]
    expansions: Mapping[str, tuple[str, ...]]
    storage: dtypes.StorageType
    locations: tuple[str, ...]
    scalars: str
    movement: str
    nosync: bool
    add_map: Callable[[Context, dace.SDFGState, MapBody], None]
    add_loop: Callable[[Context, Loop, Callable[[], None]], None]
    condition: Callable[[Context, str], str]
    begin_arm: Callable[[ControlFlowRegion, str], None]
    stamps: Callable[[Context], Stamps]
    enclose: Callable[[dace.SDFG, str], dace.SDFG]
