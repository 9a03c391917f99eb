"""How many bytes values take as they are stored: words of different widths."""

from __future__ import annotations

from math import prod

from dfcompiler.ir.types import Affine, Bitmap, TensorType


def bits_of(tensor: TensorType) -> int:
    """Bits of the narrowest stored word that holds one value: codes without their scales."""
    match tensor.encoding:
        case Affine(bits=bits):
            return bits
        case Bitmap():
            return 1
    return 8 * tensor.dtype.bytes


def bits_per_value(bits: int, group: int, scale_bits: int, zero_bits: int = 0) -> float:
    """Average bits of a value whose codes share a scale, and maybe a zero point, in groups."""
    return bits + (scale_bits + zero_bits) / group


def elements_of(tensor: TensorType) -> int:
    """Number of elements of a concrete type."""
    return prod(map(int, tensor.shape))


def dense_bytes(tensor: TensorType) -> int:
    """Bytes of all elements of a concrete type, without the padding of a tiled layout."""
    return bytes_of_elements(tensor, elements_of(tensor))


def bytes_of_elements(tensor: TensorType, elements: int) -> int:
    """Bytes of some elements as encoded; the padding of a tiled layout does not count."""
    total = elements_of(tensor)
    if not total or not elements:
        return 0
    match tensor.encoding:
        case Affine() | Bitmap():
            whole = int(tensor.with_shape(tensor.shape).stored_bytes)
            return whole * elements // total
    return elements * tensor.dtype.bytes
