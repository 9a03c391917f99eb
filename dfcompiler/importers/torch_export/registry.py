"""The table of ATen operators, filled by one file per family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch

from dfcompiler.importers.torch_export.context import Context, Value

Arguments: TypeAlias = Mapping[str, Any]
Handler: TypeAlias = Callable[[Context, Arguments], Value]

HANDLERS: dict[str, Handler] = {}

IGNORED = frozenset(
    {
        "_assert_async",
        "_assert_scalar",
        "_assert_tensor_metadata",
        "sym_constrain_range",
        "sym_constrain_range_for_size",
    }
)
"""Nodes that only check: the runtime checks shapes and dtypes of every call itself."""


def handler(*names: str) -> Callable[[Handler], Handler]:
    """Registers a function for ATen operators, by name or by ``name.overload``."""

    def register(function: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, function))
        return function

    return register


def find_handler(target: Any) -> Handler | None:
    """The handler of an operator overload: its own, or else that of the operator."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return None
    name = target._schema.name.removeprefix("aten::")
    return HANDLERS.get(f"{name}.{target._overloadname}") or HANDLERS.get(name)


def is_ignored(target: Any) -> bool:
    """Whether a node with this target computes nothing."""
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return target._schema.name.partition("::")[2] in IGNORED


def bind(node: torch.fx.Node, resolve: Callable[[Any], Any]) -> dict[str, Any]:
    """A node's arguments by name, defaults filled in, references resolved."""
    bound: dict[str, Any] = {}
    for position, argument in enumerate(node.target._schema.arguments):
        if position < len(node.args):
            bound[argument.name] = resolve(node.args[position])
        elif argument.name in node.kwargs:
            bound[argument.name] = resolve(node.kwargs[argument.name])
        elif argument.has_default_value():
            bound[argument.name] = argument.default_value
    return bound
