"""What a compiled program takes and keeps: tensors, sizes, persistent state, memory slots."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dfcompiler.errors import InternalError, UnsupportedError
from dfcompiler.ir import Container, Program, Role, Symbol, TensorType
from dfcompiler.ir.dims import Dim, free_symbols, show_dim
from dfcompiler.lowering.lowered import Argument, Lowered

_MAX_RANK = 8


@dataclass(frozen=True)
class Slot:
    """A part of the arena: values with disjoint lifetimes lie in it one after the other."""

    name: str
    bytes: Dim


@dataclass(frozen=True)
class Interface:
    """The call of a compiled program, as its C interface and the manifest describe it.

    Attributes:
        prefix: what every name of the C interface starts with.
        program_name: what DaCe's functions are named after.
        arguments: of the generated function, in order.
        call_symbols: the symbols that the function takes after the arguments.
        init_symbols: the number of symbols that DaCe's init function takes.
    """

    prefix: str
    program_name: str
    symbols: tuple[Symbol, ...]
    inputs: tuple[Container, ...]
    outputs: tuple[Container, ...]
    persistent: tuple[Container, ...]
    slots: tuple[Slot, ...]
    arguments: tuple[Argument, ...]
    call_symbols: tuple[str, ...]
    sites: tuple[str, ...]

    @property
    def max_rank(self) -> int:
        ranks = [c.type.rank for c in (*self.inputs, *self.outputs)]
        return max(_MAX_RANK, *ranks, 0)

    def fixed_by(self, symbol: str) -> str:
        """The first input extent that fixes a symbol, ``ids[1]``; empty if the caller gives it."""
        for container in self.inputs:
            for axis, dim in enumerate(container.type.shape):
                if not isinstance(dim, int) and dim.is_Symbol and dim.name == symbol:
                    return f"{container.name}[{axis}]"
        return ""


def interface_of(lowered: Lowered) -> Interface:
    """The interface of a lowered program.

    Raises:
        UnsupportedError: if the size of a persistent container depends on the call.
        InternalError: if the lowering contradicts itself.
    """
    program = lowered.program
    persistent = program.by_role(Role.PERSIST)
    _check_persistent(persistent)
    found = Interface(
        prefix=c_identifier(program.name),
        program_name=lowered.sdfg.name,
        symbols=program.symbols,
        inputs=program.inputs,
        outputs=program.outputs,
        persistent=persistent,
        slots=_slots(program, lowered.arguments),
        arguments=lowered.arguments,
        call_symbols=lowered.symbols,
        sites=lowered.sites,
    )
    _check(found)
    return found


def c_identifier(name: str) -> str:
    """`name` as the start of C identifiers; what C does not allow becomes underscores."""
    word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "model"
    return f"m_{word}" if word[0].isdigit() else word


def unique_identifiers(names: list[str]) -> list[str]:
    """C identifiers for `names`, numbered where two names give the same one."""
    used: set[str] = set()
    result = []
    for name in names:
        word = re.sub(r"\W+", "_", name, flags=re.ASCII)
        candidate, number = word, 1
        while candidate in used:
            candidate, number = f"{word}_{number}", number + 1
        used.add(candidate)
        result.append(candidate)
    return result


def _check_persistent(persistent: tuple[Container, ...]) -> None:
    sized = [c for c in persistent if free_symbols(*c.type.shape)]
    if sized:
        raise UnsupportedError(
            "persistent state must have one size for every call: "
            + ", ".join(f"@{c.name} is {c.type}" for c in sized),
            hint="give these sizes fixed values, such as the longest context",
        )


def _slots(program: Program, arguments: tuple[Argument, ...]) -> tuple[Slot, ...]:
    """The slots in use: planned ones first, in the program's order, then unplanned values."""
    members: dict[str, list[TensorType]] = {}
    for argument in arguments:
        if argument.role == "value" and argument.memory is None:
            members.setdefault(argument.slot, []).append(argument.type)
    planned = {
        c.name: Slot(c.name, c.type.stored_bytes)
        for c in program.by_role(Role.TEMP)
        if c.name in members
    }
    for name, types in members.items():
        if name in planned:
            _check_fits(planned[name], types)
    alone = [
        Slot(name, _largest(name, types)) for name, types in members.items() if name not in planned
    ]
    return (*planned.values(), *alone)


def _largest(name: str, types: list[TensorType]) -> Dim:
    sizes = {show_dim(t.stored_bytes): t.stored_bytes for t in types}
    if len(sizes) > 1:
        raise InternalError(f"slot {name} is not planned but has values of sizes {list(sizes)}")
    return next(iter(sizes.values()))


def _check_fits(slot: Slot, types: list[TensorType]) -> None:
    """Compares sizes at a few values of the symbols: an undersized slot corrupts memory."""
    symbols = sorted(free_symbols(slot.bytes))
    for sample in range(3):
        values = {name: 1 + sample * (7 + 4 * i) for i, name in enumerate(symbols)}
        room = _value(slot.bytes, values)
        for member in types:
            size = member.stored_bytes
            if not free_symbols(size) <= set(symbols):
                continue  # sized by a loop variable; the plan takes its greatest value
            if _value(size, values) > room:
                raise InternalError(
                    f"slot {slot.name} has {show_dim(slot.bytes)} bytes; "
                    f"a value in it needs {show_dim(size)}"
                )


def _value(dim: Dim, values: dict[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    names = {"max": max, "min": min, "ceildiv": lambda a, b: -(-a // b), **values}
    return int(eval(show_dim(dim), {"__builtins__": {}}, names))  # our own printer wrote it


def _check(interface: Interface) -> None:
    known = {symbol.name for symbol in interface.symbols}
    wanted = set(interface.call_symbols) | free_symbols(*(s.bytes for s in interface.slots))
    if wanted - known:
        raise InternalError(f"sizes depend on {sorted(wanted - known)}, which no call fixes")
    containers = {c.name for c in (*interface.inputs, *interface.outputs, *interface.persistent)}
    for argument in interface.arguments:
        if argument.role in ("input", "output", "persist") and argument.container not in containers:
            raise InternalError(f"argument {argument.name} stands for @{argument.container}")
