"""``dfc doctor``: what this machine has, what it lacks and how to get it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer
from rich.table import Table

from dfcompiler.cli.options import FormatOption
from dfcompiler.cli.session import Format, Session
from dfcompiler.codegen import find_nvcc
from dfcompiler.codegen.cutlass import find_cutlass
from dfcompiler.codegen.gpus import find_driver
from dfcompiler.errors import DfcError, ToolchainError
from dfcompiler.target import TARGETS, host_cores, parse_target

_GCC_HINT = (
    "apt-get install g++ (Debian, Ubuntu), dnf install gcc-c++ (Fedora), apk add g++ (Alpine)"
)
_PACKAGES = (
    ("dace", "pip install dace==2.0.0b1", True),
    ("numpy", "pip install numpy", True),
    ("onnx", "pip install onnx", True),
    ("torch", "pip install torch==2.13.0", False),
    ("onnxruntime", "pip install onnxruntime", False),
    ("tokenizers", "pip install tokenizers", False),
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        found: its version or path; empty where it is missing.
        required: whether compiling needs it.
        hint: how to get it.
    """

    name: str
    found: str
    required: bool
    hint: str


def doctor_command(
    context: typer.Context,
    ceilings: Annotated[
        bool, typer.Option("--ceilings/--no-ceilings", help="Measure the machine (a second).")
    ] = True,
    form: FormatOption = Format.TEXT,
) -> None:
    """Show toolchain, instruction set and measured ceilings; exit code 5 if one is missing."""
    session: Session = context.obj
    target = parse_target("cpu")
    packages = (_package(*row) for row in _PACKAGES)
    findings = (_compiler(), _openmp(), *packages, _nvcc(), _cutlass(), *_gpus())
    missing = [one for one in findings if one.required and not one.found]
    threads = int(os.environ.get("OMP_NUM_THREADS", "0") or 0) or host_cores()
    with session.working("measuring the machine"):
        measured = _ceilings(threads) if ceilings and not missing else None
    session.emit(
        form,
        {
            "command": "doctor",
            "target": asdict(target),
            "targets": TARGETS,
            "findings": [asdict(one) for one in findings],
            "ceilings": measured,
            "python": sys.version.split()[0],
        },
        f"{target.name}: {target.cores} cores, vectors of {target.vector_bytes} bytes, "
        f"L1 {target.l1_bytes >> 10} KiB, L2 {target.l2_bytes >> 10} KiB, "
        f"L3 {target.l3_bytes >> 20} MiB",
        *_measured_lines(measured),
        _table(findings),
    )
    if missing:
        names = ", ".join(one.name for one in missing)
        hints = "; ".join(one.hint for one in missing)
        raise ToolchainError(f"missing: {names}", hint=hints)


def _ceilings(threads: int) -> dict[str, object]:
    from dfcompiler.reference.ceilings import measure_ceilings

    try:
        return asdict(measure_ceilings(threads))
    except DfcError as error:
        return {"threads": threads, "error": error.message}


def _measured_lines(measured: dict[str, object] | None) -> tuple[str, ...]:
    if measured is None:
        return ()
    if "error" in measured:
        return (f"ceilings: not measured, {measured['error']}",)
    return (
        f"measured with {measured['threads']} threads: fp32 multiply-add "
        f"{measured['fma_gflops']:.0f} GFLOP/s, memory read {measured['read_gbps']:.1f} GB/s",
    )


def _compiler() -> Finding:
    path = shutil.which("g++")
    if path is None:
        return Finding("g++", "", True, _GCC_HINT)
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    first = (done.stdout.splitlines() or ["unknown version"])[0]
    return Finding("g++", f"{first} ({path})", True, _GCC_HINT)


def _openmp() -> Finding:
    path = shutil.which("g++")
    hint = "the package libgomp1 (Debian, Ubuntu) or libgomp (Fedora, Alpine)"
    if path is None:
        return Finding("OpenMP", "", True, hint)
    command = [path, "-fopenmp", "-x", "c++", "-E", "-"]
    text = "#include <omp.h>\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return Finding("OpenMP", "" if done.returncode else "omp.h", True, hint)


def _nvcc() -> Finding:
    """What compiles for GPUs; a GPU is not needed for that."""
    try:
        found = find_nvcc()
    except ToolchainError as error:
        return Finding("nvcc", "", False, error.hint)
    return Finding("nvcc", f"{found} ({found.command[0]})", False, "")


def _cutlass() -> Finding:
    """What products by the expansion ``cutlass`` are compiled with."""
    try:
        found = find_cutlass()
    except ToolchainError as error:
        return Finding("CUTLASS", "", False, error.hint)
    return Finding("CUTLASS", f"{found.version} ({found.home})", False, "")


def _gpus() -> tuple[Finding, Finding]:
    """What artifacts for GPUs are run with."""
    driver = find_driver()
    drivers = "the NVIDIA driver, for artifacts that run on a GPU"
    gpus = "a GPU of NVIDIA, visible to this process (CUDA_VISIBLE_DEVICES)"
    shown = "; ".join(map(str, driver.gpus)) if driver else ""
    version = f"for CUDA {driver.version}" if driver else ""
    return Finding("CUDA driver", version, False, drivers), Finding("GPU", shown, False, gpus)


def _package(name: str, hint: str, required: bool) -> Finding:
    try:
        return Finding(name, version(name), required, hint)
    except PackageNotFoundError:
        return Finding(name, "", required, hint)


def _table(findings: tuple[Finding, ...]) -> Table:
    table = Table("needed", "found", "how to get it", box=None, header_style="bold")
    for one in findings:
        state = one.found or ("missing" if one.required else "not installed (optional)")
        table.add_row(one.name, state, "" if one.found else one.hint)
    return table
