"""Imports a model: one pass over its nodes, from the inputs' shapes to a verified program."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from dfcompiler.errors import DfcError, ModelError, UnsupportedError
from dfcompiler.importers.onnx import operators  # noqa: F401 - registers the operators
from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.decompositions import standard_function
from dfcompiler.importers.onnx.external_data import ExternalData
from dfcompiler.importers.onnx.masks import with_minus_infinity
from dfcompiler.importers.onnx.model_file import ModelFile, open_model
from dfcompiler.importers.onnx.node import HANDLERS, Decline, Node, decode_attribute
from dfcompiler.importers.onnx.signature import (
    Signature,
    initializer_values,
    read_signature,
)
from dfcompiler.importers.onnx.structure import (
    Scope,
    is_standard,
    model_scope,
    node_label,
    ordered_nodes,
    require_operators,
)
from dfcompiler.importers.onnx.symbols import Equation, Symbols
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir import Container, Op, Program, Role, State, verify
from dfcompiler.ir.dims import Dim, show_dim, substitute
from dfcompiler.ir.rewrite import live_ops

_LOG = logging.getLogger(__name__)

Values = dict[str, Value]


def import_onnx(model: str | Path | onnx.ModelProto) -> Program:
    """The program of an ONNX model, over the symbols of its dynamic dimensions.

    Args:
        model: the path of an .onnx file, or a model in memory. Weights of a file are mapped, not
            read; the file must stay unchanged while the program is in use.

    Raises:
        UsageError: if there is no such file.
        ModelError: if it is broken, contradicts itself or refers to files outside its folder.
        UnsupportedError: if it has operators, types or features that cannot be compiled.
    """
    file = open_model(model)
    scope = model_scope(file.proto)
    require_operators(file.proto.graph.node, scope)
    importer = _Importer(file, scope)
    equations: dict[str, Dim] = {}
    while True:
        try:
            return importer.program(equations)
        except Equation as found:
            # Symbols become fewer with every equation, so this ends.
            _LOG.info("%s: %s = %s", file.name, found.name, show_dim(found.dim))
            replaced = {found.name: found.dim}
            equations = {n: substitute(dim, replaced) for n, dim in equations.items()} | replaced


@dataclass
class _Importer:
    file: ModelFile
    scope: Scope
    external: ExternalData = field(init=False)
    nodes: list[onnx.NodeProto] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.file.proto.graph
        self.external = ExternalData(self.file.folder)
        given = [*(t.name for t in graph.initializer), *(i.name for i in graph.input)]
        self.nodes = ordered_nodes(graph.node, given, (o.name for o in graph.output), "the graph")

    def program(self, equations: Mapping[str, Dim]) -> Program:
        """One attempt; operators may ask for another one with an equation."""
        graph = self.file.proto.graph
        context = Context(Symbols(equations=dict(equations)))
        signature = read_signature(graph, context.symbols)
        context.taken.update(signature.names)
        values: Values = {}
        for name, type_ in signature.inputs.items():
            context.builder.types[f"@{name}"] = type_
            values[name] = Value(type_, f"@{name}", source=name)
        values.update(initializer_values(context, self.file, self.external))
        run_nodes(context, self.nodes, values, self.scope)
        return self.finish(context, signature, values)

    def finish(self, context: Context, signature: Signature, values: Values) -> Program:
        """Writes the outputs and drops what they do not need."""
        outputs = []
        for name, declared in signature.outputs.items():
            value = values[name]
            context.source = ""
            signature.check_output(name, declared, value.type)
            outputs.append((name, context.name(value), value))
        ops = _with_outputs(with_minus_infinity(context.builder.ops), outputs)
        used = {name for op in ops for name in op.inputs}
        weights = [c for c in context.weights.values() if f"@{c.name}" in used]
        containers = (
            *(Container(Role.INPUT, name, t) for name, t in signature.inputs.items()),
            *weights,
            *(Container(Role.OUTPUT, name, value.type) for name, _, value in outputs),
        )
        data = {c.name: context.data[c.name] for c in weights}
        state = State("main", tuple(ops))
        name = re.sub(r"\W+", "_", self.file.name, flags=re.ASCII).strip("_") or "model"
        return verify(Program(name, context.symbols.table(), containers, (state,), data))


def _with_outputs(ops: Sequence[Op], outputs: Sequence[tuple[str, str, Value]]) -> list[Op]:
    """The operators, those that nothing else reads writing the outputs themselves."""
    writes: list[Op] = []
    for name, produced, value in outputs:
        writes.append(Op(f"@{name}", value.type, "copy", (produced,)))
    live = live_ops([*ops, *writes])
    readers: dict[str, int] = {}
    for op in live:
        for name in op.inputs:
            readers[name] = readers.get(name, 0) + 1
    copies = {op.inputs[0]: op for op in live[len(live) - len(writes) :]}
    direct = {n: op.result for n, op in copies.items() if n[0] == "%" and readers[n] == 1}
    kept = [
        replace(op, result=direct[op.result]) if op.result in direct else op
        for op in live
        if not (op.result in direct.values() and op.kind == "copy")
    ]
    return _numbered(kept)


def _numbered(ops: Sequence[Op]) -> list[Op]:
    """Results called ``%0``, ``%1``, … without gaps."""
    names: dict[str, str] = {}
    numbered = []
    for op in ops:
        read = op.renamed(names)
        if op.result.startswith("%"):
            names[op.result] = f"%{len(names)}"
        numbered.append(replace(read, result=names.get(op.result, op.result)))
    return numbered


# -------------------------------------------------------------------------------------- nodes


def run_nodes(
    context: Context,
    nodes: Sequence[onnx.NodeProto],
    values: Values,
    scope: Scope,
    attributes: Mapping[str, onnx.AttributeProto] | None = None,
    prefix: str = "",
) -> None:
    """Imports nodes in order; `values` gains their results.

    Args:
        context: the program under construction.
        nodes: the nodes.
        values: what the names mean.
        scope: operator sets and functions.
        attributes: inside a function, the caller's attributes.
        prefix: inside a function, the caller's label.
    """
    for proto in nodes:
        label = node_label(proto, prefix)
        context.source = label
        with _located(label, proto):
            results = _run_node(context, proto, values, scope, attributes or {}, label)
            for name, value in zip(proto.output, results, strict=False):
                if not name:
                    continue
                if value is None:
                    raise UnsupportedError(f"its output {name} cannot be compiled")
                values[name] = value


@contextmanager
def _located(label: str, proto: onnx.NodeProto) -> Iterator[None]:
    """Errors name the node that they come from."""
    where = f"node {label} ({proto.op_type})"
    try:
        yield
    except ValueError as error:
        raise ModelError(f"{label}: {error}", (where,)) from error
    except DfcError as error:
        if not any(line.startswith("node ") for line in error.where):
            error.where = (*error.where, where)
        raise


def _run_node(
    context: Context,
    proto: onnx.NodeProto,
    values: Values,
    scope: Scope,
    attributes: Mapping[str, onnx.AttributeProto],
    label: str,
) -> tuple[Value | None, ...]:
    inputs = [values[name] if name else None for name in proto.input]
    bound = _bound_attributes(proto, attributes)
    function = scope.function(proto)
    if function is not None:
        missing = [name for name in function.attribute if name not in bound]
        if missing:
            raise ValueError(f"{function.name} lacks the attribute {', '.join(missing)}")
        return _call(context, function, proto, inputs, bound, scope, label)
    decoded = {name: decode_attribute(a) for name, a in bound.items()}
    node = Node(proto, inputs, scope.opset, decoded)
    assert is_standard(proto)
    _check_schema(proto, scope, len(inputs))
    try:
        results = HANDLERS[proto.op_type](context, node)
    except Decline:
        function = standard_function(proto, bound, inputs, scope.opset)
        if function is None:
            raise node.unsupported("these inputs and attributes") from None
        require_operators(function.node, scope.inside(function), f"{label}/")
        given = _with_defaults(proto, bound, scope)
        return _call(context, function, proto, inputs, given, scope, label)
    return results if isinstance(results, tuple) else (results,)


def _check_schema(proto: onnx.NodeProto, scope: Scope, count: int) -> None:
    """Arity and attributes as the standard has them.

    Raises:
        ValueError: in one sentence.
    """
    try:
        schema = onnx.defs.get_schema(proto.op_type, scope.opset, "")
    except onnx.defs.SchemaError:
        raise ValueError(f"operator set {scope.opset} has no {proto.op_type}") from None
    if not schema.min_input <= count <= schema.max_input:
        raise ValueError(
            f"{proto.op_type} takes {schema.min_input} to {schema.max_input} inputs, found {count}"
        )
    unknown = [a.name for a in proto.attribute if a.name not in schema.attributes]
    if unknown:
        raise ValueError(f"{proto.op_type} has no attribute {', '.join(unknown)}")
    for attribute in proto.attribute:
        expected = schema.attributes[attribute.name].type
        if not attribute.ref_attr_name and int(expected) != attribute.type:
            raise ValueError(f"the attribute {attribute.name} is not of type {expected.name}")
    names = {a.name for a in proto.attribute}
    missing = [n for n, a in schema.attributes.items() if a.required and n not in names]
    if missing:
        raise ValueError(f"{proto.op_type} lacks the attribute {', '.join(missing)}")


def _bound_attributes(
    proto: onnx.NodeProto, attributes: Mapping[str, onnx.AttributeProto]
) -> dict[str, onnx.AttributeProto]:
    """The node's attributes; references are replaced by the caller's values."""
    bound: dict[str, Any] = {}
    for attribute in proto.attribute:
        if attribute.ref_attr_name:
            given = attributes.get(attribute.ref_attr_name)
            if given is not None:
                bound[attribute.name] = given
            continue
        bound[attribute.name] = attribute
    return bound


def _with_defaults(
    proto: onnx.NodeProto, bound: Mapping[str, onnx.AttributeProto], scope: Scope
) -> dict[str, onnx.AttributeProto]:
    """Attributes with the standard's defaults for those that are left out."""
    schema = onnx.defs.get_schema(proto.op_type, scope.opset, "")
    defaults = {
        name: attribute.default_value
        for name, attribute in schema.attributes.items()
        if attribute.default_value.name
    }
    return {**defaults, **bound}


def _call(
    context: Context,
    function: onnx.FunctionProto,
    proto: onnx.NodeProto,
    inputs: Sequence[Value | None],
    attributes: Mapping[str, onnx.AttributeProto],
    scope: Scope,
    label: str,
) -> tuple[Value | None, ...]:
    """The results of a function, its body imported in place."""
    if len(inputs) > len(function.input):
        raise ValueError(f"{function.name} takes {len(function.input)} inputs, found {len(inputs)}")
    known = {name for name in attributes if name in function.attribute} | {
        a.name for a in function.attribute_proto
    }
    defaults = {a.name: a for a in function.attribute_proto}
    given = {**defaults, **{n: a for n, a in attributes.items() if n in known}}
    padded = [*inputs, *(None,) * (len(function.input) - len(inputs))]
    names = dict(zip(function.input, padded, strict=True))
    wanted = [name for name, result in zip(function.output, proto.output, strict=False) if result]
    body = ordered_nodes(function.node, names, wanted, f"function {function.name}")
    inner: Any = dict(names)
    run_nodes(context, body, inner, scope.inside(function), given, f"{label}/")
    context.source = label
    return tuple(inner[name] if name in wanted else None for name in function.output)
