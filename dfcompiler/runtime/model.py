"""A loaded artifact that can be run."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np

from dfcompiler.errors import InputError, UsageError
from dfcompiler.runtime.inputs import Input, address_of
from dfcompiler.runtime.library import Library
from dfcompiler.runtime.manifest import Manifest, Signature, numpy_dtype


class Model:
    """One instance of a compiled model: its own persistent state over shared, mapped weights.

    A model may be called from any thread; calls on one instance wait for each other. `clone` gives
    each thread an instance of its own.
    """

    _input: ClassVar[type[Input]] = Input
    _address = staticmethod(address_of)

    def __init__(
        self, manifest: Manifest, library: Library, handle: int | None, threads: int | None = None
    ) -> None:
        self._manifest, self._library = manifest, library
        self._lock = threading.Lock()
        self._attach(handle)
        signature = manifest.signature
        self._inputs = tuple(map(self._input, signature.inputs))
        self._names = frozenset(tensor.name for tensor in signature.inputs)
        self._outputs = tuple((t.name, numpy_dtype(t)) for t in signature.outputs)
        self._symbols = {symbol.name: i for i, symbol in enumerate(signature.symbols)}
        self._input_structs = (library.tensor * len(self._inputs))()
        self._output_structs = (library.tensor * len(self._outputs))()
        for struct, spec in zip(self._input_structs, self._inputs, strict=True):
            struct.dtype, struct.rank = spec.code, spec.rank
        self._measured = tuple(
            OperatorTime(row["kind"], row["result"], row["source"], 0.0)
            for row in manifest.facts.get("measured", ())
        )
        self._last_sizes: tuple[Any, ...] | None = None
        self._last_shapes: tuple[tuple[int, ...], ...] = ()
        if threads is not None:
            self.set_threads(threads)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs, sizes and persistent state."""
        found = self._manifest.signature
        # The last output of an artifact that measures is `operator_times`.
        return replace(found, outputs=found.outputs[:-1]) if self._measured else found

    @property
    def path(self) -> Path:
        """The artifact."""
        return self._manifest.folder

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The contents of ``manifest.json``."""
        return self._manifest.facts

    @property
    def arena_bytes(self) -> int:
        """Working memory that this instance holds; it grows with the sizes of the calls."""
        with self._lock:
            return int(self._library.arena_bytes(self._open()))

    def run(
        self, inputs: Mapping[str, np.ndarray] | None = None, /, **symbols: int
    ) -> dict[str, np.ndarray]:
        """Runs the model once.

        Args:
            inputs: an array for every input, with exactly its dtype.
            symbols: values of the sizes that no input fixes.

        Raises:
            InputError: if an input is missing, not expected, or has a wrong dtype, rank or size.
        """
        return self._run(self._arrays({} if inputs is None else inputs), symbols)

    def _run(
        self, arrays: list[Any], symbols: Mapping[str, int], place: Any = None
    ) -> dict[str, Any]:
        """Runs the model on checked `arrays`; `place` says where `_result` puts the outputs."""
        sizes = self._sizes(symbols) if symbols else None
        with self._lock:
            handle = self._open()
            for struct, array in zip(self._input_structs, arrays, strict=True):
                struct.data = self._address(array)
            call = (
                *(handle, self._input_structs, len(self._inputs)),
                *(sizes, self._output_structs, len(self._outputs)),
            )
            shapes = self._shapes_of(arrays, symbols, call)
            results = {}
            for struct, shape, (name, dtype) in zip(
                self._output_structs, shapes, self._outputs, strict=True
            ):
                result = self._result(name, shape, dtype, place)
                struct.data = self._address(result)
                struct.bytes = result.nbytes
                results[name] = result
            self._check(self._library.run(*call))
            if self._measured:
                self._book(results.pop(self._outputs[-1][0]))
        return results

    @property
    def operator_times(self) -> tuple[OperatorTime, ...]:
        """What each operator took in the last run, in program order; loops are added up.

        Raises:
            UsageError: if the artifact was not compiled to measure.
        """
        if not self._measured:
            raise UsageError(
                f"the artifact {self.path} does not measure its operators",
                hint="compile it with --profile",
            )
        with self._lock:
            return self._measured

    def _book(self, seconds: np.ndarray) -> None:
        """Keeps the times that a run left in the last output; its last element is a time of day."""
        self._measured = tuple(
            OperatorTime(one.kind, one.result, one.source, float(spent))
            for one, spent in zip(self._measured, seconds[:-1], strict=True)
        )

    def reset(self) -> None:
        """Sets the persistent state to its initial value."""
        with self._lock:
            self._check(self._library.reset(self._open()))

    def set_threads(self, threads: int) -> None:
        """Sets the number of threads of later runs; 0 leaves it to OpenMP.

        Raises:
            UsageError: if it is negative.
        """
        if threads < 0 or threads > 1 << 16:
            raise UsageError(f"found {threads} threads; expected 0 to {1 << 16}")
        with self._lock:
            self._check(self._library.set_threads(self._open(), threads))

    def clone(self) -> Model:
        """An instance over the same mapped weights, with persistent state at its initial value."""
        with self._lock:
            handle = self._library.clone(self._open())
        if not handle:
            raise self._library.error(self._library.last_status(6))
        return type(self)(self._manifest, self._library, handle)

    def close(self) -> None:
        """Gives the memory back; the model cannot be run afterwards."""
        with self._lock:
            self._handle = None
            self._finalizer()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._handle else " (closed)"
        return f"<Model {self._manifest.name}{self.signature}{state}>"

    def _result(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], place: Any) -> Any:
        """Memory for an output."""
        return np.empty(shape, dtype)

    def _attach(self, handle: int | None) -> None:
        """Takes an instance of the library, to be given back with the object."""
        self._handle = handle
        self._finalizer = weakref.finalize(self, self._library.destroy, handle)

    def _open(self) -> int:
        if self._handle is None:
            raise UsageError(f"the model {self._manifest.name} is closed")
        return self._handle

    def _check(self, status: int) -> None:
        if status:
            raise self._library.error(status)

    def _shapes_of(
        self, arrays: list[Any], symbols: Mapping[str, int], call: tuple[Any, ...]
    ) -> tuple[tuple[int, ...], ...]:
        """The shapes of the outputs; those of the last call when its sizes were the same."""
        sizes = (*(array.shape for array in arrays), *symbols.items())
        if sizes != self._last_sizes:
            self._last_sizes = None
            for struct, array in zip(self._input_structs, arrays, strict=True):
                struct.bytes = array.nbytes
                struct.shape[: array.ndim] = array.shape
            self._check(self._library.output_shapes(*call))
            self._last_shapes = tuple(
                tuple(struct.shape[: struct.rank]) for struct in self._output_structs
            )
            self._last_sizes = sizes
        return self._last_shapes

    def _arrays(self, inputs: Mapping[str, Any]) -> list[Any]:
        if not isinstance(inputs, Mapping):
            raise InputError(f"inputs are a {type(inputs).__name__}; expected arrays by name")
        if inputs.keys() != self._names:
            missing = [spec.name for spec in self._inputs if spec.name not in inputs]
            extra = [str(name) for name in inputs if name not in self._names]
            found = [f"missing {', '.join(missing)}"] if missing else []
            found += [f"not expected: {', '.join(extra)}"] if extra else []
            expected = ", ".join(str(spec.tensor) for spec in self._inputs) or "no input"
            raise InputError(f"inputs {'; '.join(found)}; expected {expected}")
        return [spec.checked(inputs[spec.name]) for spec in self._inputs]

    def _sizes(self, symbols: Mapping[str, int]) -> ctypes.Array[ctypes.c_int64]:
        values = (ctypes.c_int64 * max(1, len(self._symbols)))()
        for name, value in symbols.items():
            if name not in self._symbols:
                known = ", ".join(self._symbols) or "none"
                raise InputError(f"there is no size {name}; this model's sizes are: {known}")
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise InputError(f"{name} = {value!r} is no integer")
            number = value.__index__()
            if not 1 <= number < 1 << 31:
                raise InputError(f"{name} = {number}; expected 1 to {(1 << 31) - 1}")
            values[self._symbols[name]] = number
        return values


@dataclass(frozen=True)
class OperatorTime:
    """The measured time of one operator in one run.

    Attributes:
        kind: the operator.
        result: the name of its result in the program that was lowered.
        source: the node of the model that it comes from.
        seconds: from the end of the operator before to its own, all threads done.
    """

    kind: str
    result: str
    source: str
    seconds: float
