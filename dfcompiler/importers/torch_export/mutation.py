"""Writing buffers and outputs in place, where the order of reads and writes allows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

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
    places = _Places.of(ops, updates.values())
    names: dict[str, str] = {}
    late: list[tuple[str, str]] = []
    for buffer, value in updates.items():
        chain = places.chain(buffer, value) if value not in names else []
        names |= dict.fromkeys(chain, buffer)
        if not chain and value != buffer:
            late.append((buffer, names.get(value, value)))
    renamed = (replace(op.renamed(names), result=names.get(op.result, op.result)) for op in ops)
    return (*renamed, *_copies(late, types))


@dataclass(frozen=True)
class _Places:
    """Where each value is defined, and where a name is read last."""

    ops: Sequence[Op]
    defined: Mapping[str, int]
    last_read: Mapping[str, int]

    @staticmethod
    def of(ops: Sequence[Op], read_at_the_end: Iterable[str]) -> _Places:
        last_read = {name: i for i, op in enumerate(ops) for name in op.inputs}
        # Old contents that go to another buffer are read by a copy behind everything.
        last_read |= {name: len(ops) for name in read_at_the_end if name.startswith("@")}
        return _Places(ops, {op.result: i for i, op in enumerate(ops)}, last_read)

    def chain(self, buffer: str, value: str) -> list[str]:
        """The values that may live in `buffer`: `value`, and the links that it was updated from.

        Empty if the old contents are still read after `value` is defined.
        """
        found: list[str] = []
        written = len(self.ops)
        old = self.last_read.get(buffer, -1)
        while value.startswith("%") and old <= self.defined[value]:
            if found and self.last_read[value] > written:
                break
            found.append(value)
            written = self.defined[value]
            op = self.ops[written]
            if op.kind != "index_copy" or not self._is_update(op.inputs[0]):
                break
            value = op.inputs[0]
        return found

    def _is_update(self, value: str) -> bool:
        return value in self.defined and self.ops[self.defined[value]].kind == "index_copy"


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
