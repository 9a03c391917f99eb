"""Other ways to run a model: ONNX Runtime, torch, and the interpreter of the IR."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from dfcompiler.errors import ModelError, ToolchainError, UsageError
from dfcompiler.ir import Program, interpret

Arrays: TypeAlias = Mapping[str, np.ndarray]
Runner: TypeAlias = Callable[[Arrays], dict[str, np.ndarray]]

REFERENCES = ("onnxruntime", "torch", "interpreter")


def interpreter(program: Program, symbols: Mapping[str, int]) -> Runner:
    """The numpy interpreter, computing every floating value in float64."""

    def run(inputs: Arrays) -> dict[str, np.ndarray]:
        return interpret(program, inputs, symbols=symbols, precision=np.dtype(np.float64))

    return run


def onnxruntime(model: Path, threads: int = 0) -> Runner:
    """ONNX Runtime on one file, on the CPU.

    Raises:
        ToolchainError: if ONNX Runtime is not installed.
        ModelError: if it refuses the model.
    """
    try:
        import onnxruntime as ort
    except ModuleNotFoundError:
        raise ToolchainError(
            "ONNX Runtime is not installed", hint="install it with pip install onnxruntime"
        ) from None
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"ONNX Runtime refuses {model}: {_first_line(error)}") from error
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}

    def run(inputs: Arrays) -> dict[str, np.ndarray]:
        feeds = {name: array for name, array in inputs.items() if name in wanted}
        return dict(zip(names, session.run(names, feeds), strict=True))

    return run


def exported_torch(model: Path, threads: int = 0) -> Runner:
    """A program saved by ``torch.export.save``, run by torch; outputs are in order of position.

    Raises:
        ToolchainError: if torch is not installed.
        UsageError: if the file is not a saved program.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise ToolchainError(
            "torch is not installed", hint="install it with pip install torch==2.13.0"
        ) from None
    if model.suffix != ".pt2":
        raise UsageError(
            f"{model} cannot be run by torch; expected a file of torch.export.save (.pt2)",
            hint="use --against onnxruntime or --against interpreter",
        )
    from dfcompiler.importers.torch_export import load_exported

    if threads:
        torch.set_num_threads(threads)
    return torch_module(load_exported(model).module())


def torch_module(module: Any) -> Runner:
    """A torch module called with keyword arguments; outputs are named by their position."""
    import torch

    def run(inputs: Arrays) -> dict[str, np.ndarray]:
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in inputs.items()}
        with torch.no_grad():
            found = module(**tensors)
        values = tensors_of(found)
        return {str(i): value.detach().numpy() for i, value in enumerate(values)}

    return run


def tensors_of(value: Any) -> list[Any]:
    """The tensors of a module's result, in order."""
    if hasattr(value, "detach"):
        return [value]
    if hasattr(value, "to_tuple"):
        value = value.to_tuple()
    items = value.values() if isinstance(value, Mapping) else value
    return [tensor for item in items for tensor in tensors_of(item)]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
