"""Contents become operators: constants, dimensions and ranges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dfcompiler.importers.onnx.contents import Elements, Grid
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir import Attr, DType, TensorType
from dfcompiler.ir.dims import Dim
from dfcompiler.ir.rewrite import Builder

INLINE = 8
"""Tensors of up to this many elements become constants of the program rather than weights."""


def emit_content(build: Builder, value: Value, weight: Callable[[str, np.ndarray], str]) -> str:
    """Appends the operators that compute a value of which only the contents are known.

    Args:
        build: where they are appended.
        value: the value.
        weight: declares a weight and returns its name.
    """
    content = value.content
    if isinstance(content, Grid):
        return _grid(build, value, content)
    assert isinstance(content, Elements)
    if not content.is_numeric:
        return _dims(build, value, content)
    array = content.array.astype(value.dtype.numpy)
    if array.size > INLINE:
        return weight(value.source, array)
    attr = _nested(array) if array.size else 0
    return build.constant(attr, value.type, value.source)


def _nested(array: np.ndarray) -> Attr:
    """An array as nested tuples of numbers."""
    if array.ndim:
        return tuple(map(_nested, array))
    number = array[()]
    if isinstance(number, np.float32):
        return shortest(number)
    return float(number) if array.dtype.kind not in "biu" else number.item()


def shortest(number: float | np.float32) -> float:
    """The number with the fewest digits that is the same in single precision."""
    return float(str(np.float32(number)))


def _dims(build: Builder, value: Value, content: Elements) -> str:
    """A tensor of expressions: each one a `dim`, laid side by side."""
    parts = [_dim(build, dim, value.dtype, value.source) for dim in content.array.flat]
    if value.rank == 0:
        return parts[0]
    single = TensorType(value.dtype, (1,))
    parts = [build.op("reshape", [p], type=single, source=value.source) for p in parts]
    joined = build.op("concat", parts, {"axis": 0}, source=value.source)
    if value.rank == 1:
        return joined
    return build.op("reshape", [joined], type=value.type, source=value.source)


def _dim(build: Builder, dim: Dim, dtype: DType, source: str) -> str:
    if isinstance(dim, int | np.integer):
        return build.constant(int(dim), TensorType(dtype), source)
    return build.op("dim", (), {"value": dim}, type=TensorType(dtype), source=source)


def _grid(build: Builder, value: Value, content: Grid) -> str:
    source = value.source
    if content.is_uniform:
        if isinstance(content.offset, bool | int | float):
            single = value.dtype is DType.F32
            number = shortest(content.offset) if single else content.offset
            return build.constant(number, value.type, source)
        name = _dim(build, content.offset, value.dtype, source)
        if value.rank == 0:
            return name
        return build.op("expand", [name], type=value.type, source=source)
    total = ""
    for axis, step in enumerate(content.steps):
        if isinstance(step, int) and step == 0:
            continue
        attrs: dict[str, Attr] = {"start": 0 if total else content.offset, "step": step}
        extent = value.shape[axis]
        type_ = TensorType(value.dtype, (extent,))
        term = build.op("iota", (), attrs, type=type_, source=source)
        column = tuple(extent if a == axis else 1 for a in range(value.rank))
        if value.rank > 1:
            type_ = value.type.with_shape(column)
            term = build.op("reshape", [term], type=type_, source=source)
        total = build.op("add", [total, term], source=source) if total else term
    if build.types[total].same(value.type):
        return total
    return build.op("expand", [total], type=value.type, source=source)
