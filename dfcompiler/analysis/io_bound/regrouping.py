"""Boxes of a value before its axes were taken apart or put together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

from dfcompiler.analysis.io_bound.boxes import Box, some, span

Shape = tuple[int, ...]


def regrouped(before: Shape, after: Shape, box: Box) -> Iterator[Box]:
    """The boxes of a value with the extents `before` that a box of its reshape comes from.

    Axes change in stretches that hold the same number of elements. What is no box in one of them,
    and no run of elements either, counts as one element of it.
    """
    parts = [
        _stretch(before[i:m], after[j:n], box[j:n]) for (i, m), (j, n) in _groups(before, after)
    ]
    for chosen in product(*parts):
        yield tuple(along for part in chosen for along in part)


def _groups(a: Shape, b: Shape) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Stretches of axes of two shapes that hold the same number of elements."""
    m = n = 0
    while m < len(a) or n < len(b):
        i, j = m, n
        left = right = 1
        while (m == i and n == j) or left != right:
            if left <= right and m < len(a):
                left, m = left * a[m], m + 1
            else:
                right, n = right * b[n], n + 1
        yield (i, m), (j, n)


def _stretch(before: Shape, after: Shape, box: Box) -> list[Box]:
    """Boxes of axes that were taken apart or put together, for one box of the result."""
    if all(along == span(0, extent) for along, extent in zip(box, after, strict=True)):
        return [tuple(span(0, extent) for extent in before)]
    long, cut = _long_axes(before), _long_axes(after)
    if len(long) == len(cut) == 1:
        return [tuple(box[cut[0]] if i == long[0] else span(0, 1) for i in range(len(before)))]
    interval = _interval(after, box)
    if interval is None:
        return [tuple(some(extent) for extent in before)]
    return list(_boxes(*interval, before))


def _long_axes(shape: Shape) -> Shape:
    return tuple(axis for axis, extent in enumerate(shape) if extent != 1)


def _interval(shape: Shape, box: Box) -> tuple[int, int] | None:
    """The elements of a box as one stretch in row-major order, if they are."""
    start, count, unit = 0, 1, 1
    for along, extent in zip(reversed(box), reversed(shape), strict=True):
        indices = along.indices
        full = count == unit
        if not along.every or (len(indices) > 1 and not (full and indices.step == 1)):
            return None
        start, count, unit = start + unit * indices[0], count * len(indices), unit * extent
    return start, start + count


def _boxes(start: int, stop: int, shape: Shape) -> Iterator[Box]:
    """Boxes that hold the elements from `start` to `stop` in row-major order."""
    if start >= stop:
        return
    if not shape:
        yield ()
        return
    rest = shape[1:]
    unit = prod(rest)
    first, last = -(-start // unit), stop // unit
    if first > last:
        row = start // unit
        for box in _boxes(start - row * unit, stop - row * unit, rest):
            yield (span(row, row + 1), *box)
        return
    for box in _boxes(start - (first - 1) * unit, unit, rest) if start < first * unit else ():
        yield (span(first - 1, first), *box)
    if first < last:
        yield (span(first, last), *(span(0, extent) for extent in rest))
    for box in _boxes(0, stop - last * unit, rest):
        yield (span(last, last + 1), *box)
