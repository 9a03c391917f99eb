"""Outputs that stay on the GPU."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from dfcompiler.runtime import dlpack
from dfcompiler.runtime.library import Library


class DeviceArray:
    """An array in the memory of the GPU, for any library that knows DLPack.

    ``torch.from_dlpack(array)`` and the like share the memory; `numpy` copies it to the host.

    Attributes:
        dtype: ``f32``, ``bf16``, …
    """

    def __init__(
        self,
        library: Library,
        shape: tuple[int, ...],
        dtype: str,
        numpy_dtype: np.dtype[Any],
        ready: Callable[[int | None], None],
    ) -> None:
        """Allocates it.

        Args:
            library: of the model that writes it.
            shape: the extents.
            dtype: ``f32``, …
            numpy_dtype: what the elements are on the host.
            ready: called before the elements are read, with the stream that reads them.

        Raises:
            DfcError: if the GPU has no memory for it.
        """
        self.shape, self.dtype = shape, dtype
        self.nbytes = prod(shape) * numpy_dtype.itemsize
        self._numpy_dtype, self._library, self._ready = numpy_dtype, library, ready
        address = library.device_allocate(self.nbytes)
        if not address:
            raise library.error(library.last_status(6))
        self.address = int(address)
        weakref.finalize(self, library.device_free, self.address)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def numpy(self) -> np.ndarray:
        """A copy on the host."""
        self._ready(None)
        result = np.empty(self.shape, self._numpy_dtype)
        to = result.__array_interface__["data"][0]
        status = self._library.device_copy(to, self.address, self.nbytes)
        if status:
            raise self._library.error(status)
        return result

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an array on the GPU cannot be seen by numpy without a copy")
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule that shares the memory."""
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("the array lies on the GPU and is shared without a copy only")
        if stream != -1:
            self._ready(stream)
        return dlpack.give(self.address, self.shape, self.dtype, self.__dlpack_device__(), self)

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, 0

    def __repr__(self) -> str:
        return f"<DeviceArray {self.dtype}[{', '.join(map(str, self.shape))}]>"
