"""A loaded artifact that runs on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dfcompiler.errors import InputError
from dfcompiler.runtime import dlpack
from dfcompiler.runtime.device_array import DeviceArray
from dfcompiler.runtime.inputs import Input, address_of
from dfcompiler.runtime.library import Library
from dfcompiler.runtime.manifest import Manifest, Tensor
from dfcompiler.runtime.model import Model

_DEFAULT_STREAM = 1
"""CUDA's default stream, where 0 would mean none."""


class DeviceInput(Input):
    """What an input has to be, on the host or on the GPU.

    Attributes:
        stream: where work that reads it is enqueued.
    """

    stream: int = _DEFAULT_STREAM

    def checked(self, value: Any) -> Any:
        """`value` as a contiguous array of exactly this dtype and rank; nothing moves."""
        if _is_on_device(value):
            return taken(self.tensor, value, self.stream)
        return super().checked(value)


@dataclass(frozen=True)
class _Place:
    """Where outputs go: to tensors that were given, else to where the inputs are."""

    given: Mapping[str, dlpack.Taken]
    on_device: bool


class DeviceModel(Model):
    """One instance of a model on a GPU: its own state and working memory, weights uploaded once.

    Tensors may lie on the host or on the GPU. If any input lies on the GPU, the outputs do too, as
    `DeviceArray`; else they are arrays of numpy.
    """

    _input: ClassVar[type[Input]] = DeviceInput

    def __init__(
        self,
        manifest: Manifest,
        library: Library,
        handle: int | None,
        threads: int | None = None,
        *,
        graphs: bool = False,
    ) -> None:
        """Takes an instance of the library; without one, it makes one when it first needs it."""
        self._awaited = handle is None
        super().__init__(manifest, library, handle, threads)
        self._results = {tensor.name: tensor for tensor in manifest.signature.outputs}
        if graphs:
            self.keep_graphs(True)

    def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        /,
        **symbols: int,
    ) -> dict[str, Any]:
        """Runs the model once.

        Args:
            inputs: an array for every input, of the host or of the GPU, with exactly its dtype.
            outputs: tensors of the GPU to write, by name; the others are allocated.
            symbols: values of the sizes that no input fixes.

        Raises:
            InputError: if a tensor is missing, not expected, or has a wrong dtype, rank or size.
            DeviceError: if the GPU fails.
        """
        stream = self.stream
        for spec in self._inputs:
            spec.stream = stream  # type: ignore[attr-defined]
        arrays = self._arrays({} if inputs is None else inputs)
        given = self._given(outputs or {}, stream)
        on_device = any(isinstance(array, dlpack.Taken) for array in arrays)
        results = self._run(arrays, symbols, _Place(given, on_device))
        return {**results, **(outputs or {})}

    @property
    def stream(self) -> int:
        """The CUDA stream that runs go to."""
        with self._lock:
            return int(self._library.stream(self._open()))

    def use_stream(self, stream: int | None) -> None:
        """Lets later runs go to a CUDA stream of the caller, or to the model's own again.

        Runs on a caller's stream whose tensors all lie on the GPU are not waited for; what is
        wrong with them is said by `synchronize`.

        Args:
            stream: ``torch.cuda.current_stream().cuda_stream`` and the like; None: the model's own.
        """
        value = _DEFAULT_STREAM if stream == 0 else stream
        with self._lock:
            self._check(self._library.set_stream(self._open(), value))

    def upload(self, name: str, array: np.ndarray) -> DeviceArray:
        """A copy of an array of the host on the GPU, to be given as an input.

        Args:
            name: of the input.
            array: of exactly its dtype and rank.

        Raises:
            InputError: if there is no such input, or the array does not fit.
            DeviceError: if the GPU has no room for it, or fails.
        """
        found = next((spec for spec in self._inputs if spec.name == name), None)
        if found is None:
            raise InputError(f"there is no input {name}; expected one of {', '.join(self._names)}")
        checked = Input.checked(found, array)
        with self._lock:
            self._open()
            dtype = found.tensor.dtype
            there = DeviceArray(self._library, checked.shape, dtype, checked.dtype, self._wait_for)
            self._check(
                self._library.device_copy(there.address, address_of(checked), checked.nbytes)
            )
        return there

    def synchronize(self) -> None:
        """Waits for all runs.

        Raises:
            InputError: if an index in an input was out of range.
            DeviceError: if the GPU failed.
        """
        with self._lock:
            self._check(self._library.synchronize(self._open()))

    def keep_graphs(self, wanted: bool) -> None:
        """Keeps calls as CUDA graphs, from the second one of equal sizes and tensors on."""
        with self._lock:
            self._check(self._library.set_graphs(self._open(), int(wanted)))

    def _open(self) -> int:
        if self._awaited:
            self._attach(self._library.first(self._manifest.folder))
            self._awaited = False
        return super()._open()

    def close(self) -> None:
        """Gives the memory back; the model cannot be run afterwards."""
        self._awaited = False
        super().close()

    def _given(self, outputs: Mapping[str, Any], stream: int) -> dict[str, dlpack.Taken]:
        for name in outputs:
            if name not in self._results:
                known = ", ".join(self._results)
                raise InputError(f"there is no output {name}; this model's outputs are: {known}")
            if not _is_on_device(outputs[name]):
                raise InputError(f"the memory for {name} does not lie on the GPU")
        return {name: taken(self._results[name], outputs[name], stream) for name in outputs}

    def _result(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], place: _Place
    ) -> Any:
        given = place.given.get(name)
        if given is not None:
            if given.shape != shape:
                raise InputError(
                    f"the memory for {name} has shape {list(given.shape)}; expected {list(shape)}"
                )
            return given
        is_times = self._measured and name == self._outputs[-1][0]
        if not place.on_device or is_times:
            return np.empty(shape, dtype)
        tensor = self._results[name]
        return DeviceArray(self._library, shape, tensor.dtype, dtype, self._wait_for)

    def _wait_for(self, stream: int | None) -> None:
        """Sees to it that what was enqueued is done before work on `stream` reads its results."""
        if self._handle is not None and (stream is None or (stream or 1) != self.stream):
            self.synchronize()

    @staticmethod
    def _address(array: Any) -> int:
        return address_of(array) if isinstance(array, np.ndarray) else int(array.address)


def _is_on_device(value: Any) -> bool:
    if type(value) is np.ndarray:
        return False
    return dlpack.device_type(value) in (dlpack.CUDA, dlpack.CUDA_MANAGED)


def taken(tensor: Tensor, value: Any, stream: int) -> dlpack.Taken:
    """A tensor of the GPU that has to be a contiguous one of this dtype and rank.

    Raises:
        InputError: if it is not.
    """
    try:
        found = dlpack.take(value, stream)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{tensor.name} cannot be read as a tensor: {error}") from error
    if found.dtype != tensor.dtype:
        raise InputError(f"{tensor.name} is {found.dtype or 'of another type'}; expected {tensor}")
    if found.ndim != len(tensor.shape):
        raise InputError(
            f"{tensor.name} has rank {found.ndim}, shape {list(found.shape)}; expected {tensor}"
        )
    if not found.contiguous:
        raise InputError(
            f"{tensor.name} is not contiguous; nothing is copied on the GPU",
            hint=f"pass {tensor.name}.contiguous()",
        )
    return found
