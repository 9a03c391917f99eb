"""From an exported program to a program of the IR."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.export.graph_signature import (
    ConstantArgument,
    InputKind,
    InputSpec,
    OutputKind,
    SymIntArgument,
)

from dfcompiler.errors import ModelError, UnsupportedError
from dfcompiler.importers.torch_export.containers import Containers
from dfcompiler.importers.torch_export.context import Context, Value
from dfcompiler.importers.torch_export.graph import (
    Walker,
    missing_operators,
    mutates,
    unsupported,
)
from dfcompiler.importers.torch_export.outputs import output_names
from dfcompiler.importers.torch_export.symbols import Symbols
from dfcompiler.ir.program import Program, Role


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
        with torch.no_grad(), _without_notices():
            exported = torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"torch.export cannot export {type(module).__name__}: {reason}",
            hint="export it with torch.export.export and pass the ExportedProgram",
        ) from error
    return import_exported(exported, name)


def _prepared(exported: Any) -> Any:
    """The program in functional form, operators without a handler decomposed where torch can."""
    missing = missing_operators(exported.graph)
    table = torch.export.default_decompositions() if missing else {}
    chosen = {target: table[target] for target in missing if target in table}
    if chosen or mutates(exported.graph):
        exported = _decomposed(exported, chosen)
        missing = missing_operators(exported.graph)
    if missing:
        raise unsupported({str(target): nodes for target, nodes in missing.items()})
    return exported


@contextmanager
def _without_notices() -> Iterator[None]:
    """Keeps what torch announces about its own future away from the user's screen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _decomposed(exported: Any, table: Mapping[Any, Any]) -> Any:
    try:
        with _without_notices():
            return exported.run_decompositions(table)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"torch cannot bring the program into functional form: {reason}"
        ) from error


class _Import:
    def __init__(self, exported: Any, name: str) -> None:
        self.exported, self.name = exported, name
        self.ctx = Context(Symbols(exported.range_constraints, _shape_env(exported)))
        self.containers = Containers(self.ctx)
        self.updates = {
            spec.target: spec.arg.name
            for spec in exported.graph_signature.output_specs
            if spec.kind is OutputKind.BUFFER_MUTATION
        }

    def run(self, names: Sequence[str] | None) -> Program:
        """The verified program."""
        walker = Walker(self.ctx, self.containers.fixed)
        walker.walk(self.exported.graph, values := self.placeholders())
        walker.raise_unsupported()
        results = {node.name: value for node, value in values.items()}
        self.outputs(results, names)
        updates = {f"@{target}": results[value].name for target, value in self.updates.items()}
        return self.containers.program(self.name, updates)

    def placeholders(self) -> dict[torch.fx.Node, Value]:
        """The values of the graph's inputs, and containers for them."""
        nodes = {node.name: node for node in self.exported.graph.nodes if node.op == "placeholder"}
        specs = self.exported.graph_signature.input_specs
        # Inputs first, so that the symbols are declared in the order of their axes.
        ordered = sorted(specs, key=lambda spec: spec.kind is not InputKind.USER_INPUT)
        return {nodes[spec.arg.name]: self.placeholder(spec, nodes) for spec in ordered}

    def placeholder(self, spec: InputSpec, nodes: Mapping[str, torch.fx.Node]) -> Value:
        fake = nodes[spec.arg.name].meta.get("val")
        if isinstance(spec.arg, ConstantArgument):
            return spec.arg.value
        if isinstance(spec.arg, SymIntArgument):
            return self.ctx.symbols.dim(fake)
        match spec.kind:
            case InputKind.USER_INPUT:
                return self.containers.declare(
                    Role.INPUT, spec.arg.name, self.ctx.symbols.type(fake)
                )
            case InputKind.PARAMETER | InputKind.BUFFER | InputKind.CONSTANT_TENSOR:
                tensor = self.stored(spec.target)
                if spec.target in self.updates:
                    return self.containers.persistent(spec.target, tensor)
                return self.containers.fixed(spec.target, tensor)
        raise UnsupportedError(
            f"the exported program takes {spec.arg.name} of kind {spec.kind.name.lower()}"
        )

    def stored(self, target: str) -> torch.Tensor:
        """The parameter, buffer or constant called `target`."""
        if target in self.exported.state_dict:
            return self.exported.state_dict[target]
        return self.exported.constants[target]

    def outputs(self, results: Mapping[str, Value], names: Sequence[str] | None) -> None:
        """Declares the outputs; what is None is none."""
        specs = [
            spec
            for spec in self.exported.graph_signature.output_specs
            if spec.kind is not OutputKind.BUFFER_MUTATION
        ]
        if any(spec.kind is not OutputKind.USER_OUTPUT for spec in specs):
            raise UnsupportedError("the module writes to one of its inputs")
        given = output_names(self.exported) if names is None else list(names)
        for spec, name in zip(specs, given, strict=True):
            constant = isinstance(spec.arg, ConstantArgument)
            value = spec.arg.value if constant else results[spec.arg.name]
            if value is not None:
                self.containers.output(name, value)


def _shape_env(exported: Any) -> Any:
    for node in exported.graph.nodes:
        fake = node.meta.get("val")
        if isinstance(fake, torch.Tensor) and getattr(fake, "fake_mode", None) is not None:
            return fake.fake_mode.shape_env
    return None
