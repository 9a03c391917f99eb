"""Calibrates the transaction model on this machine."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

from dfcompiler.analysis.transactions import LINE_BYTES, Memory
from dfcompiler.reference.ceilings import build_library
from dfcompiler.target import CpuTarget

_SOURCE = Path(__file__).with_name("transactions.cpp")


def measure_memory(target: CpuTarget, threads: int, seconds: float = 0.1) -> Memory:
    """The memory behind the L2 of each core, measured for about four times `seconds`.

    Each thread reads eight times its L2, which is what activations of a layer take.

    Raises:
        ToolchainError: if the measuring program cannot be built.
    """
    library, size = _library(target), ctypes.c_size_t(8 * target.l2_bytes)
    latency_s = float(library.dfc_latency(size, ctypes.c_double(seconds)))
    lines = float(library.dfc_lines(threads, size, ctypes.c_double(seconds)))
    return Memory(
        bandwidth=float(library.dfc_bandwidth(threads, size, ctypes.c_double(seconds))),
        line_bytes=LINE_BYTES["cpu"],
        latency_s=latency_s,
        concurrency=max(1.0, lines * latency_s),
        overhead_s=float(library.dfc_meeting(threads, ctypes.c_double(seconds))),
        fast_bytes=target.l2_bytes,
    )


@cache
def _library(target: CpuTarget) -> ctypes.CDLL:
    library = build_library(_SOURCE, target)
    for name in ("bandwidth", "latency", "lines", "meeting"):
        getattr(library, f"dfc_{name}").restype = ctypes.c_double
    return library
