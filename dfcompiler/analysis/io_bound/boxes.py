"""Sets of elements that are needed of a value: boxes of indices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from dfcompiler.ir.types import TensorType


class Span(NamedTuple):
    """Indices along one axis: every one of them, or at least one that is not known.

    Ranges ascend.
    """

    indices: range
    every: bool = True

    @property
    def least(self) -> int:
        """How many indices are needed, at least."""
        return len(self.indices) if self.every else min(1, len(self.indices))

    def implies(self, other: Span) -> bool:
        """Whether what this demands includes what `other` demands."""
        if self.every and not other.every:
            return _intersect(self.indices, other.indices)
        if other.every and not self.every:
            return False
        small, large = (other, self) if self.every else (self, other)
        return _within(small.indices, large.indices)

    def within(self, start: int, stop: int) -> Span | None:
        """The part from `start` to `stop`, counted from `start`; None where nothing is known."""
        found = self.indices
        first, last = (min(len(found), max(0, _steps(found, at))) for at in (start, stop))
        if not self.every and last - first < len(found):
            return None
        part = found[first:last]
        return Span(range(part.start - start, part.stop - start, part.step), self.every)


Box = tuple[Span, ...]
"""A span of each axis. For some choice of the unknown indices, all elements of the product."""


@lru_cache(maxsize=4096)
def span(start: int, stop: int, step: int = 1) -> Span:
    """Every index of a range, which may descend."""
    found = range(start, stop, step)
    return Span(found if step > 0 else found[::-1])


def some(extent: int) -> Span:
    """At least one index of an axis."""
    return Span(range(extent), extent == 1)


def whole(tensor: TensorType) -> Box:
    """All elements of a concrete type."""
    return tuple(span(0, int(extent)) for extent in tensor.shape)


def size(box: Box) -> int:
    """The least number of elements that a box demands."""
    return prod(along.least for along in box)


class Region:
    """Elements that are needed of one value, at least: what each of its boxes demands.

    No box implies another, so that the same demands give the same boxes in whatever order they
    come, and from however many readers.
    """

    def __init__(self, boxes: Iterable[Box] = ()) -> None:
        self.boxes: list[Box] = []
        for box in boxes:
            self.add(box)

    def add(self, box: Box) -> None:
        """Takes note of one more demand."""
        if box in self.boxes or not all(along.indices for along in box):
            return
        if self.boxes:
            if any(_implies(known, box) for known in self.boxes):
                return
            self.boxes = [known for known in self.boxes if not _implies(box, known)]
        self.boxes.append(box)

    def merge(self, other: Region) -> None:
        """Takes note of all demands of another reader."""
        if not self.boxes:
            self.boxes = list(other.boxes)
            return
        for box in other.boxes:
            self.add(box)

    def count(self) -> int:
        """Elements that are needed for all demands together, at least.

        Demands that lie apart along an axis need different elements. Of those that do not, known
        elements are counted once, and unknown ones may be among them.
        """
        return sum(_count(group) for group in _apart(self.boxes))


def _count(boxes: Sequence[Box]) -> int:
    if len(boxes) == 1:
        return size(boxes[0])
    known = [box for box in boxes if all(along.every for along in box)]
    return max(_union(known), *map(size, boxes))


def _union(boxes: Sequence[Box]) -> int:
    """Elements in at least one of several boxes."""
    if len(boxes) < 2:
        return sum(map(size, boxes))
    rank = len(boxes[0])
    covered = np.zeros((len(boxes), *[1] * rank), bool)
    weights = np.ones([1] * rank, np.int64)
    covered[:] = True
    for axis in range(rank):
        members, counts = _classes([box[axis].indices for box in boxes])
        shape = [1] * rank
        shape[axis] = len(counts)
        covered = covered & members.reshape(len(boxes), *shape)
        weights = weights * counts.reshape(shape)
    return int(weights[covered.any(axis=0)].sum())


def _classes(ranges: Sequence[range]) -> tuple[np.ndarray, np.ndarray]:
    """Which ranges hold the indices of each class of them, and how many indices a class has."""
    if len(set(ranges)) == 1:
        return np.ones((len(ranges), 1), bool), np.array([len(ranges[0])])
    members = np.zeros((len(ranges), max(r[-1] for r in ranges) + 1), bool)
    for row, indices in zip(members, ranges, strict=True):
        row[indices.start : indices[-1] + 1 : indices.step] = True
    found, counts = np.unique(members, axis=1, return_counts=True)
    return found, counts


def _apart(boxes: Sequence[Box]) -> list[list[Box]]:
    """Groups of boxes such that boxes of two groups have no element in common."""
    groups: list[list[Box]] = []
    for box in boxes:
        near = [group for group in groups if any(_touch(box, other) for other in group)]
        groups = [group for group in groups if not any(group is one for one in near)]
        groups.append([box, *(other for group in near for other in group)])
    return groups


def _touch(a: Box, b: Box) -> bool:
    return all(
        x.indices[0] <= y.indices[-1] and y.indices[0] <= x.indices[-1]
        for x, y in zip(a, b, strict=True)
    )


def _implies(a: Box, b: Box) -> bool:
    return all(x == y or x.implies(y) for x, y in zip(a, b, strict=True))


def _within(small: range, large: range) -> bool:
    ends = small[0] in large and small[-1] in large
    return ends and (len(small) == 1 or small.step % large.step == 0)


def _intersect(a: range, b: range) -> bool:
    if a.step == b.step == 1:
        return a.start < b.stop and b.start < a.stop
    return any(index in b for index in a)


def _steps(indices: range, at: int) -> int:
    """How many of a range's indices lie in front of `at`."""
    return -((indices.start - at) // indices.step)
