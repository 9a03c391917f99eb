"""What the layers of a loop have in common: names, sources, the type of their stacked weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from dfcompiler.ir import Layout, Op, PhysicalAxis, TensorType


def common_name(names: Sequence[str]) -> str:
    """The names as one, with a star for each number that differs; else the first one.

    ``layers.0.mlp``, ``layers.1.mlp`` are ``layers.*.mlp``; a few of other forms do not count, as
    exporters number names from the second one on.
    """
    words = [re.split(r"(\d+)", name) for name in names]
    form = Counter(tuple(word[::2]) for word in words).most_common(1)[0][0]
    parts = [word for word in words if tuple(word[::2]) == form]
    first = parts[0]
    same = [len({part[i] for part in parts}) == 1 for i in range(len(first))]
    return "".join(text if kept else "*" for text, kept in zip(first, same, strict=True))


def with_common_sources(ops: Sequence[Op]) -> Op:
    """The first of operators that are alike, with a source that stands for all of them."""
    inner = tuple(
        with_common_sources(parts) for parts in zip(*(op.region for op in ops), strict=True)
    )
    return replace(ops[0], source=common_name([op.source for op in ops]), region=inner)


def stacked_type(one: TensorType, count: int) -> TensorType:
    """The type of `count` tensors behind each other: each keeps its physical order."""
    order = tuple(replace(axis, axis=axis.axis + 1) for axis in one.layout.order)
    layout = Layout((PhysicalAxis(0), *order)) if order else Layout()
    return replace(one, shape=(count, *one.shape), layout=layout)
