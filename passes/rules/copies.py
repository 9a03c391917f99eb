"""Values that are copied to a container are computed there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from dfcompiler.ir import Container, Op, Role


def write_directly(ops: Sequence[Op], containers: Mapping[str, Container]) -> tuple[Op, ...]:
    """Lets the producer of a value write the container that the value is copied to.

    ::

        %0 = exp @x                          @y = exp @x
        @y = copy %0                 ──▶
        %1 = index_copy @c, %i, %x           @c = index_copy @c, %i, %x
        @c = copy %1                         %2 = neg @c
        %2 = neg %1

    The container must not be used between the two places. Other readers of the value read the
    container where that is state: only then is the copy worth more than a value that never changes.
    """
    touched: dict[str, list[int]] = defaultdict(list)
    readers: dict[str, list[int]] = defaultdict(list)
    defined: dict[str, int] = {}
    for i, op in enumerate(ops):
        for name in dict.fromkeys((*op.inputs, op.result)):
            touched[name].append(i)
        for name in dict.fromkeys(op.inputs):
            readers[name].append(i)
        defined[op.result] = i
    names: dict[str, str] = {}
    dropped: set[int] = set()
    for i, op in enumerate(ops):
        if op.kind != "copy" or not op.result.startswith("@") or op.inputs[0] not in defined:
            continue
        (value,) = op.inputs
        start = defined[value]
        if value in names or not value.startswith("%") or ops[start].type != op.type:
            continue
        end = readers[value][-1]
        if any(start < use <= end and use != i for use in touched[op.result]):
            continue
        if len(readers[value]) > 1 and containers[op.result].role not in (Role.PERSIST, Role.TEMP):
            continue
        names[value] = op.result
        dropped.add(i)
    kept = (op for i, op in enumerate(ops) if i not in dropped)
    return tuple(_written(op, names) for op in kept)


def _written(op: Op, names: Mapping[str, str]) -> Op:
    renamed = op.renamed(names)
    return renamed.with_result(names[op.result]) if op.result in names else renamed
