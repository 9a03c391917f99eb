"""The backends, and which of them a target has."""

from __future__ import annotations

from collections.abc import Mapping

from dace import dtypes

from dfcompiler.errors import UsageError
from dfcompiler.lowering.backend import Backend
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.control import add_loop
from dfcompiler.lowering.cuda import attention, matmul
from dfcompiler.lowering.cuda.control import add_captured_loop, begin_arm, fetched_flag, named
from dfcompiler.lowering.cuda.maps import add_thread_map
from dfcompiler.lowering.cuda.profile import EventStamps
from dfcompiler.lowering.cuda.registry import CUDA_LOWERINGS
from dfcompiler.lowering.maps import add_shared_map
from dfcompiler.lowering.nodes import Attention, MatMul
from dfcompiler.lowering.profile import Stamps
from dfcompiler.lowering.region import add_barrier, in_one_region
from dfcompiler.lowering.registry import LOWERINGS
from dfcompiler.target import CudaTarget, Target


def _flag(context: Context, name: str) -> str:
    return f"{context.array(name)}[0]"


CPU = Backend(
    name="CPUs",
    lowerings=LOWERINGS,
    expansions={
        "matmul": tuple(MatMul.implementations),
        "attention": tuple(Attention.implementations),
    },
    storage=dtypes.StorageType.Default,
    locations=("frame",),
    scalars="cpu/elementwise.h",
    movement="cpu/movement.h",
    nosync=False,
    add_map=add_shared_map,
    add_loop=add_loop,
    condition=_flag,
    begin_arm=add_barrier,
    stamps=Stamps,
    enclose=in_one_region,
)
CUDA = Backend(
    name="GPUs",
    lowerings=CUDA_LOWERINGS,
    expansions={
        "matmul": tuple(matmul.IMPLEMENTATIONS),
        "attention": tuple(attention.IMPLEMENTATIONS),
    },
    storage=dtypes.StorageType.GPU_Global,
    locations=("frame", "cuda"),
    scalars="cuda/math.h",
    movement="cuda/movement.h",
    nosync=True,
    add_map=add_thread_map,
    add_loop=add_captured_loop,
    condition=fetched_flag,
    begin_arm=begin_arm,
    stamps=EventStamps,
    enclose=named,
)


def backend_of(target: Target) -> Backend:
    """The backend that lowers for a target."""
    return CUDA if isinstance(target, CudaTarget) else CPU


def check_expansions(expansions: Mapping[str, str], target: Target) -> None:
    """Refuses expansions that no operator of any type has on a target.

    Raises:
        UsageError: naming what there is.
    """
    there = backend_of(target).expansions
    for kind, wanted in expansions.items():
        if kind not in there:
            raise UsageError(
                f"{kind} has no expansions on {target.name}; expected one of "
                f"{', '.join(sorted(there))}"
            )
        if wanted not in there[kind]:
            raise UsageError(
                f"{kind} has no expansion {wanted} on {target.name}; expected one of "
                f"{', '.join(sorted(there[kind]))}"
            )
