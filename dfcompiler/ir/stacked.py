"""Arrays that are kept in parts until somebody needs them whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np


class Stacked:
    """Arrays of one shape and dtype as one with an axis more in front.

    Nothing is copied: `np.asarray` makes the whole array when it is asked for, and who can work
    part by part uses `parts`.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        first = parts[0]
        if any((part.shape, part.dtype) != (first.shape, first.dtype) for part in parts):
            raise ValueError("stacked arrays have one shape and one dtype")
        self.parts = tuple(parts)
        self.dtype, self.shape = first.dtype, (len(parts), *first.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return len(self.parts) * self.parts[0].size

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.stack(self.parts).astype(dtype or self.dtype, copy=False)


def stack(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The arrays as one, made when it is asked for; program data takes it for an array."""
    return cast(np.ndarray, Stacked(parts))


def parts_of(array: np.ndarray) -> tuple[np.ndarray, ...] | None:
    """The arrays that `stack` was given; None for any other array."""
    return array.parts if isinstance(array, Stacked) else None
