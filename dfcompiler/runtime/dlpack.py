"""Tensors of other libraries without importing them: DLPack capsules, taken and given.

Source: https://dmlc.github.io/dlpack/latest/c_api.html (the structures), and
https://data-apis.org/array-api/latest/design_topics/data_interchange.html (the protocol).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
_NAME = ctypes.c_char_p(b"dltensor")
"""What a capsule is called that nobody has taken over yet; capsules keep the pointer."""
_DTYPES = {
    (2, 64): "f64",
    (2, 32): "f32",
    (2, 16): "f16",
    (4, 16): "bf16",
    **{(0, 8 * size): f"i{8 * size}" for size in (1, 2, 4, 8)},
    **{(1, 8 * size): f"u{8 * size}" for size in (1, 2, 4, 8)},
    (6, 8): "bool",
}
"""(type code, bits) → our name."""
_CODES = {name: code for code, name in _DTYPES.items()}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_python = ctypes.pythonapi
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _python)
)
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)(
    ("PyCapsule_New", _python)
)
# In a destructor the capsule has no references left: it is an address there, not an object.
_is_untaken = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", _python)
)
_address_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _python)
)
_given: dict[int, tuple[Any, ...]] = {}
"""What given tensors refer to, by the address of their structure, until they are deleted."""


@dataclass(frozen=True)
class Taken:
    """A tensor of another library.

    Attributes:
        dtype: our name of the element type; empty for one that we do not have.
        contiguous: whether the elements lie in row-major order without gaps.
        owner: what keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    dtype: str
    contiguous: bool
    nbytes: int
    owner: Any

    @property
    def ndim(self) -> int:
        return len(self.shape)


def device_type(value: Any) -> int:
    """Where an array lies, as DLPack numbers it; `CPU` for whatever does not say."""
    ask = getattr(value, "__dlpack_device__", None)
    return int(ask()[0]) if ask is not None else CPU


def take(value: Any, stream: int) -> Taken:
    """The tensor behind any object with ``__dlpack__``, to be read by work on `stream`."""
    capsule = value.__dlpack__(stream=stream)
    managed = _Managed.from_address(_pointer_of(capsule, _NAME))
    tensor = managed.tensor
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None
    count = 1
    contiguous = True
    for axis in reversed(range(tensor.ndim)):
        if strides is not None and shape[axis] > 1:
            contiguous = contiguous and strides[axis] == count
        count *= shape[axis]
    dtype = _DTYPES.get((tensor.code, tensor.bits), "") if tensor.lanes == 1 else ""
    address = (tensor.data or 0) + tensor.byte_offset
    nbytes = count * tensor.bits * tensor.lanes // 8
    return Taken(address, shape, dtype, contiguous or count == 0, nbytes, (capsule, value))


def give(
    address: int, shape: tuple[int, ...], dtype: str, device: tuple[int, int], owner: Any
) -> Any:
    """A capsule of a tensor in row-major order; `owner` lives until nobody needs it."""
    extents = (ctypes.c_int64 * max(1, len(shape)))(*shape)
    code, bits = _CODES[dtype]
    managed = _Managed(
        tensor=_Tensor(
            data=address,
            device_type=device[0],
            device_id=device[1],
            ndim=len(shape),
            code=code,
            bits=bits,
            lanes=1,
            shape=extents,
        ),
        deleter=_when_deleted,
    )
    place = ctypes.addressof(managed)
    _given[place] = (managed, extents, owner)
    return _new(place, _NAME, _when_destroyed)


def _delete(place: int) -> None:
    """Called by whoever took the tensor over."""
    _given.pop(place, None)


def _destroy(capsule: int) -> None:
    """Called at the end of a capsule; if nobody took its tensor over, the tensor ends too."""
    if _is_untaken(capsule, _NAME):
        _given.pop(_address_in(capsule, _NAME), None)


_when_deleted = _Deleter(_delete)
_when_destroyed = _Destructor(_destroy)
