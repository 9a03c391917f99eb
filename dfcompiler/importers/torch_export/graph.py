"""The walk over an exported graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch

from dfcompiler.errors import UnsupportedError
from dfcompiler.importers.torch_export import (
    contraction,
    creation,
    elementwise,
    indexing,
    movement,
    normalization,
)
from dfcompiler.importers.torch_export.context import Context, NotSupported, Tensor, Value
from dfcompiler.importers.torch_export.registry import bind, find_handler, is_ignored

FAMILIES = (contraction, creation, elementwise, indexing, movement, normalization)
"""Importing a family's file registers its handlers."""

_WRAPPERS = ("wrap_with_autocast", "wrap_with_set_grad_enabled")


def source_name(node: torch.fx.Node) -> str:
    """A node's name behind the path of the module that it came from."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return f"{path}/{node.name}" if path else node.name


def inlined_graph(node: torch.fx.Node) -> tuple[torch.fx.Graph, tuple[Any, ...]] | None:
    """The body of a wrapper that changes only a mode of execution, and its arguments."""
    name = getattr(node.target, "__name__", "")
    if name not in _WRAPPERS:
        return None
    position = next(
        i for i, argument in enumerate(node.args) if isinstance(argument, torch.fx.Node)
    )
    body = node.args[position]
    assert isinstance(body, torch.fx.Node)
    module = getattr(body.graph.owning_module, str(body.target))
    return module.graph, node.args[position + 1 :]


def missing_operators(graph: torch.fx.Graph) -> dict[Any, list[str]]:
    """Operators without a handler, with the names of their nodes."""
    missing: dict[Any, list[str]] = {}
    for node in _computing_nodes(graph):
        if is_symbolic(node) or is_ignored(node.target) or node.target is operator.getitem:
            continue
        if find_handler(node.target) is None:
            missing.setdefault(node.target, []).append(source_name(node))
    return missing


def _computing_nodes(graph: torch.fx.Graph) -> Iterator[torch.fx.Node]:
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        inlined = inlined_graph(node)
        if inlined is None:
            yield node
        else:
            yield from _computing_nodes(inlined[0])


def mutates(graph: torch.fx.Graph) -> bool:
    """Whether an operator of the graph writes to one of its arguments."""
    targets = (node.target for node in _computing_nodes(graph))
    return any(
        isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable
        for target in targets
    )


def is_symbolic(node: torch.fx.Node) -> bool:
    """Whether a node computes a size, and no tensor."""
    value = node.meta.get("val")
    return isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool | int | float)


class Walker:
    """Emits the nodes of a graph one after the other."""

    def __init__(self, ctx: Context, stored: Callable[[str, torch.Tensor], Tensor]) -> None:
        """`stored` gives the value of a tensor that the graph's module holds, by name."""
        self.ctx, self.stored = ctx, stored
        self.unsupported: dict[str, list[str]] = {}
        self.stand_ins = 0

    def walk(self, graph: torch.fx.Graph, values: dict[torch.fx.Node, Value]) -> Value:
        """Emits `graph` whose placeholders have `values`; returns what its output node gives."""
        for node in graph.nodes:
            match node.op:
                case "call_function":
                    values[node] = self.call(node, values)
                case "get_attr":
                    held = getattr(graph.owning_module, str(node.target))
                    if isinstance(held, torch.Tensor):
                        values[node] = self.stored(str(node.target), held)
                case "output":
                    return self.resolve(node.args[0], values)
        return None

    def call(self, node: torch.fx.Node, values: dict[torch.fx.Node, Value]) -> Value:
        """The value of one node."""
        if is_symbolic(node):
            return self.size(node.meta["val"])
        if is_ignored(node.target):
            return None
        if node.target is operator.getitem:
            source, index = node.args
            return self.resolve(source, values)[index]
        inlined = inlined_graph(node)
        if inlined is not None:
            graph, arguments = inlined
            placeholders = [inner for inner in graph.nodes if inner.op == "placeholder"]
            given = [self.resolve(argument, values) for argument in arguments]
            return self.walk(graph, dict(zip(placeholders, given, strict=True)))
        return self.operator(node, values)

    def operator(self, node: torch.fx.Node, values: dict[torch.fx.Node, Value]) -> Value:
        """Lets the handler of an ATen operator emit it."""
        run, ctx = find_handler(node.target), self.ctx
        assert run is not None, "missing operators are reported before the walk"
        ctx.source, ctx.expected = source_name(node), node.meta["val"]
        try:
            value = run(ctx, bind(node, lambda argument: self.resolve(argument, values)))
        except NotSupported as reason:
            self.unsupported.setdefault(f"{node.target} {reason}", []).append(ctx.source)
            return self.stand_in(ctx.expected)
        ctx.check(value)
        return value

    def stand_in(self, fake: Any) -> Value:
        """A value of the right type, so that the walk can look for more that is unsupported."""
        if isinstance(fake, tuple | list):
            return tuple(map(self.stand_in, fake))
        self.stand_ins += 1
        return Tensor(f"%unsupported{self.stand_ins}", self.ctx.symbols.type(fake))

    def size(self, value: Any) -> Value:
        """A number or a size; None for conditions, which only assertions read."""
        if isinstance(value, torch.SymInt):
            return self.ctx.symbols.dim(value)
        if isinstance(value, torch.SymFloat):
            return float(value) if value.node.expr.is_number else None
        return None if isinstance(value, torch.SymBool) else value

    def resolve(self, argument: Any, values: dict[torch.fx.Node, Value]) -> Any:
        """An argument with nodes replaced by their values."""
        if isinstance(argument, torch.fx.Node):
            return values[argument]
        if isinstance(argument, tuple | list):
            return [self.resolve(item, values) for item in argument]
        return argument

    def raise_unsupported(self) -> None:
        """Reports every use of an operator that no handler could express.

        Raises:
            UnsupportedError: if there was one.
        """
        if self.unsupported:
            raise unsupported(self.unsupported)


def unsupported(found: dict[str, list[str]]) -> UnsupportedError:
    """One error for all operators, each with the nodes that use it."""
    count = len(found)
    what = "an operator" if count == 1 else f"{count} operators"
    lines = tuple(f"{name}: {', '.join(nodes)}" for name, nodes in sorted(found.items()))
    return UnsupportedError(f"the model uses {what} that cannot be compiled", lines)
