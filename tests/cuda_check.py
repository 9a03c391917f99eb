"""Every kernel and every operator's CUDA code, compiled by nvcc for each GPU target: no GPU needed.

    python -m tests.cuda_check

The device compiler runs without optimization: what is checked is that the code is accepted, its PTX
assembled and its shared memory within limits. Speed and registers are other tests' concern. A
kernel of CUTLASS would take longer so: it is optimized, and a spilled register fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dfcompiler.codegen.cutlass import find_cutlass
from dfcompiler.codegen.dace_sources import generate_program
from dfcompiler.codegen.library import KERNELS, PRELUDE
from dfcompiler.codegen.runtime_headers import RUNTIME
from dfcompiler.codegen.toolchain import find_compiler, find_nvcc
from dfcompiler.codegen.units import program_units
from dfcompiler.errors import ToolchainError
from dfcompiler.ir import Program, parse, verify
from dfcompiler.lowering import lower
from dfcompiler.target import TARGETS, CudaTarget, parse_target
from tests.operator_cases import CASES

GPUS = tuple(t for name in TARGETS if isinstance(t := parse_target(name), CudaTarget))
FLAGS = ("-std=c++20", "--expt-relaxed-constexpr", "-w", "-O0", "-Xcicc=-O0", "-Xptxas=-O0")
CUTLASS_FLAGS = (*FLAGS[:2], "-Xptxas=--warn-on-spills,--warning-as-error")
STORAGE = ("float", "__nv_bfloat16", "__half")
ACTIVATIONS = ("none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid")
RESIDUALS = ("none", "add", "mul")

GEMM = """template cudaError_t dfc::cuda::{family}<{dtype}, Activation::silu, Residual::mul>(
    cudaStream_t, Gemm<{dtype}>);
"""
CUTLASS = """#include "cuda/cutlass_tiles.cuh"
using namespace dfc::cuda;
template cudaError_t dfc::cuda::cutlass_tiles<__nv_bfloat16, CutlassWide, WIDTH>(
    cudaStream_t, const CutlassProblem<__nv_bfloat16>&, int);
"""
EPILOGUE = """template <Activation activation, Residual residual>
__global__ void apply(Gemm<{dtype}> p) {{
  p.c[threadIdx.x] = finished<activation, residual>(p, 0, 0, threadIdx.x, threadIdx.x);
}}
"""
ATTENTION = """template cudaError_t dfc::cuda::attention<{dtype}, {mask}, {width}, {causal}>(
    cudaStream_t, Attention<{dtype}, {mask}>);
"""


@dataclass(frozen=True)
class Unit:
    """A file, the targets that it is for, and the options it is compiled with."""

    name: str
    text: str
    targets: tuple[CudaTarget, ...] = GPUS
    flags: tuple[str, ...] = FLAGS


def units() -> Iterator[Unit]:
    """What is compiled, what takes longest first."""
    hopper = tuple(target for target in GPUS if target.arch == "90a")
    try:
        includes = f"-I{find_cutlass().home / 'include'}"
        yield Unit("cutlass_tiles", CUTLASS, hopper, (*CUTLASS_FLAGS, includes))
    except ToolchainError as error:
        print(f"cutlass_tiles: {error.message}: it is not compiled", file=sys.stderr)
    yield Unit("operators", maps_text(every_operator()))
    for dtype in STORAGE:
        yield Unit(f"attention_{dtype}", attention_text(dtype))
    for dtype in STORAGE:
        yield Unit(f"gemm_{dtype}", products_text(("gemm", "gemm_lt"), (dtype,)))
    yield Unit("few_rows", few_rows_text())
    # gemm_wgmma and attention_wgmma are compiled by their own tests: without optimization ptxas
    # 13.0 crashes on them.


def few_rows_text() -> str:
    """What a step of a decoder takes: normalized rows, a gate, attention over a cache."""
    few = "Activation::silu, Residual::gate, Floats::exact, VECTOR | DEPTH, Norm::root_mean_square"
    step = "Rotation::interleaved, true"
    lines = [
        '#include "cuda/attention_step.cuh"',
        '#include "cuda/gemm.cuh"',
        "using namespace dfc::cuda;",
        *(
            f"template cudaError_t dfc::cuda::gemm<{d}, {few}>(cudaStream_t, Gemm<{d}>);"
            for d in STORAGE
        ),
        *(
            f"template cudaError_t dfc::cuda::attention_step<{d}, 64, 8, {step}>"
            f"(cudaStream_t, AttentionStep<{d}>);"
            for d in STORAGE
        ),
    ]
    return "\n".join(lines) + "\n"


def products_text(families: Sequence[str], dtypes: Sequence[str]) -> str:
    """Every tile of the families, and of floats every activation with every residual."""
    head = "".join(f'#include "cuda/{family}.cuh"\n' for family in families)
    instances = "".join(GEMM.format(family=f, dtype=d) for f in families for d in dtypes)
    last = epilogues("float") if "float" in dtypes else ""
    return f"{head}using namespace dfc::cuda;\n{instances}{last}"


def epilogues(dtype: str) -> str:
    """Every activation with every residual, each a kernel."""
    lines = [
        f"template __global__ void apply<Activation::{a}, Residual::{r}>(Gemm<{dtype}>);\n"
        for a in ACTIVATIONS
        for r in RESIDUALS
    ]
    return EPILOGUE.format(dtype=dtype) + "".join(lines)


def attention_text(dtype: str) -> str:
    """Every padded width, causal or masked; of fp16, which differs in one instruction, only two."""
    head = '#include "cuda/attention.cuh"\nusing namespace dfc::cuda;\n'
    kinds = (("NoMask", "true"), ("bool", "false"))
    return head + "".join(
        ATTENTION.format(dtype=dtype, mask=mask, width=width, causal=causal)
        for width in ((64, 160) if dtype == "__half" else (32, 64, 128, 160))
        for mask, causal in kinds
    )


def every_operator() -> Program:
    """Each operator of the table with each set of attributes, on the first types it is tried on."""
    seen: set[tuple[str, ...]] = set()
    containers: list[str] = []
    body: list[str] = []
    for number, case in enumerate(CASES):
        wanted = [op for op in case.ops if not _seen(op, seen)]
        if not wanted:
            continue
        containers += [f"input @c{number}_{name}: {t}" for name, t in case.inputs.items()]
        for op in wanted:
            containers.append(f"output @o{len(body)}: {op.split(' = ', 1)[0]}")
            body.append(f"@o{len(body)}: {re.sub('@', f'@c{number}_', op)}")
    lines = [*containers, "state main {", *body, "}"]
    return verify(parse("program operators(A, N) {\n" + "\n".join(lines) + "\n}\n"))


def _seen(op: str, seen: set[tuple[str, ...]]) -> bool:
    """Whether an operator with these attributes is there already; now it is."""
    kind = op.split(" = ", 1)[1].split(" ", 1)[0]
    key = (kind, *re.findall(r"(\w+) = ", op.split(" = ", 1)[1]))
    found = key in seen
    seen.add(key)
    return found


def maps_text(program: Program) -> str:
    """The kernels that DaCe makes of a program."""
    lowered = lower(program, GPUS[0])
    generated = generate_program(lowered.sdfg, PRELUDE, lowered.work)
    (unit,) = (unit for unit in program_units(generated, GPUS[0]) if unit.name == "maps")
    return unit.files["maps.cu"]


def compile_unit(unit: Unit, folder: Path) -> tuple[str, float]:
    """What nvcc objects to, empty if it compiled, and the seconds it took."""
    (folder / f"{unit.name}.cu").write_text(unit.text)
    codes = [f"-gencode=arch=compute_{t.arch},code=sm_{t.arch}" for t in unit.targets]
    host = f"-ccbin={find_compiler().command[0]}"
    includes = [f"-I{KERNELS}", f"-I{RUNTIME}"]
    command = [*find_nvcc().command, *unit.flags, *codes, host, *includes]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, "-c", f"{unit.name}.cu", "-o", f"{unit.name}.o"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    messages = (done.stderr.strip() or "nvcc failed") if done.returncode else ""
    return messages, time.perf_counter() - start


def main() -> int:
    """Compiles everything; how many units failed."""
    try:
        print(f"{find_nvcc()}, for {', '.join(target.name for target in GPUS)}")
    except ToolchainError as error:
        print(f"cuda-check: {error.message}: nothing is compiled", file=sys.stderr)
        return 0
    failed, start = 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [(unit, pool.submit(compile_unit, unit, Path(folder))) for unit in units()]
        for unit, running in found:
            messages, seconds = running.result()
            failed += bool(messages)
            print(f"{unit.name:32} {seconds:5.1f} s  {messages or 'ok'}", flush=True)
    print(f"{len(found)} units in {time.perf_counter() - start:.0f} s, {failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
