"""The ONNX standard's own decompositions of its operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.node import Decline, Node, operator
from dfcompiler.importers.onnx.tensors import number_of
from dfcompiler.importers.onnx.values import Value

_DECOMPOSED = (
    "AffineGrid",
    "BlackmanWindow",
    "CenterCropPad",
    "DynamicQuantizeLinear",
    "GroupNormalization",
    "HammingWindow",
    "HannWindow",
    "MeanVarianceNormalization",
    "NegativeLogLikelihoodLoss",
    "SoftmaxCrossEntropyLoss",
    "SwiGLU",
)


@operator(*_DECOMPOSED)
def _decomposed(context: Context, node: Node) -> Value:
    raise Decline


def standard_function(
    proto: onnx.NodeProto,
    attributes: Mapping[str, onnx.AttributeProto],
    inputs: Sequence[Value | None],
    opset: int,
) -> onnx.FunctionProto | None:
    """The body that the standard gives for a node with these inputs; None if it gives none."""
    schema = onnx.defs.get_schema(proto.op_type, opset, "")
    if schema.has_function:
        return schema.function_body
    if not schema.has_context_dependent_function:
        return None
    plain = onnx.NodeProto()
    plain.CopyFrom(proto)
    del plain.attribute[:]
    for name, attribute in attributes.items():
        copied = plain.attribute.add()
        copied.CopyFrom(attribute)
        copied.name = name
    types = [_type_bytes(value) for value in inputs]
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    body = schema.get_context_dependent_function_with_opset_version(
        max(versions, default=opset), plain.SerializeToString(), types
    )
    function = onnx.FunctionProto()
    function.ParseFromString(body)
    return function


def _type_bytes(value: Value | None) -> bytes:
    if value is None:
        return bytes(onnx.TypeProto().SerializeToString())
    shape = [dim if isinstance(dim, int) else str(dim) for dim in value.shape]
    tensor = helper.make_tensor_type_proto(number_of(value.dtype), shape)
    return bytes(tensor.SerializeToString())
