"""What the sources of an artifact are split into, to be compiled at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dfcompiler.codegen import c_api
from dfcompiler.codegen.dace_sources import ProgramSource
from dfcompiler.codegen.interface import Interface
from dfcompiler.codegen.library import PRELUDE, Unit, prelude_text
from dfcompiler.codegen.store import digest
from dfcompiler.codegen.templates import template
from dfcompiler.codegen.weights import WeightsTable
from dfcompiler.target import CpuTarget, Target

CUTLASS_FAMILY = "cutlass_tiles"
"""The kernels that include CUTLASS."""
_COMMON = ("interface.cpp", "sizes.h", "instance.h", "weights.h")
"""Of the C interface, whatever it runs on."""
_DEVICE_FILES = {
    "cpu": {"device.h": "device_cpu.h"},
    "cuda": {
        "device.h": "device_cuda.h",
        **{name: name for name in ("gpu.h", "run_graph.h", "gpu_functions.h")},
    },
}
"""What the C interface has for each kind of target: file of the sources → template."""


def program_units(generated: ProgramSource, target: Target) -> list[Unit]:
    """The generated function; on a GPU its kernels are a unit of their own."""
    prelude = prelude_text(generated.includes, target)
    codes = {"program": generated.code, **generated.parts}
    units = [Unit(name, {f"{name}.cpp": code, PRELUDE: prelude}) for name, code in codes.items()]
    if generated.device:
        units.append(Unit("maps", {"maps.cu": generated.device}, ".cu"))
    return units


def family_units(instances: Mapping[str, Sequence[str]]) -> list[Unit]:
    """A unit for each family of kernels, with the instances of its templates.

    Kernels of CUTLASS, which nvcc takes half a minute for, are a unit each. Its name is the same in
    every program, so that it is compiled once for all of them.
    """
    units = []
    for family in sorted(instances):
        found = sorted(set(instances[family]))
        if family != CUTLASS_FAMILY:
            units.append(Unit(family, {f"{family}.cu": _family(family, found)}, ".cu"))
            continue
        for instance in found:
            name = f"{family}_{digest([instance])[:8]}"
            text = _family(family, [instance])
            units.append(Unit(name, {f"{name}.cu": text}, ".cu", needs_cutlass=True))
    return units


def _family(family: str, instances: Sequence[str]) -> str:
    head = [
        f"// The instances of {family} that the program calls.",
        f'#include "cuda/{family}.cuh"',
    ]
    return "\n".join([*head, "", *instances, ""])


def interface_unit(interface: Interface, weights: WeightsTable, target: Target) -> Unit:
    """The C interface."""
    kind = "cpu" if isinstance(target, CpuTarget) else "cuda"
    files = {**{name: name for name in _COMMON}, **_DEVICE_FILES[kind]}
    return Unit(
        "interface",
        {
            **{name: template(source, {}) for name, source in files.items()},
            "tables.h": c_api.tables(interface, weights.tensors, weights.bytes, target),
            "model.h": c_api.header(interface, target),
        },
    )
