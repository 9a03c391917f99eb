"""Tensor types: element type, symbolic shape, physical layout and encoding."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from dfcompiler.ir.dims import Dim, Shape, as_dim, ceil_div, product, same_shape, show_dim


class DType(Enum):
    """Element types; the value is the text form."""

    F64 = "f64"
    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    I64 = "i64"
    I32 = "i32"
    I16 = "i16"
    I8 = "i8"
    U64 = "u64"
    U32 = "u32"
    U16 = "u16"
    U8 = "u8"
    BOOL = "bool"

    @property
    def numpy(self) -> np.dtype:
        """The numpy dtype with the same values and the same bytes."""
        return _NUMPY[self]

    @property
    def bytes(self) -> int:
        """Bytes of one element."""
        return int(self.numpy.itemsize)

    @property
    def is_float(self) -> bool:
        return self in (DType.F64, DType.F32, DType.F16, DType.BF16)

    @property
    def is_integer(self) -> bool:
        return not self.is_float and self is not DType.BOOL

    @staticmethod
    def of(dtype: DTypeLike) -> DType:
        """The element type of a numpy dtype.

        Raises:
            ValueError: if no element type has these values.
        """
        found = _FROM_NUMPY.get(np.dtype(dtype))
        if found is None:
            raise ValueError(f"dtype {dtype} has no element type in the IR")
        return found


_NUMPY: dict[DType, np.dtype] = {
    DType.F64: np.dtype(np.float64),
    DType.F32: np.dtype(np.float32),
    DType.F16: np.dtype(np.float16),
    DType.BF16: np.dtype(ml_dtypes.bfloat16),
    DType.I64: np.dtype(np.int64),
    DType.I32: np.dtype(np.int32),
    DType.I16: np.dtype(np.int16),
    DType.I8: np.dtype(np.int8),
    DType.U64: np.dtype(np.uint64),
    DType.U32: np.dtype(np.uint32),
    DType.U16: np.dtype(np.uint16),
    DType.U8: np.dtype(np.uint8),
    DType.BOOL: np.dtype(np.bool_),
}
_FROM_NUMPY = {numpy: dtype for dtype, numpy in _NUMPY.items()}


@dataclass(frozen=True)
class PhysicalAxis:
    """One axis of the physical order: a logical axis, or one half of a tiled one.

    ``axis`` alone walks the whole logical axis; with ``tile`` it walks the blocks (``1/48``,
    ``inner=False``) or the elements inside a block (``1%48``, ``inner=True``). With ``pad``
    (``1+16``) that many unused elements follow those of the axis.
    """

    axis: int
    tile: int = 0
    inner: bool = False
    pad: int = 0

    def __str__(self) -> str:
        if self.tile:
            return f"{self.axis}{'%' if self.inner else '/'}{self.tile}"
        return f"{self.axis}+{self.pad}" if self.pad else str(self.axis)


@dataclass(frozen=True)
class Layout:
    """The physical order of a tensor, outermost first; empty means row-major.

    ``[K, N; 1/48 0 1%48]`` is a K × N weight packed into panels of 48 columns, K-major inside;
    ``[M, K; 0 1+16]`` has rows that are K + 16 elements apart.
    """

    order: tuple[PhysicalAxis, ...] = ()

    @staticmethod
    def permuted(*axes: int) -> Layout:
        """Logical axes in physical order; the identity is the row-major layout."""
        if axes == tuple(range(len(axes))):
            return Layout()
        return Layout(tuple(PhysicalAxis(axis) for axis in axes))

    def padded(self, rank: int, pad: int) -> Layout:
        """The same order with `pad` unused elements at the end of each innermost row.

        Raises:
            ValueError: for a layout with tiles, or a tensor without axes.
        """
        if self.is_tiled or not rank:
            raise ValueError(f"the layout [{self}] has no rows to pad")
        order = self.order or tuple(map(PhysicalAxis, range(rank)))
        return Layout((*order[:-1], replace(order[-1], pad=pad)))

    def unpadded(self) -> Layout:
        """The same order without gaps."""
        if not any(axis.pad for axis in self.order):
            return self
        return Layout.permuted(*(axis.axis for axis in self.order))

    @property
    def is_row_major(self) -> bool:
        return not self.order

    @property
    def is_tiled(self) -> bool:
        return any(axis.tile for axis in self.order)

    def permutation(self, rank: int) -> tuple[int, ...]:
        """Logical axes in physical order, for a layout without tiles."""
        return tuple(axis.axis for axis in self.order) or tuple(range(rank))

    def physical_shape(self, shape: Shape) -> Shape:
        """The extents in physical order, padding included; tiled axes have whole blocks."""
        if not self.order:
            return shape
        return tuple(_physical_extent(axis, shape[axis.axis]) for axis in self.order)

    def __str__(self) -> str:
        return " ".join(map(str, self.order))


def _physical_extent(axis: PhysicalAxis, extent: Dim) -> Dim:
    if axis.tile:
        return axis.tile if axis.inner else ceil_div(extent, axis.tile)
    return as_dim(extent + axis.pad) if axis.pad else extent


@dataclass(frozen=True)
class Dense:
    """Every value is stored as it is."""


@dataclass(frozen=True)
class Affine:
    """Values are ``scale * (code - zero_point)``, one scale for `group` values along `axis`.

    Attributes:
        bits: bits of one code.
        axis: the axis along which the scales vary; with a group, the axis that is cut in groups.
        group: values that share a scale along `axis`; 0 means one scale per index of `axis`.
        scale: element type of the scales.
        zero_point: whether codes carry zero points of `bits` bits.
    """

    bits: int
    axis: int
    group: int = 0
    scale: DType = DType.F32
    zero_point: bool = False


@dataclass(frozen=True)
class Bitmap:
    """Non-zero values preceded by one bit per position; `density` is the share of non-zeros."""

    density: float


Encoding = Dense | Affine | Bitmap


@dataclass(frozen=True)
class TensorType:
    """What a value is: ``f32[B, S, 384]``.

    Attributes:
        dtype: the element type that readers see.
        shape: integers and expressions over symbols.
        layout: physical order and packing.
        encoding: how values are stored.
    """

    dtype: DType
    shape: Shape = ()
    layout: Layout = field(default_factory=Layout)
    encoding: Encoding = field(default_factory=Dense)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def elements(self) -> Dim:
        """Number of logical elements."""
        return product(self.shape)

    @property
    def stored_bytes(self) -> Dim:
        """Bytes in memory, padding of tiled layouts and scales of encodings included."""
        values = product(self.layout.physical_shape(self.shape))
        match self.encoding:
            case Affine(bits, axis, group, scale, zero_point):
                per_scale = group or _row_elements(self.shape, axis)
                scale_bits = 8 * scale.bytes + (bits if zero_point else 0)
                return ceil_div(values * bits + ceil_div(values, per_scale) * scale_bits, 8)
            case Bitmap(density):
                stored = density * self.dtype.bytes * 8 + 1
                return ceil_div(values * round(stored * 1024), 8 * 1024)
        return values * self.dtype.bytes

    def same(self, other: TensorType) -> bool:
        """Equal types, dimensions compared as expressions."""
        return (
            self.dtype is other.dtype
            and same_shape(self.shape, other.shape)
            and self.layout == other.layout
            and self.encoding == other.encoding
        )

    def with_shape(self, shape: Shape) -> TensorType:
        return replace(self, shape=shape, layout=Layout())

    def with_dtype(self, dtype: DType) -> TensorType:
        return replace(self, dtype=dtype)

    def __str__(self) -> str:
        dims = ", ".join(map(show_dim, self.shape))
        layout = "" if self.layout.is_row_major else f"; {self.layout}"
        match self.encoding:
            case Affine(bits, axis, group, scale, zero_point):
                suffix = f" as affine({bits}, {axis}, {group}, {scale.value}, {int(zero_point)})"
            case Bitmap(density):
                suffix = f" as bitmap({density!r})"
            case _:
                suffix = ""
        return f"{self.dtype.value}[{dims}{layout}]{suffix}"


def _row_elements(shape: Shape, axis: int) -> Dim:
    return product(dim for i, dim in enumerate(shape) if i != axis)
