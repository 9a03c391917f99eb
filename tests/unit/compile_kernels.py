"""Kernels as functions: a few lines of C++ around the headers, compiled for one instruction set."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dfcompiler.codegen.toolchain import NUMERIC_FLAGS
from dfcompiler.target import CPU_TARGETS, CpuTarget, host_features, parse_cpu

KERNELS = Path(__file__).resolve().parents[2] / "dfcompiler" / "kernels"
FLAGS = ("-std=c++20", "-O3", *NUMERIC_FLAGS, "-fopenmp", "-fPIC", "-shared", "-Wall", "-Werror")


def runnable_targets(extensions: bool = False) -> list[str]:
    """The CPU targets whose code this machine can run, those with an extension only if asked."""
    named = [name for name in CPU_TARGETS if name != "cpu" and (extensions or "+" not in name)]
    targets = [parse_cpu(name).extended() for name in named]
    return [t.name for t in targets if host_features().issuperset(t.cpu_features)]


@cache
def compile_kernels(source: str, target: str) -> tuple[ctypes.CDLL, CpuTarget]:
    """The functions of `source` as a library, with the target they were compiled for."""
    machine = parse_cpu(target).extended()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "kernels.so"
        command = ["g++", *FLAGS, *machine.flags, f"-I{KERNELS}", "-xc++", "-", "-o", str(library)]
        done = subprocess.run(command, input=source, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(library)), machine


def call(function: Any, *arguments: Any) -> None:
    """Calls a C function: arrays become pointers, integers `long`, floats `double`."""
    function(*map(_c_value, arguments))


def _c_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    if value is None:
        return ctypes.c_void_p()
    return ctypes.c_double(value) if isinstance(value, float) else ctypes.c_long(value)


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy of `array` that starts on a cache line."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
