"""What the generated code of a GPU calls things: types, calls, arrays with their strides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dfcompiler.ir.types import DType
from dfcompiler.lowering.symbolic import text

SPACE = "dfc::cuda::"
"""The namespace of the kernels."""
STORAGE: Mapping[DType, str] = {
    DType.F32: "float",
    DType.F64: "double",
    DType.BF16: "__nv_bfloat16",
    DType.F16: "__half",
}
"""Element types of products and attention, as the kernels call them."""


def checked(call: str) -> str:
    """A statement that makes a call and keeps its failure (`kernels/cuda/check.h`)."""
    return f"DFC_CUDA(__state, {call});"


def truth(value: object) -> str:
    """A truth value."""
    return str(bool(value)).lower()


def strided(pointer: str, strides: Sequence[Any]) -> str:
    """A pointer and the strides behind it, as the fields of a struct."""
    return f"{pointer}, {{{', '.join(map(text, strides))}}}"
