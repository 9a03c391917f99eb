"""The program that times kernels of products on a GPU: its sources, its library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dfcompiler.analysis.gpu_expansions import NATIVE
from dfcompiler.codegen.gpu_candidates import Candidate, Measurable
from dfcompiler.codegen.library import Unit, compile_unit, link_library
from dfcompiler.codegen.store import digest, stored
from dfcompiler.codegen.units import family_units
from dfcompiler.errors import ToolchainError
from dfcompiler.ir.types import DType
from dfcompiler.lowering.cuda.cpp import SPACE, STORAGE
from dfcompiler.lowering.cuda.matmul_cutlass import PLANNED, held_tiles, tiles_instance
from dfcompiler.lowering.cuda.matmul_launch import FAMILIES
from dfcompiler.target import CudaTarget

LIBRARY = "timing.so"
ELEMENTS = ("f32", "bf16", "f16")
"""Element types, in the order of their numbers in the library."""


@dataclass(frozen=True)
class Launch:
    """A call of a launcher with one plan.

    Attributes:
        family: its header.
        template: the launcher.
        plan: C++ of the plan; empty for none.
        storage: the element type in C++.
        bias: whether one is added.
        residual: whether a matrix is read.
        kernels: instances of another family that the launcher calls: family and text.
    """

    family: str
    template: str
    plan: str
    storage: str
    bias: bool
    residual: bool
    kernels: tuple[tuple[str, str], ...] = ()

    @property
    def instances(self) -> tuple[tuple[str, str], ...]:
        """What units instantiate for it: families and texts."""
        gemm = f"{SPACE}Gemm<{self.storage}>"
        text = f"template cudaError_t {self.template}(cudaStream_t, {gemm});"
        return (self.family, text), *self.kernels

    def code(self, number: int) -> str:
        """The case of a switch that times it."""
        flags = ", ".join(str(flag).lower() for flag in (self.bias, self.residual))
        planned = f"p.with({self.plan})" if self.plan else "p"
        return (
            f"    case {number}:\n      return time_product<{self.storage}>(\n"
            f"          [](cudaStream_t stream, const Gemm<{self.storage}>& p) {{\n"
            f"            return {self.template}(stream, {planned});\n          }},\n"
            f"          {flags}, runs, seconds);"
        )


def launches_of(
    choices: Mapping[Measurable, Sequence[Candidate]],
) -> dict[tuple[Measurable, Candidate], Launch]:
    """The call of each candidate; candidates that differ in their plans share an instance."""
    tiles: dict[tuple[str, ...], list[str]] = {}
    for wanted, some in choices.items():
        for one in some:
            names = tiles.setdefault(_instance(wanted, one), [])
            if one.plan is not None and one.plan.tile.name not in names:
                names.append(one.plan.tile.name)
    return {
        (wanted, one): _launch(wanted, one, sorted(tiles[_instance(wanted, one)]))
        for wanted, some in choices.items()
        for one in some
    }


def _instance(wanted: Measurable, one: Candidate) -> tuple[str, ...]:
    epilogue = wanted.epilogue
    return one.expansion, wanted.dtype, epilogue.activation, epilogue.residual, wanted.along


def _launch(wanted: Measurable, one: Candidate, tiles: Sequence[str]) -> Launch:
    epilogue, storage = wanted.epilogue, STORAGE[DType(wanted.dtype)]
    family = FAMILIES.get(one.expansion, "gemm")
    flags = [
        f"{SPACE}Activation::{epilogue.activation}",
        f"{SPACE}Residual::{epilogue.residual}",
    ]
    if one.expansion == NATIVE:
        flags.append(f"{SPACE}Floats::exact")
    kernels: tuple[tuple[str, str], ...] = ()
    if one.expansion == "cutlass":
        held = [PLANNED[tile] for tile in tiles]
        flags += [held_tiles(held), f"{SPACE}{wanted.along.upper()}"]
        kernels = tuple(
            ("cutlass_tiles", tiles_instance(storage, tile, wanted.along.upper())) for tile in held
        )
    elif one.plan is not None:
        flags.append(" | ".join(SPACE + name for name in (wanted.along.upper(), *tiles)))
    plan = "" if one.plan is None else f"Plan{{{one.plan.tile.name}, {one.plan.parts}}}"
    return Launch(
        family,
        f"{SPACE}{family}<{storage}, {', '.join(flags)}>",
        plan,
        storage,
        epilogue.bias,
        epilogue.residual != "none",
        kernels,
    )


def sources(launches: Sequence[Launch]) -> list[Unit]:
    """A unit with a function that times each launch, and one for each family of kernels."""
    instances: dict[str, list[str]] = {}
    for one in launches:
        for family, text in one.instances:
            instances.setdefault(family, []).append(text)
    return [Unit("timing", {"timing.cu": _driver(launches)}, ".cu"), *family_units(instances)]


def _driver(launches: Sequence[Launch]) -> str:
    headers = "".join(f'#include "cuda/{f}.h"\n' for f in sorted({one.family for one in launches}))
    cases = "\n".join(one.code(number) for number, one in enumerate(launches))
    return _DRIVER.replace("@HEADERS@", headers).replace("@CASES@", cases)


_DRIVER = """// Times the launches of some products.
#include "cuda/timing.cuh"
@HEADERS@
#define DFC_EXPORT extern "C" __attribute__((visibility("default")))
using namespace dfc::cuda;

DFC_EXPORT const char* dfc_timing_failure(int code) {
  const char* detail = failure().detail;
  return detail[0] != 0 ? detail : cudaGetErrorString(static_cast<cudaError_t>(code));
}

// Makes operands of an element type: 0 float, 1 bf16, 2 fp16.
DFC_EXPORT int dfc_timing_prepare(long type, long batch, long M, long N, long K, long along_depth,
                                  long copies) {
  clear_failure();
  TimedProduct wanted{batch, M, N, K, along_depth, 0, copies};
  if (type == 0) return prepare_product<float>(wanted);
  return type == 1 ? prepare_product<__nv_bfloat16>(wanted) : prepare_product<__half>(wanted);
}

// Seconds of a launch on average over `runs`; 0: one into a C of NaN.
DFC_EXPORT int dfc_timing_run(long launch, long runs, double* seconds) {
  clear_failure();
  switch (launch) {
@CASES@
  }
  return cudaErrorInvalidValue;
}

DFC_EXPORT int dfc_timing_result(void* host) { return result_of_product(host); }

DFC_EXPORT void* dfc_timing_operand(long which) {
  const TimedProduct& p = timed_product();
  unsigned char* const all[] = {p.a(0), p.b(0), p.residual(0), p.bias()};
  return all[which];
}
"""


@dataclass(frozen=True)
class Timing:
    """The library.

    Attributes:
        path: the library.
        launches: those that it times, by their numbers.
        failures: why a launch is not in it.
    """

    path: Path
    launches: tuple[Launch, ...]
    failures: Mapping[Launch, str]


def build_timing(launches: Sequence[Launch], target: CudaTarget) -> Timing:
    """Compiles a library; launches whose kernels do not compile are left out.

    Raises:
        ToolchainError: if the timing itself does not compile or link.
    """
    failures: dict[Launch, str] = {}
    while True:
        kept = tuple(one for one in launches if one not in failures)
        driver, *families = sources(kept)
        found = _compiled(families, target)
        pairs = zip(families, found, strict=True)
        failed = [(unit, one) for unit, one in pairs if isinstance(one, str)]
        if not failed:
            break
        for unit, error in failed:
            text = "".join(unit.files.values())
            needing = (one for one in kept if any(i in text for _, i in one.instances))
            failures |= dict.fromkeys(needing, str(error))
    units = [driver, *families]
    paths = [compile_unit(driver, target), *(path for path in found if isinstance(path, Path))]
    key = digest(["timing", target.name, *(path.name for path in paths)])

    def link(work: Path) -> None:
        link_library(units, paths, target, work / "src", work / LIBRARY)

    return Timing(stored(key, link) / LIBRARY, kept, failures)


def _compiled(units: Sequence[Unit], target: CudaTarget) -> list[Path | str]:
    """The object of each unit, or what the compiler says about it."""

    def attempt(unit: Unit) -> Path | str:
        try:
            return compile_unit(unit, target)
        except ToolchainError as error:
            return error.message

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(attempt, units))
