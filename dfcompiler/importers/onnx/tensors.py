"""Tensors of a model as numpy arrays, views wherever the bytes allow it."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from dfcompiler.errors import ModelError, UnsupportedError
from dfcompiler.importers.onnx.external_data import ExternalData
from dfcompiler.ir import DType

_DTYPES = {
    TensorProto.DOUBLE: DType.F64,
    TensorProto.FLOAT: DType.F32,
    TensorProto.FLOAT16: DType.F16,
    TensorProto.BFLOAT16: DType.BF16,
    TensorProto.INT64: DType.I64,
    TensorProto.INT32: DType.I32,
    TensorProto.INT16: DType.I16,
    TensorProto.INT8: DType.I8,
    TensorProto.UINT64: DType.U64,
    TensorProto.UINT32: DType.U32,
    TensorProto.UINT16: DType.U16,
    TensorProto.UINT8: DType.U8,
    TensorProto.BOOL: DType.BOOL,
}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}


def dtype_of(number: int, where: str) -> DType:
    """The element type with ONNX's `number`.

    Raises:
        UnsupportedError: if the IR has no such element type.
        ModelError: if ONNX has none.
    """
    found = _DTYPES.get(number)
    if found is not None:
        return found
    if number not in TensorProto.DataType.values() or number == TensorProto.UNDEFINED:
        raise ModelError(f"{where} has the element type {number}, which ONNX does not know")
    name = TensorProto.DataType.Name(number).lower()
    raise UnsupportedError(f"{where} has elements of type {name}, which cannot be compiled")


def number_of(dtype: DType) -> int:
    """ONNX's number of an element type."""
    return int(_NUMBERS[dtype])


def tensor_array(
    tensor: onnx.TensorProto,
    external: ExternalData,
    mapped: memoryview | None = None,
) -> np.ndarray:
    """The values of `tensor`.

    Args:
        tensor: the message.
        external: where its data is looked up when it is external.
        mapped: its bytes, when they were cut out of the message.

    Raises:
        ModelError: if there are more or fewer bytes than its shape needs.
    """
    where = f"initializer {tensor.name}" if tensor.name else "a constant"
    dtype = dtype_of(tensor.data_type, where).numpy
    shape = tuple(tensor.dims)
    if any(extent < 0 for extent in shape):
        raise ModelError(f"{where} has a negative extent: {list(shape)}")
    size = prod(shape) * dtype.itemsize
    if tensor.data_location == TensorProto.EXTERNAL:
        if not size:
            return np.zeros(shape, dtype)
        return _view(external.bytes_of(tensor, size), dtype, shape, where)
    if mapped is not None:
        return _view(mapped, dtype, shape, where)
    if tensor.HasField("raw_data"):
        return _view(memoryview(tensor.raw_data), dtype, shape, where)
    return _typed(tensor, shape, where)


def _view(data: memoryview, dtype: np.dtype, shape: tuple[int, ...], where: str) -> np.ndarray:
    size = prod(shape) * dtype.itemsize
    if len(data) != size:
        raise ModelError(f"{where} has {len(data)} bytes; its shape {list(shape)} needs {size}")
    return np.frombuffer(data, dtype).reshape(shape)


def _typed(tensor: onnx.TensorProto, shape: tuple[int, ...], where: str) -> np.ndarray:
    try:
        return np.asarray(numpy_helper.to_array(tensor)).reshape(shape)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"{where} holds fewer or more values than its shape {list(shape)} needs"
        ) from error
