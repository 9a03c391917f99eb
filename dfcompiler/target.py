"""Machines that programs are compiled for: vector ISA, caches, cores, kernel tile sizes."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias, overload

from dfcompiler.errors import UnsupportedError, UsageError

_V3_FEATURES = (
    *("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"),
    *("sse4_1", "sse4_2", "ssse3", "popcnt", "cx16"),
)
_V4_FEATURES = (*_V3_FEATURES, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")


@dataclass(frozen=True)
class CpuTarget:
    """A processor that code is generated for.

    Attributes:
        name: what `parse_target` takes, such as ``cpu:x86-64-v4``.
        isa: ``x86-64-v4``, ``x86-64-v3`` or ``generic`` (the compiler's default instruction set).
        vector_bytes: bytes of one vector register that kernels use.
        flags: options that make g++ emit this instruction set.
        cpu_features: names in ``/proc/cpuinfo`` that must be there to run the code.
        cores: cores this process may use.
        l1_bytes: first-level data cache of one core.
        l2_bytes: second-level cache of one core.
        l3_bytes: last-level cache, shared.
        gemm_nr: columns of the fp32 GEMM register tile; weights are packed in panels this wide.
        gemm_mr: rows of the fp32 GEMM register tile.
        extension: what kernels of bfloat16 may use besides the instruction set: ``amx``, ``bf16``
            (``avx512_bf16``), or nothing. Only code that uses it is compiled for it (`extended`).
    """

    name: str
    isa: str
    vector_bytes: int
    flags: tuple[str, ...]
    cpu_features: tuple[str, ...]
    cores: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    gemm_nr: int
    gemm_mr: int
    extension: str = ""

    kind: ClassVar[str] = "cpu"

    @property
    def vector_floats(self) -> int:
        """fp32 values in one vector register."""
        return self.vector_bytes // 4

    @property
    def bf16_nr(self) -> int:
        """Columns of the bfloat16 GEMM tile: two vectors of sums."""
        return 2 * self.vector_floats

    def extended(self) -> CpuTarget:
        """The target with its extension among the flags and features of the code."""
        if not self.extension:
            return self
        flags, features = _EXTENSIONS[self.extension]
        return replace(
            self,
            name=f"cpu:{self.isa}+{self.extension}",
            flags=(*self.flags, *flags),
            cpu_features=(*self.cpu_features, *features),
        )


@dataclass(frozen=True)
class CudaTarget:
    """A GPU that code is generated for; the figures are those of the part named in `device`.

    Attributes:
        name: what `parse_target` takes, such as ``cuda:sm_90``.
        arch: the architecture that code is generated for, with what only it has: ``90a``.
        device: the part whose figures these are.
        multiprocessors: how many blocks can certainly run at the same time.
        shared_bytes: most shared memory of one block.
        registers: 32-bit registers of a multiprocessor.
        l2_bytes: second-level cache of the whole device.
        memory_rate: bytes a second from device memory.
        l2_rate: bytes a second from the second-level cache, of all multiprocessors together.
        clock_rate: cycles a second, at which `tensor_rate` is given.
        float_rate: floating-point operations a second in fp32, without tensor cores.
        tensor_rate: the same of dense 16-bit products on the tensor cores, sums in fp32.
        mma_share: share of `tensor_rate` that mma.sync reaches; the rest takes wgmma.
        wgmma_share: share of it that products by wgmma reach; 0: there is no such instruction.
        libraries: header libraries that code for it may use, those that are installed: ``cutlass``.

    Source:
        Data sheets of the parts; the L2 is 5120 bytes a cycle wide (A100 white paper), that of an
        H200 is taken to be as wide. `mma_share` of Hopper: arXiv 2402.13499. `wgmma_share`: the
        lower end of the 80 to 90 % that arXiv 2407.08608 gives for optimized products on an H100.
    """

    name: str
    arch: str
    device: str
    multiprocessors: int
    shared_bytes: int
    registers: int
    l2_bytes: int
    memory_rate: float
    l2_rate: float
    clock_rate: float
    float_rate: float
    tensor_rate: float
    mma_share: float
    wgmma_share: float = 0.0
    libraries: tuple[str, ...] = ()

    kind: ClassVar[str] = "cuda"


Target: TypeAlias = CpuTarget | CudaTarget


@dataclass(frozen=True)
class _Isa:
    vector_bytes: int
    flags: tuple[str, ...]
    cpu_features: tuple[str, ...]
    gemm_nr: int
    gemm_mr: int


_ISAS = {
    "x86-64-v4": _Isa(
        64, ("-march=x86-64-v4", "-mprefer-vector-width=512"), _V4_FEATURES, gemm_nr=64, gemm_mr=6
    ),
    "x86-64-v3": _Isa(32, ("-march=x86-64-v3",), _V3_FEATURES, gemm_nr=16, gemm_mr=6),
    "generic": _Isa(16, (), (), gemm_nr=8, gemm_mr=4),
}
_EXTENSIONS = {
    "amx": (
        ("-mavx512bf16", "-mamx-tile", "-mamx-bf16"),
        ("avx512_bf16", "amx_tile", "amx_bf16"),
    ),
    "bf16": (("-mavx512bf16",), ("avx512_bf16",)),
}
"""Compiler options and CPU features of each extension of x86-64-v4, the best one first."""
_GPUS = {
    target.name: target
    for target in (
        CudaTarget(
            name="cuda:sm_80",
            arch="80",
            device="A100",
            multiprocessors=108,
            shared_bytes=163 << 10,
            registers=65536,
            l2_bytes=40 << 20,
            memory_rate=2.0e12,
            l2_rate=7.2e12,
            clock_rate=1.41e9,
            float_rate=19.5e12,
            tensor_rate=312e12,
            mma_share=1.0,
        ),
        CudaTarget(
            name="cuda:sm_90",
            arch="90a",
            device="H200",
            multiprocessors=132,
            shared_bytes=227 << 10,
            registers=65536,
            l2_bytes=50 << 20,
            memory_rate=4.8e12,
            l2_rate=9.0e12,
            clock_rate=1.83e9,
            float_rate=67e12,
            tensor_rate=989e12,
            mma_share=0.63,
            wgmma_share=0.8,
        ),
    )
}
CPU_TARGETS = (
    "cpu",
    *(f"cpu:{isa}" for isa in _ISAS),
    *(f"cpu:x86-64-v4+{name}" for name in _EXTENSIONS),
)
TARGETS = (*CPU_TARGETS, *_GPUS)


@overload
def parse_target(text: Literal["cpu"]) -> CpuTarget: ...


@overload
def parse_target(text: str) -> Target: ...


def parse_target(text: str) -> Target:
    """The target called `text`; ``cpu`` is the best that this machine has.

    Raises:
        UsageError: if no target has this name.
    """
    if text not in TARGETS:
        raise UsageError(f"target {text!r} is not known; expected one of {', '.join(TARGETS)}")
    if text in _GPUS:
        return _GPUS[text]
    isa, _, extension = text.removeprefix("cpu").removeprefix(":").partition("+")
    if not isa:
        isa, extension = host_isa(), host_extension()
    row = _ISAS[isa]
    return CpuTarget(
        name=f"cpu:{isa}",
        isa=isa,
        vector_bytes=row.vector_bytes,
        flags=row.flags,
        cpu_features=row.cpu_features,
        cores=host_cores(),
        l1_bytes=_cache_bytes(1, 32 << 10),
        l2_bytes=_cache_bytes(2, 512 << 10),
        l3_bytes=_cache_bytes(3, 8 << 20),
        gemm_nr=row.gemm_nr,
        gemm_mr=row.gemm_mr,
        extension=extension,
    )


def parse_cpu(text: str) -> CpuTarget:
    """The target called `text`, for what only processors have.

    Raises:
        UsageError: if no target has this name.
        UnsupportedError: if it is a GPU.
    """
    target = parse_target(text)
    if not isinstance(target, CpuTarget):
        raise UnsupportedError(f"{text} is a GPU; this is there for CPUs only", hint="use cpu")
    return target


def host_isa() -> str:
    """The best instruction set of this machine that there is a target for."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return "generic"
    features = host_features()
    return next(isa for isa, row in _ISAS.items() if features.issuperset(row.cpu_features))


def host_extension() -> str:
    """The best extension of this machine's instruction set for bfloat16; empty for none."""
    if host_isa() != "x86-64-v4":
        return ""
    found = (name for name, row in _EXTENSIONS.items() if host_features().issuperset(row[1]))
    return next(found, "")


@cache
def host_features() -> frozenset[str]:
    """The feature names in ``/proc/cpuinfo``; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def host_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _cache_bytes(level: int, default: int) -> int:
    """Bytes of core 0's data cache of one level, or `default` where the kernel does not say."""
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            facts = [(index / name).read_text().strip() for name in ("level", "type", "size")]
        except OSError:
            continue
        if facts[0] == str(level) and facts[1] != "Instruction":
            unit = {"K": 1 << 10, "M": 1 << 20}.get(facts[2][-1:], 1)
            return int(facts[2].rstrip("KM")) * unit
    return default
