"""Contents of element-wise operators on integers, from the contents of their inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfcompiler.importers.onnx.contents import Content, Elements, Grid, elements, grid
from dfcompiler.importers.onnx.dimension_arithmetic import ARITHMETIC, COMPARISONS, is_nonnegative
from dfcompiler.ir.dims import Dim, Shape, as_dim, expand


def combine(
    kind: str, contents: Sequence[Content], shapes: Sequence[Shape], result: Shape
) -> Content | None:
    """The contents of an element-wise operator on integers, when they follow from the inputs'."""
    arrays = [content.array for content in contents if isinstance(content, Elements)]
    if len(arrays) == len(contents):
        return _combine_elements(kind, arrays)
    rank = len(result)
    grids = [grid(c, s, rank) for c, s in zip(contents, shapes, strict=True)]
    if any(g is None for g in grids):
        return None
    return _combine_grids(kind, [g for g in grids if g is not None], result)


def select(condition: Content | None, a: Content | None, b: Content | None) -> Elements | None:
    """Elements of `a` where a known condition is true, of `b` elsewhere."""
    if not (
        isinstance(condition, Elements) and isinstance(a, Elements) and isinstance(b, Elements)
    ):
        return None
    if not condition.is_numeric:
        return None
    chosen = np.where(condition.array, a.array.astype(object), b.array.astype(object))
    return elements(chosen, chosen.shape)


def _combine_elements(kind: str, arrays: Sequence[np.ndarray]) -> Content | None:
    function = ARITHMETIC.get(kind) or COMPARISONS.get(kind)
    if function is None:
        return None
    broadcast = np.broadcast_arrays(*arrays)
    flat = [function(*map(as_dim, row)) for row in zip(*(a.flat for a in broadcast), strict=True)]
    if any(value is None for value in flat):
        return None
    shape = broadcast[0].shape
    if kind in COMPARISONS:
        return Elements(np.array(flat, np.bool_).reshape(shape))
    return elements([value for value in flat if value is not None], shape)


def _combine_grids(kind: str, grids: Sequence[Grid], shape: Shape) -> Grid | None:
    if any(isinstance(g.offset, bool | float) for g in grids):
        return None
    zeros = (0,) * len(shape)
    if kind == "neg":
        return Grid(expand(-grids[0].offset), tuple(expand(-step) for step in grids[0].steps))
    if len(grids) != 2:
        return None
    a, b = grids
    if kind in COMPARISONS:
        known = _compare_grids(kind, a, b, shape)
        return None if known is None else Grid(known, zeros)
    if kind in ("add", "sub"):
        function = ARITHMETIC[kind]
        steps = tuple(_sure(function(x, y)) for x, y in zip(a.steps, b.steps, strict=True))
        return Grid(_sure(function(a.offset, b.offset)), steps)
    if kind == "mul" and (a.is_uniform or b.is_uniform):
        scale, scaled = (a.offset, b) if a.is_uniform else (b.offset, a)
        steps = tuple(expand(step * scale) for step in scaled.steps)
        return Grid(expand(scaled.offset * scale), steps)
    if kind in ARITHMETIC and a.is_uniform and b.is_uniform:
        value = ARITHMETIC[kind](a.offset, b.offset)
        return None if value is None else Grid(value, zeros)
    return None


def _compare_grids(kind: str, a: Grid, b: Grid, shape: Shape) -> bool | None:
    """The outcome of a comparison when it is the same for every index."""
    steps = [expand(x - y) for x, y in zip(a.steps, b.steps, strict=True)]
    low = high = expand(a.offset - b.offset)
    for step, extent in zip(steps, shape, strict=True):
        sign = is_nonnegative(step)
        if sign is None:
            return None
        reach = expand(step * (extent - 1))
        low, high = (low, high + reach) if sign else (low + reach, high)
    outcomes = {COMPARISONS[kind](expand(end), 0) for end in (low, high)}
    if kind in ("equal", "not_equal") and any(not isinstance(s, int) or s for s in steps):
        return _ordered_apart(kind, low, high)
    return outcomes.pop() if len(outcomes) == 1 else None


def _ordered_apart(kind: str, low: Dim, high: Dim) -> bool | None:
    """``equal`` and ``not_equal`` of two grids that lie wholly on one side of each other."""
    apart = is_nonnegative(expand(low - 1)) or is_nonnegative(expand(-high - 1))
    return (kind == "not_equal") if apart else None


def _sure(value: Dim | None) -> Dim:
    assert value is not None
    return value
