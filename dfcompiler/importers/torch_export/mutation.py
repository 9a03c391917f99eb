"""Writing buffers and outputs in place, where the order of reads and writes allows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from dfcompiler.ir.program import Attrs, Op
from dfcompiler.ir.types import TensorType


def write_buffers(
    ops: Sequence[Op], updates: Mapping[str, str], types: Mapping[str, TensorType]
) -> tuple[Op, ...]:
    """Operators of which those that define a buffer's new contents write the buffer itself.

    Args:
        ops: pure operators: they read a buffer's old contents as ``@buffer``.
        updates: the value that each ``@buffer`` has at the end.
        types: the types of all values and containers.

    A value becomes the buffer where it is defined when nothing reads the old contents after that;
    then a chain of updates happens in place, link by link. Otherwise the value is copied into the
    buffer at the end, when every reader of the old contents is done.
    """
    kept = {
        value: buffer for buffer, value in reversed(list(updates.items())) if value.startswith("%")
    }
    current = list(ops)
    late: list[tuple[str, str]] = []
    for buffer, value in updates.items():
        if kept.get(value) != buffer or not _write_in_place(current, buffer, value):
            late.append((buffer, value))
    return (*current, *_copies(late, types))


def _write_in_place(ops: list[Op], buffer: str, value: str) -> bool:
    """Renames `value`, and the links of its chain before it, to `buffer`; whether it did."""
    position = _definition(ops, value)
    if position is None or _is_read(ops[position + 1 :], buffer):
        return False
    target: str | None = value
    while target is not None:
        position = _definition(ops, target)
        assert position is not None
        previous = ops[position].inputs[0] if ops[position].kind == "index_copy" else ""
        ops[position] = replace(ops[position], result=buffer)
        for later in range(position + 1, len(ops)):
            ops[later] = ops[later].renamed({target: buffer})
        target = previous if _is_link(ops, previous, buffer, position) else None
    return True


def _is_link(ops: Sequence[Op], value: str, buffer: str, written: int) -> bool:
    """Whether `value`, overwritten at `written`, may live in `buffer` until then."""
    position = _definition(ops, value)
    if position is None or ops[position].kind != "index_copy":
        return False
    between = ops[position + 1 : written + 1]
    return not _is_read(between, buffer) and not _is_read(ops[written + 1 :], value)


def _definition(ops: Sequence[Op], value: str) -> int | None:
    return next((i for i, op in enumerate(ops) if op.result == value), None)


def _is_read(ops: Sequence[Op], name: str) -> bool:
    return any(name in op.inputs for op in ops)


def _copies(late: Sequence[tuple[str, str]], types: Mapping[str, TensorType]) -> list[Op]:
    """Copies that read every value before they write any buffer, since buffers may trade places."""
    reads, writes = [], []
    for number, (buffer, value) in enumerate(late):
        if value.startswith("@"):
            name = f"%old{number}"
            reads.append(Op(name, types[value], "copy", (value,)))
            value = name
        writes.append(Op(buffer, types[buffer], "copy", (value,), Attrs()))
    return [*reads, *writes]


def write_outputs(
    ops: Sequence[Op],
    outputs: Sequence[tuple[str, str]],
    types: Mapping[str, TensorType],
    needed: Iterable[str] = (),
) -> tuple[Op, ...]:
    """Operators that also write ``@output`` containers.

    A value that is read nowhere else, nor `needed`, is written straight to its output; every other
    is copied.
    """
    reads: dict[str, int] = {}
    read = (name for op in ops for name in op.inputs)
    for name in (*read, *(value for _, value in outputs), *needed):
        reads[name] = reads.get(name, 0) + 1
    direct = {v: o for o, v in outputs if reads[v] == 1 and v.startswith("%")}
    copied = [
        Op(output, types[output], "copy", (value,))
        for output, value in outputs
        if value not in direct
    ]
    renamed = (replace(op, result=direct.get(op.result, op.result)) for op in ops)
    return (*renamed, *copied)


def renumber(ops: Sequence[Op]) -> tuple[Op, ...]:
    """Values as ``%0``, ``%1``, … in the order of definition."""
    values = [op.result for op in ops if op.result.startswith("%")]
    names = {value: f"%{i}" for i, value in enumerate(values)}
    return tuple(replace(op.renamed(names), result=names.get(op.result, op.result)) for op in ops)
