"""The C interface of an artifact's shared library, through ctypes."""

from __future__ import annotations

import ctypes
import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

from dfcompiler.errors import (
    DeviceError,
    DfcError,
    InputError,
    InternalError,
    ModelError,
    UsageError,
)

_DEVICE_HINT = "'dfc doctor' shows the GPU and the driver of this machine"
_opened: dict[tuple[int, int], ctypes.CDLL] = {}
_lock = threading.Lock()


def open_library(path: Path) -> ctypes.CDLL:
    """The shared library at `path`, as it is now.

    The dynamic loader knows a library by the text of its path before it looks at the file, so a
    file that took the place of a loaded one must be spelled in another way.

    Raises:
        ModelError: if it cannot be loaded.
    """
    facts = path.stat()
    identity = (facts.st_dev, facts.st_ino)
    with _lock:
        if identity not in _opened:
            spelled = os.path.join(path.parent, *["."] * len(_opened), path.name)
            try:
                _opened[identity] = ctypes.CDLL(spelled, mode=os.RTLD_LOCAL | os.RTLD_NOW)
            except OSError as error:
                raise ModelError(
                    f"{path} cannot be loaded: {error}",
                    hint="it needs libstdc++ and libgomp; the file may also be damaged",
                ) from error
        return _opened[identity]


class Library:
    """Typed functions of one artifact's C interface."""

    def __init__(self, path: Path, name: str, max_rank: int, on_device: bool = False) -> None:
        self.tensor = _tensor_struct(max_rank)
        library = open_library(path)
        pointer, tensors = ctypes.c_void_p, ctypes.POINTER(self.tensor)
        sizes, count = ctypes.POINTER(ctypes.c_int64), ctypes.c_int32
        call = [pointer, tensors, count, sizes, tensors, count]

        def bind(suffix: str, result: Any, arguments: list[Any]) -> Any:
            try:
                function = getattr(library, f"{name}_{suffix}")
            except AttributeError as error:
                raise ModelError(f"{path} is no library of {name}: it lacks {suffix}") from error
            function.restype, function.argtypes = result, arguments
            return function

        self.create = bind("create", pointer, [ctypes.c_char_p])
        self.clone = bind("clone", pointer, [pointer])
        self.run = bind("run", ctypes.c_int, call)
        self.output_shapes = bind(
            "output_shapes", ctypes.c_int, [pointer, tensors, count, sizes, tensors, count]
        )
        self.reset = bind("reset", ctypes.c_int, [pointer])
        self.set_threads = bind("set_threads", ctypes.c_int, [pointer, count])
        self.arena_bytes = bind("arena_bytes", ctypes.c_int64, [pointer])
        self.last_error = bind("last_error", ctypes.c_char_p, [])
        self.destroy = bind("destroy", None, [pointer])
        self._last_status = bind("last_status", ctypes.c_int, []) if on_device else None
        if on_device:
            self.set_graphs = bind("set_graphs", ctypes.c_int, [pointer, count])
            self.set_stream = bind("set_stream", ctypes.c_int, [pointer, pointer])
            self.stream = bind("stream", pointer, [pointer])
            self.synchronize = bind("synchronize", ctypes.c_int, [pointer])
            self.device_allocate = bind("device_allocate", pointer, [ctypes.c_int64])
            self.device_free = bind("device_free", None, [pointer])
            self.device_copy = bind("device_copy", ctypes.c_int, [pointer, pointer, ctypes.c_int64])

    def first(self, folder: Path) -> int:
        """A first instance over the weights of an artifact.

        Raises:
            ModelError: if its weights are not what they should be.
            DeviceError: if it needs a GPU that is not there.
        """
        handle = self.create(bytes(folder / "weights.bin"))
        if not handle:
            raise self.error(self.last_status(7))
        return int(handle)

    def last_status(self, otherwise: int) -> int:
        """The status behind this thread's last failure, where the library tells it."""
        return int(self._last_status()) if self._last_status else otherwise

    def error(self, status: int) -> DfcError:
        """What the last failure of this thread means to a user."""
        text = self.last_error().decode("utf-8", "replace")
        match status:
            case 6:
                return InputError(text, hint="use smaller sizes")
            case 7:
                return ModelError(text)
            case 8:
                return UsageError(text)
            case 9:
                return InternalError(text)
            case 10:
                return DeviceError(text, hint=_DEVICE_HINT)
        return InputError(text)


@cache
def _tensor_struct(max_rank: int) -> type[ctypes.Structure]:
    """One type for each rank: a library that is opened twice has its functions bound once."""

    class TensorStruct(ctypes.Structure):
        _fields_ = (
            ("data", ctypes.c_void_p),
            ("bytes", ctypes.c_int64),
            ("dtype", ctypes.c_int32),
            ("rank", ctypes.c_int32),
            ("shape", ctypes.c_int64 * max_rank),
        )

    return TensorStruct
