"""Weights and state of layers, stacked: which ones can be, and the containers they become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from dfcompiler.analysis.wiring import Repeat
from dfcompiler.ir import Branch, Container, Loop, Program, Role, TensorType
from dfcompiler.ir.stacked import stack
from dfcompiler.ir.types import Dense
from passes.rules.layers import common_name, stacked_type


def obstacles(program: Program, repeats: Mapping[str, Repeat]) -> dict[str, str]:
    """Why layers cannot be rolled that are equal, by state.

    A weight or a state in a stack is there under no other name: all of its users must be in layers
    that are rolled over the same stack. States that cannot be rolled may take others along.
    """
    uses = _uses(program)
    kept, found = dict(repeats), dict[str, str]()
    while True:
        users: Counter[tuple[str, ...]] = Counter()
        for repeat in kept.values():
            users.update({names: len(readers) for names, readers in repeat.users.items()})
        reasons = {name: _obstacle(repeat, users, uses, program) for name, repeat in kept.items()}
        new = {name: reason for name, reason in reasons.items() if reason}
        if not new:
            return found
        found |= new
        kept = {name: repeat for name, repeat in kept.items() if name not in new}


def _uses(program: Program) -> Counter[str]:
    """How many operators, loops and branches read or write each container."""
    uses = Counter(name for op in program.ops() for name in {*op.inputs, op.result})
    for block in program.blocks():
        flag = block.until if isinstance(block, Loop) else ""
        flag = block.condition if isinstance(block, Branch) else flag
        uses[f"@{flag.removeprefix('@')}"] += 1
    return uses


def _obstacle(
    repeat: Repeat,
    users: Mapping[tuple[str, ...], int],
    uses: Mapping[str, int],
    program: Program,
) -> str:
    table, data = {f"@{c.name}": c for c in program.containers}, program.data
    for names in repeat.users:
        for name in names:
            if uses[name] > users[names]:
                would = "stored twice" if table[name].role is Role.WEIGHT else "in two places"
                return f"{name} is used elsewhere too and would be {would}"
            if not isinstance(table[name].type.encoding, Dense):
                return f"{name} is stored as {table[name].type}"
        given = [name for name in names if name[1:] in data]
        if 0 < len(given) < len(names):
            return f"{given[0]} begins with values of its own, others with zeros"
    return ""


class Stacks:
    """The containers of a program while its layers become loops.

    Attributes:
        table: all containers that there are, by name with the sigil.
        data: the values of new ones.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.table = {f"@{c.name}": c for c in program.containers}
        self.data: dict[str, np.ndarray] = {}
        blocks = list(program.blocks())
        self._taken = {name for c in program.containers for name in (c.name, *c.parts)}
        self._taken |= {block.name for block in blocks} | {s.name for s in program.symbols}
        self._taken |= {block.variable for block in blocks if isinstance(block, Loop)}
        self._stacks: dict[tuple[str, ...], str] = {}

    @property
    def containers(self) -> tuple[Container, ...]:
        """All containers but state that is a part of others now."""
        parts = {part for c in self.table.values() for part in c.parts}
        return tuple(c for c in self.table.values() if c.name not in parts)

    def fresh(self, name: str) -> str:
        """A name for a container, a block or a variable that nothing has yet."""
        candidate, number = name, 1
        while candidate in self._taken:
            number += 1
            candidate = f"{name}.{number}"
        self._taken.add(candidate)
        return candidate

    def add(self, role: Role, name: str, tensor: TensorType, parts: tuple[str, ...] = ()) -> str:
        """A new container, called like that or nearly so; its name with the sigil."""
        container = Container(role, self.fresh(name), tensor, parts)
        self.table[f"@{container.name}"] = container
        return f"@{container.name}"

    def of(self, names: tuple[str, ...]) -> str:
        """The container in which these are, one behind the other; the same one for the same."""
        if names not in self._stacks:
            one = self.table[names[0]]
            plain = tuple(name[1:] for name in names)
            kept = plain if one.role is Role.PERSIST else ()
            tensor = stacked_type(one.type, len(names))
            name = self.add(one.role, common_name(plain), tensor, kept)
            values = [self.program.data[part] for part in plain if part in self.program.data]
            if len(values) == len(plain):
                self.data[name[1:]] = stack(values)
            self._stacks[names] = name
        return self._stacks[names]
