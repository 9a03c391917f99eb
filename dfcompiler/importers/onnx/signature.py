"""Inputs, outputs and initializers of a graph."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx

from dfcompiler.errors import ModelError, UnsupportedError
from dfcompiler.importers.onnx.contents import SMALL, Grid, spaced
from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.external_data import ExternalData
from dfcompiler.importers.onnx.model_file import ModelFile
from dfcompiler.importers.onnx.symbols import Symbols
from dfcompiler.importers.onnx.tensors import dtype_of, tensor_array
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir import TensorType
from dfcompiler.ir.dims import Dim, show_dim

_LONGEST_RANGE = 1 << 20


@dataclass
class Signature:
    """What a graph declares.

    Attributes:
        inputs: types by name; initializers that are also inputs are left out.
        outputs: the declarations by name.
    """

    inputs: dict[str, TensorType] = field(default_factory=dict)
    outputs: dict[str, onnx.ValueInfoProto] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Names that weights may not take."""
        return {*self.inputs, *self.outputs}

    def check_output(self, name: str, declared: onnx.ValueInfoProto, found: TensorType) -> None:
        """A declared type may say less than what follows from the nodes, but not something else.

        Raises:
            ModelError: if the two contradict each other.
        """
        tensor = declared.type.tensor_type
        if not declared.type.HasField("tensor_type"):
            return
        where = (f"output {name}",)
        if tensor.elem_type and dtype_of(tensor.elem_type, f"output {name}") is not found.dtype:
            raise ModelError(
                f"output {name} is declared {dtype_of(tensor.elem_type, name).value}, "
                f"but the nodes give {found.dtype.value}",
                where,
            )
        if not tensor.HasField("shape"):
            return
        dims = tensor.shape.dim
        sizes = [d.dim_value if d.HasField("dim_value") else None for d in dims]
        agrees = len(sizes) == found.rank and all(
            size is None or not isinstance(dim, int) or size == dim
            for size, dim in zip(sizes, found.shape, strict=True)
        )
        if not agrees:
            shown = ", ".join(
                str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in dims
            )
            raise ModelError(
                f"output {name} is declared [{shown}], but the nodes give "
                f"[{', '.join(map(show_dim, found.shape))}]",
                where,
            )


def read_signature(graph: onnx.GraphProto, symbols: Symbols) -> Signature:
    """The inputs' types over `symbols`, and the outputs' declarations.

    Raises:
        ModelError: if names collide or a declaration is incomplete.
        UnsupportedError: if an input is no tensor.
    """
    defaults = {tensor.name for tensor in graph.initializer}
    if len(defaults) < len(graph.initializer):
        raise ModelError("two initializers have the same name")
    signature = Signature()
    infos = [info for info in graph.input if info.name not in defaults]
    symbols.declare([p for info in infos for p in _parameters(info)])
    for info in infos:
        if info.name in signature.inputs:
            raise ModelError(f"two inputs are called {info.name}")
        signature.inputs[info.name] = _input_type(info, symbols)
    for info in graph.output:
        if info.name in signature.outputs:
            raise ModelError(f"two outputs are called {info.name}")
        if info.name in signature.inputs:
            raise UnsupportedError(f"{info.name} is both an input and an output of the model")
        signature.outputs[info.name] = info
    return signature


def _parameters(info: onnx.ValueInfoProto) -> list[str]:
    return [d.dim_param for d in info.type.tensor_type.shape.dim if d.dim_param]


def _input_type(info: onnx.ValueInfoProto, symbols: Symbols) -> TensorType:
    where = f"input {info.name}"
    if not info.type.HasField("tensor_type"):
        kind = info.type.WhichOneof("value") or "untyped value"
        raise UnsupportedError(f"{where} is a {kind.removesuffix('_type')}, not a tensor")
    tensor = info.type.tensor_type
    dtype = dtype_of(tensor.elem_type, where)
    if not tensor.HasField("shape"):
        raise UnsupportedError(
            f"{where} has no declared rank", hint="export the model with the shapes of its inputs"
        )
    dims: list[Dim] = []
    for dim in tensor.shape.dim:
        if dim.dim_param:
            dims.append(symbols.named(dim.dim_param))
        elif dim.HasField("dim_value") and dim.dim_value >= 0:
            dims.append(int(dim.dim_value))
        else:
            dims.append(symbols.unnamed())
    return TensorType(dtype, tuple(dims))


def initializer_values(
    context: Context, file: ModelFile, external: ExternalData
) -> dict[str, Value]:
    """The initializers as values; each becomes a weight when something reads it."""
    found: dict[str, Value] = {}
    for index, tensor in enumerate(file.proto.graph.initializer):
        array = tensor_array(tensor, external, file.weights.get(index))
        value = context.array(array, tensor.name)
        value.content = value.content or _range_content(array)
        found[tensor.name] = value
    if file.proto.graph.sparse_initializer:
        raise UnsupportedError("sparse initializers cannot be compiled")
    return found


def _range_content(array: np.ndarray) -> Grid | None:
    """Position tables are ranges: what is sliced from them needs no memory."""
    if SMALL < array.size <= _LONGEST_RANGE:
        return spaced(array, array.ndim)
    return None
