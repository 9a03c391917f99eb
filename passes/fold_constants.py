"""Evaluate at compile time what depends on weights and constants alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from dfcompiler.ir import OPERATORS, Attr, DType, Op, Program, Role, State
from dfcompiler.ir.dims import free_symbols
from dfcompiler.ir.rewrite import drop_unused_weights, live_ops, map_states, with_weights
from dfcompiler.pipeline import Decline, Pass
from passes.rules.sweep import as_kind


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replaces operators on weights and constants by weights that hold their results.

    ::

        weight @w: f32[64, 32]                            weight @w.transpose: f32[32, 64]
        %0: f32[32, 64] = transpose @w            ──▶
        %1: f32[B, 64] = matmul @x, %0                    %1: f32[B, 64] = matmul @x, @w.transpose

    Transposes, reshapes and slices stay numpy views of the weight's memory; numbers become
    constants. Not folded: what would take more bytes than it reads, a
    `dequantize` (the codes are what is worth storing), and anything over symbols.
    """

    name: ClassVar[str] = "fold-constants"
    claims: ClassVar[tuple[str, ...]] = ("ops <=", "flops <=", "moved_bytes <=")

    def run(self, program: Program, decline: Decline) -> Program:
        folder = _Folder(program, decline)
        folded = map_states(program, folder.state)
        if folded is program:
            return program
        return drop_unused_weights(with_weights(folded, folder.weights))


@dataclass
class _Folder:
    program: Program
    decline: Decline
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.taken = {c.name for c in self.program.containers}
        self.known = {
            f"@{c.name}": self.program.data[c.name]
            for c in self.program.by_role(Role.WEIGHT)
            if c.name in self.program.data
        }
        self.stored: dict[tuple[object, ...], str] = {}

    def state(self, state: State) -> State:
        """The state with every known value read from a weight."""
        values: dict[str, np.ndarray] = {}
        names: dict[str, str] = {}
        ops: list[Op] = []
        for original in state.ops:
            op = original.renamed(names)
            found = self.value(op, values)
            if found is None:
                ops.append(op)
                continue
            if op.kind == "constant" or not found.shape:
                # A number is a constant, which other passes can see into.
                plain = op.kind == "constant"
                ops.append(op if plain else as_kind(op, "constant", value=_number(found)))
                if op.result.startswith("%"):
                    values[op.result] = found
                continue
            name = self.store(op, found)
            if op.result.startswith("%"):
                names[op.result] = name
            else:
                ops.append(as_kind(op, "copy", name))
        if len(ops) == len(state.ops) and all(a is b for a, b in zip(ops, state.ops, strict=True)):
            return state
        return replace(state, ops=live_ops(ops))

    def value(self, op: Op, values: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """The operator's result, where everything that it depends on is known."""
        arguments = [values.get(name, self.known.get(name)) for name in op.inputs]
        known = [argument for argument in arguments if argument is not None]
        if len(known) < len(arguments) or (not known and op.kind != "constant"):
            return None
        if op.region or (op.kind == "copy" and not op.result.startswith("%")):
            return None
        if op.kind == "dequantize":
            return None
        if free_symbols(*op.type.shape) or any(map(_mentions_symbol, op.attrs.values())):
            if op.kind != "constant":
                self.decline(op, "its extents are known only at run time")
            return None
        if not self.is_small(op, arguments):
            return None
        if op.kind == "slice":
            return _sliced(op, known[0])
        with np.errstate(all="ignore"):
            found = OPERATORS[op.kind].reference(op, known, {})
        return np.asarray(found, dtype=op.type.dtype.numpy)

    def is_small(self, op: Op, arguments: Sequence[np.ndarray | None]) -> bool:
        """Whether folding stores no more than it lets go."""
        sizes = {n: a.nbytes for n, a in zip(op.inputs, arguments, strict=True) if a is not None}
        after, before = int(op.type.stored_bytes), sum(sizes.values())
        if op.kind == "constant" or after <= before:
            return True
        self.decline(op, f"the result takes {after} bytes, its inputs {before}")
        return False

    def store(self, op: Op, array: np.ndarray) -> str:
        """The container that holds a folded value; the same view is stored once."""
        interface = array.__array_interface__
        key = (interface["data"], array.shape, array.strides, array.dtype.str)
        if key in self.stored:
            return self.stored[key]
        weights = [n[1:] for n in op.inputs if n.startswith("@")]
        base = f"{weights[0] if weights else op.source or 'folded'}.{op.kind}"
        name, number = base, 1
        while name in self.taken:
            number += 1
            name = f"{base}.{number}"
        self.taken.add(name)
        self.weights[name] = array
        self.known[f"@{name}"] = array
        self.stored[key] = f"@{name}"
        return f"@{name}"


def _number(array: np.ndarray) -> float | int | bool:
    plain = array.astype(np.float64) if DType.of(array.dtype).is_float else array
    value: float | int | bool = plain.item()
    return value


def _mentions_symbol(value: Attr) -> bool:
    if isinstance(value, tuple):
        return any(map(_mentions_symbol, value))
    return hasattr(value, "free_symbols")


def _sliced(op: Op, array: np.ndarray) -> np.ndarray:
    """A view; the table's reference copies."""
    steps = op.attr("steps") or (1,) * array.ndim
    picks = []
    for start, step, size in zip(op.attr("starts"), steps, op.type.shape, strict=True):
        stop = start + step * size
        picks.append(slice(start, stop if stop >= 0 else None, step))
    return array[tuple(picks)]
