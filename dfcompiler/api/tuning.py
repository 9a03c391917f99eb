"""Plans of products that are measured when a model is compiled, instead of modelled."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dfcompiler.target import CpuTarget, CudaTarget, Target

if TYPE_CHECKING:
    from dfcompiler.codegen.gpu_measuring import Timer
    from dfcompiler.codegen.gpu_tuning import Wanted
    from dfcompiler.ir import Op, Program
    from dfcompiler.ir.program import Attr
    from dfcompiler.ir.types import TensorType
    from dfcompiler.pipeline import Rewritten
    from passes.rules.block_plans import Family


def tuned(result: Rewritten, target: Target) -> Rewritten:
    """The result with the fastest plans that are remembered or measured here.

    Raises:
        ToolchainError: if the compiler is missing or fails.
        DeviceError: if the target is a GPU that this machine does not have.
    """
    from dfcompiler.codegen.gpu_measuring import DeviceTimer

    if isinstance(target, CudaTarget):
        return tuned_on_gpu(result, target, DeviceTimer(target))
    return _tuned_on_cpu(result, target)


def _tuned_on_cpu(result: Rewritten, target: CpuTarget) -> Rewritten:
    from dfcompiler.codegen.tuning import tune
    from dfcompiler.codegen.tuning_database import TuningDatabase
    from passes.tile_for_io import products, with_tiles

    wanted = products(result.program, result.probes)
    found = tune(wanted, target, TuningDatabase())
    return _after(result, with_tiles(result.program, result.probes, found))


def tuned_on_gpu(result: Rewritten, target: CudaTarget, timer: Timer) -> Rewritten:
    """The result with the fastest kernels; candidates that fail are said in `TuningWarning`s.

    Raises:
        ToolchainError: if the compiler is missing or fails.
        DeviceError: if this machine has no such GPU.
    """
    from dfcompiler.codegen.gpu_tuning import device_of, tune_on_gpu
    from dfcompiler.codegen.tuning_database import TuningDatabase, TuningWarning
    from passes.rules.tuned_plans import with_other_plans

    device = device_of(target).name
    wanted: dict[Wanted, None] = {}

    def collect(op: Op, types: Sequence[TensorType], family: Family) -> None:
        one = _wanted(op, types, family)
        if one is not None:
            wanted[one] = None

    with_other_plans(result.program, result.probes, collect)
    found = tune_on_gpu(
        list(wanted),
        target,
        device,
        TuningDatabase(),
        timer,
        lambda sentence: warnings.warn(sentence, TuningWarning, stacklevel=2),
    )

    def choose(op: Op, types: Sequence[TensorType], family: Family) -> Mapping[str, Attr] | None:
        one = _wanted(op, types, family)
        return found[one].attributes if one in found else None

    return _after(result, with_other_plans(result.program, result.probes, choose))


def _wanted(op: Op, types: Sequence[TensorType], family: Family) -> Wanted | None:
    from dfcompiler.codegen.gpu_candidates import measurable
    from dfcompiler.codegen.gpu_tuning import Wanted

    one = measurable(op, types, family.product.batch, family.product.rows)
    return None if one is None else Wanted(one, family.ends)


def _after(result: Rewritten, program: Program) -> Rewritten:
    """The result with the tuned program as its last step, if it is another one."""
    from dfcompiler.pipeline import Snapshot

    if program is result.program:
        return result
    last = Snapshot(result.snapshots[-1].number + 1, "tune", program)
    return replace(result, program=program, snapshots=(*result.snapshots, last))
