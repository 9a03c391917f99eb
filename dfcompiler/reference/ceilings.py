"""The measured ceilings of this machine: multiply-adds, and memory reads."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from dfcompiler.errors import ToolchainError
from dfcompiler.target import CpuTarget, host_features, parse_target

_SOURCE = Path(__file__).with_name("ceilings.cpp")
_RATES = ("fma", "tile", "bf16", "amx")
READ_BYTES = 512 << 20
"""Memory that is read to measure bandwidth; a larger last-level cache makes the figure its own."""


@dataclass(frozen=True)
class Rates:
    """The most operations a second with one instruction set, in 10⁹; a multiply-add counts two.

    Attributes:
        fma_gflops: fp32 multiply-adds, all operands in registers.
        tile_gflops: the same in the register tile of a matrix product, operands in the L1. Loads
            cost a processor that is limited by its power a part of its clock.
        bf16_gflops: bf16 products summed in fp32, by AMX tiles or by ``vdpbf16ps``; None where
            there is neither.
    """

    fma_gflops: float
    tile_gflops: float
    bf16_gflops: float | None


@dataclass(frozen=True)
class Ceilings(Rates):
    """The most that any program can reach here.

    Attributes:
        threads: how many threads these figures are for.
        read_gbps: bytes read from memory a second, in 10⁹.
    """

    threads: int
    read_gbps: float


def measure_ceilings(threads: int, seconds: float = 0.3) -> Ceilings:
    """Measures this machine for up to five times `seconds`, in this process.

    Raises:
        ToolchainError: if the measuring program cannot be built.
    """
    target = parse_target("cpu")
    rates = measure_rates(target, threads, seconds)
    read_gbps = float(_library(target).dfc_read_gbps(threads, READ_BYTES, seconds))
    return Ceilings(**asdict(rates), threads=threads, read_gbps=read_gbps)


def measure_rates(target: CpuTarget, threads: int, seconds: float = 0.01) -> Rates:
    """Operations a second with the instruction set of `target`, each kind for `seconds`.

    Raises:
        ToolchainError: if the measuring program cannot be built.
    """
    library, features = _library(target), host_features()
    bf16 = 0.0
    if "amx_bf16" in features:
        bf16 = float(library.dfc_amx_gflops(threads, seconds))
    if not bf16 and "avx512_bf16" in features:
        bf16 = float(library.dfc_bf16_gflops(threads, seconds))
    return Rates(
        float(library.dfc_fma_gflops(threads, seconds)),
        float(library.dfc_tile_gflops(threads, seconds)),
        bf16 or None,
    )


def measure_fma_gflops(threads: int, seconds: float = 0.2) -> float:
    """Multiply-adds alone, for a share of the ceiling measured beside a benchmark.

    Raises:
        ToolchainError: if the measuring program cannot be built.
    """
    return float(_library(parse_target("cpu")).dfc_fma_gflops(threads, seconds))


@cache
def _library(target: CpuTarget) -> ctypes.CDLL:
    library = build_library(_SOURCE, target)
    for name in _RATES:
        function = library[f"dfc_{name}_gflops"]
        function.restype = ctypes.c_double
        function.argtypes = [ctypes.c_int, ctypes.c_double]
        setattr(library, f"dfc_{name}_gflops", function)
    library.dfc_read_gbps.restype = ctypes.c_double
    library.dfc_read_gbps.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_double]
    return library


def build_library(source: Path, target: CpuTarget) -> ctypes.CDLL:
    """A measuring program of one source file, built for `target` and loaded.

    Raises:
        ToolchainError: if it cannot be built.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise ToolchainError("g++ is missing", hint="install it with apt-get install g++")
    with tempfile.TemporaryDirectory(prefix="dfcompiler-measure-") as folder:
        out = Path(folder) / f"{source.stem}.so"
        options = ("-O3", "-std=c++20", "-fopenmp", "-shared", "-fPIC", *target.flags)
        command = [compiler, *options, str(source), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = tuple(done.stderr.strip().splitlines()[:5])
            raise ToolchainError(f"{compiler} cannot build {source.name}", lines)
        return ctypes.CDLL(str(out))
