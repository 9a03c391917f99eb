"""What must hold of a model before any operator is imported: versions, operators, names, order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import AttributeProto

from dfcompiler.errors import ModelError, UnsupportedError
from dfcompiler.importers.onnx.node import HANDLERS

OPSETS = range(13, 29)
"""Versions of the standard operator set that are understood."""
_STANDARD = ("", "ai.onnx")
_SHOWN_NODES = 3

FunctionKey = tuple[str, str, str]


@dataclass
class Scope:
    """The operator sets and functions that a graph or a function body refers to.

    Attributes:
        opsets: version by domain.
        functions: the model's own functions by domain, name and overload.
    """

    opsets: Mapping[str, int]
    functions: Mapping[FunctionKey, onnx.FunctionProto] = field(default_factory=dict)

    def function(self, node: onnx.NodeProto) -> onnx.FunctionProto | None:
        """The model's own function that `node` calls."""
        return self.functions.get((node.domain, node.op_type, node.overload))

    def inside(self, function: onnx.FunctionProto) -> Scope:
        """The scope of a function's body."""
        versions = {entry.domain: entry.version for entry in function.opset_import}
        return Scope({**self.opsets, **versions}, self.functions)

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return next((self.opsets[d] for d in _STANDARD if d in self.opsets), 0)


def model_scope(model: onnx.ModelProto) -> Scope:
    """The scope of a model's graph.

    Raises:
        UnsupportedError: if it is written for an operator set that is not understood.
    """
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    scope = Scope({o.domain: o.version for o in model.opset_import}, functions)
    if scope.opset not in OPSETS:
        raise UnsupportedError(
            f"the model is written for ONNX operator set {scope.opset or 'unknown'}; "
            f"{OPSETS.start} to {OPSETS.stop - 1} can be compiled",
            hint="convert it with onnx.version_converter, or export it again",
        )
    return scope


def is_standard(node: onnx.NodeProto) -> bool:
    """Whether `node` is an operator of the ONNX standard."""
    return node.domain in _STANDARD


def node_label(node: onnx.NodeProto, prefix: str = "") -> str:
    """What messages and `Op.source` call a node."""
    output = next((name for name in node.output if name), "")
    return prefix + (node.name or output or node.op_type)


# ----------------------------------------------------------------------------------- operators


def require_operators(nodes: Iterable[onnx.NodeProto], scope: Scope, prefix: str = "") -> None:
    """Lists every operator that cannot be compiled.

    Raises:
        UnsupportedError: naming all of them.
    """
    missing: dict[str, list[str]] = defaultdict(list)
    _collect(nodes, scope, prefix, missing, ())
    if not missing:
        return
    counts = {name: len(labels) for name, labels in missing.items()}
    where = []
    for name, count in sorted(counts.items()):
        labels = missing[name]
        more = f" and {count - _SHOWN_NODES} more" if count > _SHOWN_NODES else ""
        where.append(f"{name} × {count}: {', '.join(labels[:_SHOWN_NODES])}{more}")
    operators = "operator" if len(counts) == 1 else "operators"
    raise UnsupportedError(
        f"{len(counts)} {operators} of the model cannot be compiled: {', '.join(sorted(counts))}",
        tuple(where),
    )


def _collect(
    nodes: Iterable[onnx.NodeProto],
    scope: Scope,
    prefix: str,
    missing: dict[str, list[str]],
    calls: tuple[FunctionKey, ...],
) -> None:
    for node in nodes:
        function = scope.function(node)
        if function is not None:
            key = (function.domain, function.name, function.overload)
            if key in calls:
                raise ModelError(f"function {function.name} calls itself")
            label = node_label(node, prefix)
            _collect(function.node, scope.inside(function), f"{label}/", missing, (*calls, key))
        elif not _is_supported(node, scope):
            domain = node.domain or "ai.onnx"
            missing[f"{domain}::{node.op_type}"].append(node_label(node, prefix))


def _is_supported(node: onnx.NodeProto, scope: Scope) -> bool:
    if not is_standard(node) or scope.opset not in OPSETS:
        return False
    kinds = {attribute.type for attribute in node.attribute}
    return node.op_type in HANDLERS and not kinds & {AttributeProto.GRAPH, AttributeProto.GRAPHS}


# ----------------------------------------------------------------------------- names and order


def ordered_nodes(
    nodes: Sequence[onnx.NodeProto], given: Iterable[str], wanted: Iterable[str], label: str
) -> list[onnx.NodeProto]:
    """The nodes so that each one reads only what stands before it.

    Args:
        nodes: the nodes of a graph or a function.
        given: names of its inputs and initializers.
        wanted: names of its outputs.
        label: what to call the graph in messages.

    Raises:
        ModelError: if a name is defined twice, or never, or by way of itself.
    """
    defined = set(given)
    producers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            if not name:
                continue
            if name in producers or name in defined:
                raise ModelError(f"{name} is defined twice in {label}", (_place(node),))
            producers[name] = index
    for node in nodes:
        for name in node.input:
            if name and name not in defined and name not in producers:
                raise ModelError(f"nothing defines {name}", (_place(node),))
    for name in wanted:
        if name not in defined and name not in producers:
            raise ModelError(f"nothing defines {name}, an output of {label}")
    return _sorted(nodes, producers)


def _sorted(nodes: Sequence[onnx.NodeProto], producers: Mapping[str, int]) -> list[onnx.NodeProto]:
    """A stable topological order."""
    needs = [{producers[name] for name in node.input if name in producers} for node in nodes]
    if all(not need or max(need) < index for index, need in enumerate(needs)):
        return list(nodes)
    order: list[int] = []
    state = [0] * len(nodes)
    for root in range(len(nodes)):
        stack = [root]
        while stack:
            index = stack[-1]
            if state[index] == 2:
                stack.pop()
                continue
            pending = [need for need in sorted(needs[index]) if state[need] != 2]
            if state[index] == 1 and any(state[need] == 1 for need in pending):
                raise ModelError("a node depends on its own result", (_place(nodes[index]),))
            state[index] = 1
            if pending:
                stack += pending
                continue
            state[index] = 2
            order.append(index)
            stack.pop()
    return [nodes[index] for index in order]


def _place(node: onnx.NodeProto) -> str:
    return f"node {node_label(node)} ({node.op_type})"
