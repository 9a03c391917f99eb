"""The CUDA driver and the GPUs of this machine, asked through the driver itself."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from dfcompiler.errors import DeviceError
from dfcompiler.target import CudaTarget, parse_target

_LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76
"""Numbers of the attributes that make up the compute capability."""


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: as its maker calls it.
        target: what code for it is compiled for, such as ``cuda:sm_90``.
        total_bytes: its memory.
    """

    name: str
    target: str
    total_bytes: int

    def __str__(self) -> str:
        return f"{self.name}, {self.target}, {self.total_bytes / (1 << 30):.0f} GiB"


@dataclass(frozen=True)
class Driver:
    """The driver.

    Attributes:
        version: the newest CUDA that it runs, ``13.0``.
        gpus: those that this process may use.
    """

    version: str
    gpus: tuple[Gpu, ...]


def find_driver() -> Driver | None:
    """The CUDA driver of this machine, if there is one."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    version, count = ctypes.c_int(), ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)):
        return None
    if library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        count.value = 0
    number = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Driver(number, tuple(_gpu(library, index) for index in range(count.value)))


def require_gpu(target: str) -> None:
    """Refuses to compile for a GPU what is then to run here, where there is none.

    Raises:
        DeviceError: if the target is a GPU and this machine has no driver or no GPU.
    """
    if not isinstance(parse_target(target), CudaTarget):
        return
    driver = find_driver()
    if driver is None or not driver.gpus:
        missing = "CUDA driver" if driver is None else "GPU"
        raise DeviceError(
            f"there is no {missing} on this machine; code for {target} cannot run here",
            hint="compile it here with dfc compile, and name the artifact where a GPU is",
        )


def _gpu(library: ctypes.CDLL, index: int) -> Gpu:
    device, total = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(total), device)
    major, minor = (_attribute(library, number, device) for number in (_MAJOR, _MINOR))
    return Gpu(name.value.decode("utf-8", "replace"), f"cuda:sm_{major}{minor}", total.value)


def _attribute(library: ctypes.CDLL, number: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return value.value
