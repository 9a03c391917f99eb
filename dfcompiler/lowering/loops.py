"""Loops over the axes of a tensor: the parameters of a map, and the element that they are at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dfcompiler.ir.types import TensorType
from dfcompiler.lowering.symbolic import expression, is_one, product, symbol


@dataclass(frozen=True)
class Loops:
    """Loops over axes of a tensor, one for each axis whose extent is not 1.

    Attributes:
        ranges: parameters with their extents, outermost first.
        index: the element that they are at: the parameter of an axis with a loop, 0 on the others.
    """

    ranges: list[tuple[str, Any]]
    index: list[Any]

    @property
    def iterations(self) -> Any:
        """How often the innermost loop runs, over all of them."""
        return product(extent for _, extent in self.ranges)


def parameter(axis: int) -> str:
    """The parameter of the loop over an axis."""
    return f"_i{axis}"


def loops_over(tensor: TensorType, axes: Iterable[int]) -> Loops:
    """Loops over `axes`, the outermost one first."""
    kept = [axis for axis in axes if not is_one(tensor.shape[axis])]
    index: list[Any] = [0] * tensor.rank
    for axis in kept:
        index[axis] = symbol(parameter(axis))
    return Loops([(parameter(axis), expression(tensor.shape[axis])) for axis in kept], index)


def loops_over_elements(tensor: TensorType) -> Loops:
    """Loops over all axes, in the order in which they lie in memory."""
    return loops_over(tensor, tensor.layout.permutation(tensor.rank))
