"""``torch.compile(model, backend="dfcompiler")``: graphs that torch captures, compiled for the CPU.

Torch finds `backend` through the entry-point group ``torch_dynamo_backends``. Parameters and
buffers become weights of the compiled model. When one of them is written to or replaced, the next
call compiles anew; a buffer that was written is an ordinary input from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import sympy
import torch
from torch._decomp import core_aten_decompositions
from torch._dynamo.backends.common import aot_autograd

from dfcompiler.errors import UnsupportedError
from dfcompiler.importers.torch_export import GraphProgram, import_graph_module, without_handler
from dfcompiler.runtime import Model

Compiled = Callable[..., Sequence[Any]]


def backend(graph: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Compiled:
    """A function that computes what `graph` computes.

    Raises:
        UnsupportedError: for graphs that need gradients or another device than the CPU, and for
            operators that cannot be compiled.
    """
    tensors = [value for value in example_inputs if isinstance(value, torch.Tensor)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise UnsupportedError(
            "the graph needs gradients, and a compiled model computes no gradients",
            hint="call the model under torch.no_grad()",
        )
    others = {tensor.device.type for tensor in tensors} - {"cpu"}
    if others:
        raise UnsupportedError(f"the model is on {', '.join(sorted(others))}; expected cpu")
    held = _held(graph, example_inputs)

    def compile_aten(aten: torch.fx.GraphModule, _: Sequence[Any]) -> Compiled:
        return _Graph(aten, held)

    compiler = aot_autograd(
        fw_compiler=compile_aten,
        inference_compiler=compile_aten,
        decompositions=without_handler(core_aten_decompositions()),
    )
    compiled: Compiled = compiler(graph, example_inputs)
    return compiled


def _held(graph: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> tuple[int, ...]:
    """Positions of the parameters and buffers among the graph's arguments."""
    nodes = [node for node in graph.graph.nodes if node.op == "placeholder"]
    return tuple(
        position
        for position, (node, value) in enumerate(zip(nodes, example_inputs, strict=True))
        if isinstance(value, torch.nn.Parameter) or _is_static(node)
    )


def _is_static(node: torch.fx.Node) -> bool:
    return bool(node.meta.get("tensor_dict", {}).get("_dynamo_static_input_type"))


class _Graph:
    """One ATen graph: compiled when it is called first, and when what it holds has changed."""

    _boxed_call = True

    def __init__(self, aten: torch.fx.GraphModule, held: tuple[int, ...]) -> None:
        self.aten = aten
        self.versions: dict[int, tuple[int, int] | None] = dict.fromkeys(held)
        self.imported: GraphProgram
        self.model: Model

    def __call__(self, arguments: list[Any]) -> list[Any]:
        given = list(arguments)
        arguments.clear()
        changed = {
            position: given[position]
            for position, version in self.versions.items()
            if _version(given[position]) != version
        }
        if changed or not hasattr(self, "model"):
            self.compile(given, changed)
        inputs: dict[str, np.ndarray] = {}
        sizes: dict[str, int] = {}
        for target, value in zip(self.imported.inputs, given, strict=True):
            if isinstance(target, str):
                inputs[target] = _array(value)
            elif isinstance(target, sympy.Symbol):
                sizes[target.name] = int(value)
        found = self.model.run(inputs, **self.needed(sizes))
        return [self.result(name, found) for name in self.imported.outputs]

    def compile(self, given: list[Any], changed: dict[int, torch.Tensor]) -> None:
        """Compiles the graph for the parameters and buffers as they are now."""
        from dfcompiler.api import compile as compile_program

        for position, tensor in changed.items():
            if self.versions[position] and not isinstance(tensor, torch.nn.Parameter):
                del self.versions[position]
            else:
                self.versions[position] = _version(tensor)
        held = {position: given[position] for position in self.versions}
        self.imported = import_graph_module(self.aten, held, "graph")
        self.model = compile_program(self.imported.program)

    def needed(self, sizes: dict[str, int]) -> dict[str, int]:
        """The sizes that no input's shape gives."""
        shapes = [dim for c in self.imported.program.inputs for dim in c.type.shape]
        known = {dim.name for dim in shapes if not isinstance(dim, int) and dim.is_Symbol}
        declared = {symbol.name for symbol in self.imported.program.symbols}
        return {name: size for name, size in sizes.items() if name in declared - known}

    def result(self, name: str | int | float | None, found: dict[str, np.ndarray]) -> Any:
        if not isinstance(name, str):
            return name
        if name in self.imported.sizes:
            return int(found[name])
        return _tensor(found[name])


def _version(tensor: torch.Tensor) -> tuple[int, int]:
    """Changes when a tensor is written to or replaced by another."""
    return tensor.data_ptr(), tensor._version


def _array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().contiguous()
    if tensor.dtype is torch.bfloat16:
        return np.asarray(tensor.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
    return np.asarray(tensor.numpy())


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
