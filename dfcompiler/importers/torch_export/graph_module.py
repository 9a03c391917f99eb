"""Import of plain ATen graphs, such as those that AOTAutograd hands to a backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dfcompiler.importers.torch_export.containers import Containers
from dfcompiler.importers.torch_export.context import Context, Tensor, Value
from dfcompiler.importers.torch_export.graph import Walker, missing_operators, unsupported
from dfcompiler.importers.torch_export.registry import find_handler
from dfcompiler.importers.torch_export.symbols import Symbols
from dfcompiler.ir.dims import Dim
from dfcompiler.ir.program import Program, Role


@dataclass(frozen=True)
class GraphProgram:
    """A program, and how a call of the graph becomes a call of the program.

    Attributes:
        inputs: per argument of the graph: the input that it is; the symbol, for a size; None for
            what the program holds itself or does not need.
        outputs: per result of the graph: the output that holds it, or the number it always is.
        sizes: the outputs that the graph gives as integers, not as tensors.
    """

    program: Program
    inputs: tuple[str | Dim | None, ...]
    outputs: tuple[str | int | float | None, ...]
    sizes: frozenset[str]


def without_handler(table: Mapping[Any, Any]) -> dict[Any, Any]:
    """Of a table of decompositions those of operators that the importer does not know."""
    return {target: rule for target, rule in table.items() if find_handler(target) is None}


def import_graph_module(
    module: torch.fx.GraphModule, held: Mapping[int, torch.Tensor], name: str = "model"
) -> GraphProgram:
    """The program of a functional ATen graph.

    Args:
        module: the graph; its placeholders carry (fake) tensors or sizes in ``meta["val"]``.
        held: arguments that become weights, by position.
        name: the program's name.

    Raises:
        UnsupportedError: with all operators that cannot be compiled, and their nodes.
    """
    missing = missing_operators(module.graph)
    if missing:
        raise unsupported({str(target): nodes for target, nodes in missing.items()})
    ctx = Context(Symbols({}))
    containers = Containers(ctx)
    values: dict[torch.fx.Node, Value] = {}
    inputs: list[str | Dim | None] = []
    nodes = [node for node in module.graph.nodes if node.op == "placeholder"]
    for position, node in enumerate(nodes):
        fake = node.meta.get("val")
        if position in held:
            values[node] = containers.fixed(node.name, held[position])
            inputs.append(None)
        elif isinstance(fake, torch.Tensor):
            values[node] = containers.declare(Role.INPUT, node.name, ctx.symbols.type(fake))
            inputs.append(node.name)
        else:
            size = ctx.symbols.dim(fake) if isinstance(fake, int | torch.SymInt) else None
            values[node] = size
            inputs.append(None if isinstance(size, int) else size)
    walker = Walker(ctx, containers.fixed)
    results = walker.walk(module.graph, values)
    walker.raise_unsupported()
    outputs: list[str | int | float | None] = []
    sizes: set[str] = set()
    for number, value in enumerate(results):
        if value is None or isinstance(value, int | float):
            outputs.append(value)
            continue
        declared = containers.output(f"output_{number}" if number else "output", value)
        outputs.append(declared)
        if not isinstance(value, Tensor):
            sizes.add(declared)
    program = containers.program(name, {})
    return GraphProgram(program, tuple(inputs), tuple(outputs), frozenset(sizes))
