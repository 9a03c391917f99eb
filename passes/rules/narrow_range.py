"""What a type of 16 bits has no place for, and rounding to it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike

from dfcompiler.ir import DType
from dfcompiler.ir.program import Attr

FILL = -(2.0**41)
"""Numbers down here fill masks: they say "less than everything" and are no amounts.

Not even the greatest number of f16 changes one in a sum of f32.
"""


def greatest_lost(values: ArrayLike, dtype: DType) -> float:
    """The greatest magnitude among finite numbers that `dtype` would round to infinity.

    Fills of masks do not count: as the most negative finite number they mean what they did. Zero
    if every number has a place.
    """
    wide = np.asarray(values, np.float32)
    least, greatest = (f.reduce(wide, axis=None, initial=0.0) for f in (np.fmin, np.fmax))
    if not _rounds_to_infinity(np.array([least, greatest]), dtype).any():
        return 0.0
    lost = np.isfinite(wide) & (wide > FILL) & _rounds_to_infinity(wide, dtype)
    return float(np.abs(wide[lost]).max(initial=0.0))


def why_not_narrow(name: str, lost: float, dtype: DType) -> str:
    """The sentence about a weight or number whose `greatest_lost` is not zero."""
    return f"{name} holds {lost:.6g}, and {dtype.value} ends at {_greatest(dtype):.6g}"


def rounded(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Values in `dtype`, to nearest even; fills of masks become its most negative number."""
    values = np.asarray(values)
    lowest = -_greatest(dtype)
    if np.fmin.reduce(values, axis=None, initial=0.0) < lowest:
        values = np.where(np.isinf(values), values, np.maximum(values, lowest))
    return np.asarray(values.astype(dtype.numpy))


def rounded_number(value: Attr, dtype: DType) -> Attr:
    """The value of a constant for `dtype`: fills of masks become its most negative number."""
    if isinstance(value, tuple):
        return tuple(rounded_number(one, dtype) for one in value)
    lowest = -_greatest(dtype)
    is_fill = isinstance(value, int | float) and -np.inf < value < lowest
    return lowest if is_fill else value


def _rounds_to_infinity(values: np.ndarray, dtype: DType) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(np.isinf(values.astype(dtype.numpy)))


def _greatest(dtype: DType) -> float:
    return float(ml_dtypes.finfo(dtype.numpy).max)
