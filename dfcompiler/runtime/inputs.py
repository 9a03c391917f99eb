"""What a model takes: arrays of the host with exactly the dtype and rank of its inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from dfcompiler.errors import InputError
from dfcompiler.runtime.manifest import DTYPES, Tensor


class Input:
    """What an input has to be."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.name = tensor, tensor.name
        self.code, self.rank = DTYPES.index(tensor.dtype), len(tensor.shape)
        self.dtype = None if tensor.dtype == "bf16" else np.dtype(tensor.numpy_name)

    def checked(self, value: Any) -> np.ndarray:
        """`value` as a contiguous array of exactly this dtype and rank."""
        array = value if type(value) is np.ndarray else np.asarray(value)
        if array.dtype != self.dtype and not self._is_bfloat16(array.dtype):
            raise InputError(
                f"{self.name} is {array.dtype}; expected {self.tensor.numpy_name}",
                hint=f"convert it: {self.name}.astype({self.tensor.numpy_name!r})",
            )
        if array.ndim != self.rank:
            raise InputError(
                f"{self.name} has rank {array.ndim}, shape {list(array.shape)}; "
                f"expected {self.tensor}"
            )
        if not (array.flags.c_contiguous and array.flags.aligned):
            array = np.require(array, requirements=["C", "A"])
        return array

    def _is_bfloat16(self, dtype: np.dtype[Any]) -> bool:
        """bfloat16 in any library's spelling, or its bits."""
        return self.dtype is None and (dtype.name == "bfloat16" or dtype == np.uint16)


def address_of(array: np.ndarray) -> int:
    """The first byte of an array; `array.ctypes` would make an object for each call."""
    return int(array.__array_interface__["data"][0])
