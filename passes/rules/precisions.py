"""The precisions that a model can be compiled for."""

from __future__ import annotations

from dfcompiler.errors import UsageError
from dfcompiler.ir import DType

PRECISIONS = {"f32": DType.F32, "bf16": DType.BF16, "f16": DType.F16}
"""What products multiply in: as the model says, or in 16 bits with sums in float."""


def precision_type(name: str, known: tuple[str, ...] = tuple(PRECISIONS)) -> DType:
    """The type of a precision.

    Raises:
        UsageError: if it is none of `known`.
    """
    if name not in known:
        raise UsageError(f"precision {name} is not known; expected one of {', '.join(known)}")
    return PRECISIONS[name]
