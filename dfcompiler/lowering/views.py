"""Arrays that are a part of another one's memory.

The array of a view gets the pointer of the memory that it lies in. Where its elements do not begin
there, it has one axis more, in front, whose index is the number of elements before them: memlets
then say everything, for offsets over loop variables too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dace
from dace import dtypes, subsets

from dfcompiler.analysis.layouts import View
from dfcompiler.ir.types import DType, TensorType
from dfcompiler.lowering.symbolic import expression, full_range, product

DACE_TYPES = {
    DType.F64: dtypes.float64,
    DType.F32: dtypes.float32,
    DType.F16: dtypes.float16,
    DType.BF16: dtypes.bfloat16,
    DType.I64: dtypes.int64,
    DType.I32: dtypes.int32,
    DType.I16: dtypes.int16,
    DType.I8: dtypes.int8,
    DType.U64: dtypes.uint64,
    DType.U32: dtypes.uint32,
    DType.U16: dtypes.uint16,
    DType.U8: dtypes.uint8,
    DType.BOOL: dtypes.bool_,
}

_OFFSET = "offset"
NOWHERE = dtypes.DebugInfo(0)


def physical(tensor: TensorType, view: View) -> tuple[list[Any], list[Any], Any]:
    """Shape, strides and offset of the array of a tensor; rank 0 becomes one element.

    A permuted layout keeps the logical shape and has strides; a tiled one has its physical shape.
    """
    tiled = tensor.layout.is_tiled
    dims = tensor.layout.physical_shape(tensor.shape) if tiled else tensor.shape
    shape = [expression(dim) for dim in dims] or [1]
    strides = [expression(stride) for stride in view.strides] or [1]
    return shape, strides, expression(view.offset)


def add_array(
    sdfg: dace.SDFG, name: str, tensor: TensorType, view: View, room: Any, may_alias: bool
) -> None:
    """Adds the array of a value that lies at `view` in memory of `room` elements."""
    shape, strides, offset = physical(tensor, view)
    elements = product(shape)
    if offset != 0:
        shape, strides = [room, *shape], [1, *strides]
    array = dace.data.Array(
        DACE_TYPES[tensor.dtype],
        shape,
        strides=strides,
        location={_OFFSET: offset} if offset != 0 else None,
        total_size=elements,
        may_alias=may_alias,
        debuginfo=NOWHERE,
    )
    sdfg.add_datadesc(name, array)


def extents(array: dace.data.Array) -> Sequence[Any]:
    """The shape of the elements, without the axis of the offset."""
    return tuple(array.shape[_first(array) :])


def strides(array: dace.data.Array) -> Sequence[Any]:
    """The strides along these axes."""
    return tuple(array.strides[_first(array) :])


def placed(array: dace.data.Array, subset: subsets.Range) -> subsets.Range:
    """The subset of the array that a subset of its elements is."""
    if not _first(array):
        return subset
    offset = array.location[_OFFSET]
    return subsets.Range([(offset, offset, 1), *subset.ranges])


def everything(array: dace.data.Array) -> subsets.Range:
    """The subset of the array with all of its elements."""
    return placed(array, full_range(extents(array)))


def from_first_element(array: dace.data.Array) -> dace.data.Array:
    """The same elements behind a pointer to the first of them."""
    copy = array.clone()
    if _first(array):
        copy.set_shape(extents(array), strides=strides(array), total_size=array.total_size)
        copy.location = {}
    return copy


def _first(array: dace.data.Array) -> int:
    return 1 if _OFFSET in array.location else 0
