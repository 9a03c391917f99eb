"""``torch.compile(model, backend="dfcompiler")``: graphs that torch captures, compiled.

The target is this machine's CPU, or what ``options={"target": "cuda:sm_90"}`` names; `OPTIONS` are
those of `dfcompiler.compile`. For a GPU, tensors of the GPU are read where they lie, and results
are tensors of torch's own there. A call is waited for, so that a bad index is an error of the call
that has it. Weights are copied: torch keeps its own.

Torch finds `backend` through the entry-point group ``torch_dynamo_backends``. Parameters and
buffers become weights of the compiled model. When one of them is written to or replaced, the next
call compiles anew; a buffer that was written is an ordinary input from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import sympy
import torch
from torch._decomp import core_aten_decompositions
from torch._dynamo.backends.common import aot_autograd

from dfcompiler.errors import UnsupportedError, UsageError
from dfcompiler.importers.torch_export import GraphProgram, import_graph_module, without_handler
from dfcompiler.importers.torch_export.symbols import torch_dtype
from dfcompiler.ir.dims import evaluate
from dfcompiler.ir.interpret import bind_symbols
from dfcompiler.runtime import Model
from dfcompiler.target import CudaTarget, parse_target

Compiled = Callable[..., Sequence[Any]]
OPTIONS = ("target", "precision", "pipeline", "expansions")
"""Options of `dfcompiler.compile` that ``torch.compile`` may hand on."""


def backend(
    graph: torch.fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
) -> Compiled:
    """A function that computes what `graph` computes.

    Raises:
        UnsupportedError: for graphs that need gradients or another device than the target's, and
            for operators that cannot be compiled.
        UsageError: for an option or a target that there is not.
    """
    chosen = dict(options or {})
    unknown = ", ".join(sorted(chosen.keys() - set(OPTIONS)))
    if unknown:
        raise UsageError(f"there is no option {unknown}; expected one of {', '.join(OPTIONS)}")
    runs_on_gpu = isinstance(parse_target(chosen.get("target", "cpu")), CudaTarget)
    tensors = [value for value in example_inputs if isinstance(value, torch.Tensor)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise UnsupportedError(
            "the graph needs gradients, and a compiled model computes no gradients",
            hint="call the model under torch.no_grad()",
        )
    allowed = {"cpu", "cuda"} if runs_on_gpu else {"cpu"}
    others = {tensor.device.type for tensor in tensors} - allowed
    if others:
        raise UnsupportedError(
            f"the model is on {', '.join(sorted(others))}; expected {' or '.join(sorted(allowed))}",
            hint='pass options={"target": "cuda:sm_90"} for a GPU' if "cuda" in others else "",
        )
    held = _held(graph, example_inputs)

    def compile_aten(aten: torch.fx.GraphModule, _: Sequence[Any]) -> Compiled:
        return _Graph(aten, held, chosen)

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

    def __init__(
        self, aten: torch.fx.GraphModule, held: tuple[int, ...], options: Mapping[str, Any]
    ) -> None:
        self.aten, self.options = aten, options
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
        inputs: dict[str, Any] = {}
        sizes: dict[str, int] = {}
        for target, value in zip(self.imported.inputs, given, strict=True):
            if isinstance(target, str):
                inputs[target] = value.detach().contiguous() if value.is_cuda else _array(value)
            elif isinstance(target, sympy.Symbol):
                sizes[target.name] = int(value)
        devices = [value.device for value in given if isinstance(value, torch.Tensor)]
        gpu = next((device for device in devices if device.type == "cuda"), None)
        found = (
            self.model.run(inputs, **self.needed(sizes))
            if gpu is None
            else self.run_on(gpu, inputs, sizes)
        )
        return [self.result(name, found) for name in self.imported.outputs]

    def run_on(
        self, gpu: torch.device, inputs: Mapping[str, Any], sizes: dict[str, int]
    ) -> dict[str, Any]:
        """The outputs as tensors of torch on the GPU; sizes are numbers of the host."""
        program = self.imported.program
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        bindings = {**sizes, **bind_symbols(program, shapes)}
        results = {
            output.name: torch.empty(
                [evaluate(dim, bindings) for dim in output.type.shape],
                dtype=torch_dtype(output.type.dtype),
                device=gpu,
            )
            for output in program.outputs
        }
        found: dict[str, Any] = self.model.run(inputs, results, **self.needed(sizes))  # type: ignore[call-arg]
        return found

    def compile(self, given: list[Any], changed: dict[int, torch.Tensor]) -> None:
        """Compiles the graph for the parameters and buffers as they are now."""
        from dfcompiler.api import compile as compile_program

        for position, tensor in changed.items():
            if self.versions[position] and not isinstance(tensor, torch.nn.Parameter):
                del self.versions[position]
            else:
                self.versions[position] = _version(tensor)
        held = _on_host({position: given[position] for position in self.versions})
        self.imported = import_graph_module(self.aten, held, "graph")
        self.model = compile_program(self.imported.program, **self.options)

    def needed(self, sizes: dict[str, int]) -> dict[str, int]:
        """The sizes that no input's shape gives."""
        shapes = [dim for c in self.imported.program.inputs for dim in c.type.shape]
        known = {dim.name for dim in shapes if not isinstance(dim, int) and dim.is_Symbol}
        declared = {symbol.name for symbol in self.imported.program.symbols}
        return {name: size for name, size in sizes.items() if name in declared - known}

    def result(self, name: str | int | float | None, found: Mapping[str, Any]) -> Any:
        if not isinstance(name, str):
            return name
        if name in self.imported.sizes:
            return int(found[name])
        value = found[name]
        return value if isinstance(value, torch.Tensor) else _tensor(value)


def _on_host(tensors: Mapping[int, torch.Tensor]) -> dict[int, torch.Tensor]:
    """The tensors, copies of those on a GPU; what is one tensor there is one here."""
    copies: dict[tuple[Any, ...], torch.Tensor] = {}
    found = {}
    for position, tensor in tensors.items():
        key = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.is_cuda and key not in copies:
            copies[key] = tensor.detach().cpu()
        found[position] = copies[key] if tensor.is_cuda else tensor
    return found


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
