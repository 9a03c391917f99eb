"""The measured ceilings of this machine: fp32 multiply-adds and memory reads."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dfcompiler.errors import ToolchainError
from dfcompiler.target import CpuTarget, parse_target

_SOURCE = Path(__file__).with_name("ceilings.cpp")
READ_BYTES = 512 << 20
"""Memory that is read to measure bandwidth; a larger last-level cache makes the figure its own."""


@dataclass(frozen=True)
class Ceilings:
    """The most that any program can reach here.

    Attributes:
        threads: how many threads these figures are for.
        fma_gflops: fp32 multiply-adds a second, two operations each, in 10⁹.
        read_gbps: bytes read from memory a second, in 10⁹.
    """

    threads: int
    fma_gflops: float
    read_gbps: float


def measure_ceilings(threads: int, seconds: float = 0.3) -> Ceilings:
    """Measures for about twice `seconds`, in this process.

    Raises:
        ToolchainError: if the measuring program cannot be built.
    """
    library = _library(parse_target("cpu"))
    return Ceilings(
        threads,
        float(library.dfc_fma_gflops(threads, seconds)),
        float(library.dfc_read_gbps(threads, READ_BYTES, seconds)),
    )


def measure_fma_gflops(threads: int, seconds: float = 0.2) -> float:
    """Multiply-adds alone, for a share of the ceiling measured beside a benchmark.

    Raises:
        ToolchainError: if the measuring program cannot be built.
    """
    return float(_library(parse_target("cpu")).dfc_fma_gflops(threads, seconds))


@cache
def _library(target: CpuTarget) -> ctypes.CDLL:
    compiler = shutil.which("g++")
    if compiler is None:
        raise ToolchainError("g++ is missing", hint="install it with apt-get install g++")
    with tempfile.TemporaryDirectory(prefix="dfcompiler-ceilings-") as folder:
        out = Path(folder) / "ceilings.so"
        options = ("-O3", "-std=c++20", "-fopenmp", "-shared", "-fPIC", *target.flags)
        command = [compiler, *options, str(_SOURCE), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = tuple(done.stderr.strip().splitlines()[:5])
            raise ToolchainError(f"{compiler} cannot build {_SOURCE.name}", lines)
        library = ctypes.CDLL(str(out))
    library.dfc_fma_gflops.restype = ctypes.c_double
    library.dfc_fma_gflops.argtypes = [ctypes.c_int, ctypes.c_double]
    library.dfc_read_gbps.restype = ctypes.c_double
    library.dfc_read_gbps.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_double]
    return library
