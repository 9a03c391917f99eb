"""The reduced axes of an operand as runs of elements in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dfcompiler.lowering.context import Context
from dfcompiler.lowering.reduction import Axes
from dfcompiler.lowering.symbolic import product, quotient_and_rest, text


@dataclass(frozen=True)
class Runs:
    """Reduced axes that follow each other in memory as one, the outermost first.

    Attributes:
        extents: of the merged axes.
        steps: elements between neighbours along each.
    """

    extents: tuple[Any, ...]
    steps: tuple[Any, ...]

    @staticmethod
    def of(context: Context, name: str, axes: Axes) -> Runs:
        """The reduced axes of an operand, those merged that lie in one another."""
        extents: list[Any] = []
        steps: list[Any] = []
        for axis in reversed(axes.reduced):
            step, extent = context.stride(name, axis), axes.extents[axis]
            if steps and text(step) == text(steps[0] * extents[0]):
                extents[0] = extents[0] * extent
            else:
                extents.insert(0, extent)
                steps.insert(0, step)
        return Runs(tuple(extents), tuple(steps))

    @property
    def count(self) -> Any:
        """Positions in all runs together."""
        return product(self.extents)

    def offset(self, position: Any) -> Any:
        """Elements between the first position and the one with a number."""
        offset: Any = 0
        for extent, step in zip(self.extents[:0:-1], self.steps[:0:-1], strict=True):
            position, rest = quotient_and_rest(position, extent)
            offset = offset + rest * step
        return offset + position * self.steps[0] if self.steps else offset

    def inner(self) -> tuple[Runs, Any]:
        """The runs around the innermost one, and the elements of that."""
        return Runs(self.extents[:-1], self.steps[:-1]), self.extents[-1] if self.extents else 1
