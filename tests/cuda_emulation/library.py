"""Libraries of emulated kernels: their functions, called with numpy arrays in guarded memory."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class EmulationError(RuntimeError):
    """What the emulation found: divergence, an access out of bounds, a race, a failed launch."""


class Library:
    """A library that `compile_emulated` made."""

    def __init__(self, path: Path) -> None:
        self.functions = ctypes.CDLL(str(path))
        self.functions.emulation_allocate.restype = ctypes.c_void_p
        self.functions.emulation_message.restype = ctypes.c_char_p
        self.functions.emulation_kernel.restype = ctypes.c_char_p

    def array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of poison in memory that ends where touching it is an error."""
        count = int(np.prod(shape))
        size = count * np.dtype(dtype).itemsize
        address = self.functions.emulation_allocate(ctypes.c_size_t(size))
        memory = (ctypes.c_uint8 * size).from_address(address)
        release = self.functions.emulation_release
        weakref.finalize(memory, release, ctypes.c_void_p(address))
        return np.frombuffer(memory, np.uint8, size).view(dtype).reshape(shape)

    def copy(self, array: np.ndarray) -> np.ndarray:
        """A copy of `array` in such memory."""
        made = self.array(array.shape, array.dtype)
        made[...] = array
        return made

    def weight(self, array: np.ndarray) -> np.ndarray:
        """A copy that no kernel writes: they read it before they wait for their predecessor."""
        made = self.copy(array)
        self.functions.emulation_set_weight(ctypes.c_void_p(made.ctypes.data))
        return made

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function: arrays become pointers, integers ``long``, floats ``double``.

        Arrays must come from `array` or `copy`. The function is called twice, with the threads in
        opposite orders.

        Raises:
            EmulationError: if a kernel fails, or the orders give different results.
        """
        arrays = [value for value in arguments if isinstance(value, np.ndarray)]
        values = [_c_value(value) for value in arguments]
        self.in_both_orders(lambda: self.functions[name](*values), arrays)

    def in_both_orders(self, run: Callable[[], object], arrays: list[np.ndarray]) -> None:
        """Runs with the threads in one order, and again from the same start in the other one.

        Raises:
            EmulationError: if a kernel fails, or an array is not the same after both.
        """
        before = [array.copy() for array in arrays]
        self._run(run, order=0)
        first = [array.copy() for array in arrays]
        for array, start in zip(arrays, before, strict=True):
            array[...] = start
        self._run(run, order=1)
        for i, (array, expected) in enumerate(zip(arrays, first, strict=True)):
            differ = array.ravel().view(np.uint8) != expected.ravel().view(np.uint8)
            if differ.any():
                element = int(np.argmax(differ)) // array.itemsize
                raise EmulationError(
                    f"threads race: array {i} depends on their order, first at element {element}"
                )

    @property
    def last_kernel(self) -> str:
        """The name of the kernel that was launched last."""
        return str(self.functions.emulation_kernel().decode())

    def _run(self, run: Callable[[], object], order: int) -> None:
        self.functions.emulation_set_order(order)
        self.functions.emulation_clear_message()
        run()
        self.functions.emulation_check()
        message = self.functions.emulation_message().decode(errors="replace")
        if message:
            raise EmulationError(message)


def _c_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    if value is None:
        return ctypes.c_void_p()
    return ctypes.c_double(value) if isinstance(value, float) else ctypes.c_long(value)
