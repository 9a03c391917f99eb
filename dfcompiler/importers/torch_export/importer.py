"""From an exported program to a program of the IR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export.graph_signature import (
    ConstantArgument,
    InputKind,
    OutputKind,
    SymIntArgument,
)

from dfcompiler.errors import ModelError, UnsupportedError
from dfcompiler.importers.torch_export.context import Context, Tensor, Value
from dfcompiler.importers.torch_export.graph import (
    Walker,
    missing_operators,
    mutates,
    unsupported,
)
from dfcompiler.importers.torch_export.mutation import renumber, write_buffers, write_outputs
from dfcompiler.importers.torch_export.ranges import range_of_data
from dfcompiler.importers.torch_export.signature import (
    as_array,
    output_names,
    storage_key,
    stored_tensor,
    unique,
)
from dfcompiler.importers.torch_export.symbols import Symbols
from dfcompiler.ir.program import Container, Op, Program, Role, State
from dfcompiler.ir.rewrite import drop_unused_weights, live_ops
from dfcompiler.ir.types import DType, TensorType
from dfcompiler.ir.verify import verify

CONSTANT_ELEMENTS = 8
"""Tensors up to this size become `constant` operators, so that passes see their values."""


def import_exported(
    exported: torch.export.ExportedProgram,
    name: str = "model",
    outputs: Sequence[str] | None = None,
) -> Program:
    """The program of a `torch.export.ExportedProgram`.

    Args:
        exported: straight from `torch.export.export`, or after `run_decompositions`.
        name: the program's name.
        outputs: names for its results, instead of those in the module's result.

    Raises:
        UnsupportedError: with all operators that cannot be compiled, and their nodes.
    """
    return _Import(_prepared(exported), name).run(outputs)


def import_module(
    module: torch.nn.Module,
    example_inputs: Mapping[str, Any] | Sequence[Any],
    dynamic_shapes: Any = None,
    name: str = "model",
) -> Program:
    """The program of a module, exported on example inputs by name or by position.

    Raises:
        ModelError: if torch cannot export the module.
        UnsupportedError: with all operators that cannot be compiled, and their nodes.
    """
    by_name = isinstance(example_inputs, Mapping)
    args = () if by_name else tuple(example_inputs)
    kwargs = dict(example_inputs) if isinstance(example_inputs, Mapping) else {}
    try:
        with torch.no_grad():
            exported = torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"torch.export cannot export {type(module).__name__}: {reason}",
            hint="export it with torch.export.export and pass the ExportedProgram",
        ) from error
    return import_exported(exported, name)


def load_exported(path: Path) -> torch.export.ExportedProgram:
    """The program that `torch.export.save` wrote to `path`.

    Raises:
        ModelError: if the file holds none.
    """
    try:
        return torch.export.load(path)
    except Exception as error:
        raise ModelError(
            f"{path} is no program that torch.export.save wrote, or it is damaged"
        ) from error


def _prepared(exported: Any) -> Any:
    """The program in functional form, operators without a handler decomposed where torch can."""
    missing = missing_operators(exported.graph)
    table = torch.export.default_decompositions() if missing else {}
    chosen = {target: table[target] for target in missing if target in table}
    if chosen or mutates(exported.graph):
        exported = exported.run_decompositions(chosen)
        missing = missing_operators(exported.graph)
    if missing:
        raise unsupported({str(target): nodes for target, nodes in missing.items()})
    return exported


class _Import:
    def __init__(self, exported: Any, name: str) -> None:
        self.exported, self.name = exported, name
        self.ctx = Context(Symbols(exported.range_constraints, _shape_env(exported)))
        self.containers: dict[str, Container] = {}
        self.data: dict[str, np.ndarray] = {}
        self.tied: dict[tuple[object, ...], Value] = {}
        self.mutated = {
            spec.target: spec.arg.name
            for spec in exported.graph_signature.output_specs
            if spec.kind is OutputKind.BUFFER_MUTATION
        }

    def run(self, names: Sequence[str] | None) -> Program:
        """The verified program."""
        walker = Walker(self.ctx)
        walker.walk(self.exported.graph, values := self.placeholders())
        walker.raise_unsupported()
        results = {node.name: value for node, value in values.items()}
        outputs = self.outputs(results, names)
        updates = {f"@{target}": results[value].name for target, value in self.mutated.items()}
        types = self.ctx.builder.types | {f"@{c.name}": c.type for c in self.containers.values()}
        # Outputs first: one that shows a buffer's old contents is copied before they change.
        ops = write_outputs(self.ctx.builder.ops, outputs, types, updates.values())
        ops = renumber(live_ops(write_buffers(ops, updates, types)))
        return verify(self.program(ops))

    def program(self, ops: tuple[Op, ...]) -> Program:
        inputs = [c for c in self.containers.values() if c.role is Role.INPUT]
        others = [c for c in self.containers.values() if c.role is not Role.INPUT]
        return drop_unused_weights(
            Program(
                self.name,
                self.ctx.symbols.declared(),
                (*inputs, *others),
                (State("main", ops),),
                self.data,
            )
        )

    def placeholders(self) -> dict[torch.fx.Node, Value]:
        """The values of the graph's inputs, and containers for them."""
        nodes = {node.name: node for node in self.exported.graph.nodes if node.op == "placeholder"}
        values: dict[torch.fx.Node, Value] = {}
        specs = self.exported.graph_signature.input_specs
        # Inputs first, so that the symbols are declared in the order of their axes.
        for spec in sorted(specs, key=lambda spec: spec.kind is not InputKind.USER_INPUT):
            node = nodes[spec.arg.name]
            if isinstance(spec.arg, ConstantArgument):
                values[node] = spec.arg.value
            elif isinstance(spec.arg, SymIntArgument):
                values[node] = self.ctx.symbols.dim(node.meta["val"])
            elif spec.kind is InputKind.USER_INPUT:
                values[node] = self.declare(
                    Role.INPUT, spec.arg.name, self.ctx.symbols.type(node.meta["val"])
                )
            elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
                values[node] = self.stored(spec.target)
            else:
                raise UnsupportedError(
                    f"the exported program takes {spec.arg.name} of kind {spec.kind.name.lower()}"
                )
        return values

    def declare(self, role: Role, name: str, tensor_type: TensorType) -> Tensor:
        self.containers[name] = Container(role, name, tensor_type)
        return Tensor(f"@{name}", tensor_type)

    def stored(self, target: str) -> Value:
        """A parameter, a buffer or a constant of the module."""
        tensor = stored_tensor(self.exported, target)
        array = as_array(tensor)
        tensor_type = TensorType(DType.of(array.dtype), array.shape)
        if target in self.mutated:
            if np.any(array):
                self.data[target] = array
            return self.declare(Role.PERSIST, target, tensor_type)
        key = storage_key(tensor)
        if key not in self.tied:
            self.tied[key] = self.fixed(target, array, tensor_type)
        return self.tied[key]

    def fixed(self, target: str, array: np.ndarray, tensor_type: TensorType) -> Tensor:
        if array.size <= CONSTANT_ELEMENTS:
            self.ctx.source = target
            return self.ctx.constant(_nested(array.tolist()), tensor_type.dtype, array.shape)
        self.data[target] = array
        weight = self.declare(Role.WEIGHT, target, tensor_type)
        return Tensor(weight.name, tensor_type, range_of_data(array))

    def outputs(
        self, results: Mapping[str, Value], names: Sequence[str] | None
    ) -> list[tuple[str, str]]:
        """Declares the outputs; pairs of ``@output`` and the value it gets."""
        specs = [
            spec
            for spec in self.exported.graph_signature.output_specs
            if spec.kind is not OutputKind.BUFFER_MUTATION
        ]
        if any(spec.kind is not OutputKind.USER_OUTPUT for spec in specs):
            raise UnsupportedError("the module writes to one of its inputs")
        given = list(names) if names is not None else output_names(self.exported)
        pairs = []
        taken = set(self.containers)
        for spec, name in zip(specs, unique(given, taken), strict=True):
            value = spec.arg.value if isinstance(spec.arg, ConstantArgument) else None
            if not isinstance(spec.arg, ConstantArgument):
                value = results[spec.arg.name]
            if value is None:
                continue
            self.ctx.source = name
            if not isinstance(value, Tensor):
                value = self.ctx.number(value, _number_dtype(value))
            self.declare(Role.OUTPUT, name, value.type)
            pairs.append((f"@{name}", value.name))
        return pairs


def _number_dtype(value: object) -> DType:
    match value:
        case bool():
            return DType.BOOL
        case float():
            return DType.F32
    return DType.I64


def _nested(value: Any) -> Any:
    return tuple(map(_nested, value)) if isinstance(value, list) else value


def _shape_env(exported: Any) -> Any:
    for node in exported.graph.nodes:
        fake = node.meta.get("val")
        if isinstance(fake, torch.Tensor) and getattr(fake, "fake_mode", None) is not None:
            return fake.fake_mode.shape_env
    return None
