"""How far outputs are from a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """One output against its reference.

    Attributes:
        name: the output.
        max_abs: greatest absolute difference; infinite where one side is not finite.
        max_rel: greatest difference relative to the largest magnitude in the reference.
        magnitude: largest magnitude in the reference.
        elements: how many values were compared.
    """

    name: str
    max_abs: float
    max_rel: float
    magnitude: float
    elements: int


def compare(
    outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]
) -> tuple[Difference, ...]:
    """Every output of `reference` against the one of the same name.

    Raises:
        KeyError: if an output is missing.
        ValueError: if two shapes differ.
    """
    return tuple(_difference(name, outputs[name], expected) for name, expected in reference.items())


def _difference(name: str, found: np.ndarray, expected: np.ndarray) -> Difference:
    if found.shape != expected.shape:
        raise ValueError(f"{name} has shape {found.shape}; the reference {expected.shape}")
    left, right = found.astype(np.float64), expected.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(left - right))
    gap = np.where(np.isnan(gap), np.inf, gap)
    finite = np.abs(right[np.isfinite(right)])
    magnitude = float(finite.max()) if finite.size else 0.0
    max_abs = float(gap.max()) if gap.size else 0.0
    return Difference(
        name, max_abs, max_abs / magnitude if magnitude else max_abs, magnitude, int(found.size)
    )
