"""Weights, and their copies in a type of 16 bits."""

from __future__ import annotations

from dataclasses import replace

from dfcompiler.ir import Container, DType, Program, Role
from dfcompiler.ir.rewrite import drop_unused_weights
from passes.rules.narrow_range import greatest_lost, rounded, why_not_narrow


class RoundedWeights:
    """Which weights can be rounded, and their copies.

    Attributes:
        low: the type of the copies.
    """

    def __init__(self, program: Program, low: DType) -> None:
        self.program, self.low, self.table = program, low, program.table()
        self._copies: dict[str, str] = {}
        self._lost: dict[str, float] = {}

    def is_weight(self, name: str) -> bool:
        """Whether a name is a weight of f32."""
        container = self.table.get(name[1:]) if name.startswith("@") else None
        return (
            container is not None
            and container.role is Role.WEIGHT
            and container.type.dtype is DType.F32
        )

    def is_matrix(self, name: str) -> bool:
        """Whether a name is a matrix of f32 weights."""
        return self.is_weight(name) and self.table[name[1:]].type.rank == 2

    def why_not(self, name: str) -> str:
        """Why a container's data cannot be rounded; empty if they can."""
        if name not in self._lost:
            data = self.program.data.get(name[1:])
            self._lost[name] = 0.0 if data is None else greatest_lost(data, self.low)
        lost = self._lost[name]
        return why_not_narrow(name, lost, self.low) if lost else ""

    def copy(self, name: str) -> str:
        """The name of a weight's copy."""
        if name not in self._copies:
            number, candidate = 1, f"{name[1:]}.{self.low.value}"
            while candidate in self.table:
                number += 1
                candidate = f"{name[1:]}.{self.low.value}.{number}"
            self._copies[name] = f"@{candidate}"
        return self._copies[name]

    def added_to(self, program: Program) -> Program:
        """The program with each copy behind its weight, and without weights that nobody reads."""
        containers: list[Container] = []
        data = dict(program.data)
        for container in program.containers:
            containers.append(container)
            copy = self._copies.get(f"@{container.name}")
            if copy is None:
                continue
            narrow = container.type.with_dtype(self.low)
            containers.append(Container(Role.WEIGHT, copy[1:], narrow))
            if container.name in data:
                data[copy[1:]] = rounded(data[container.name], self.low)
        return drop_unused_weights(replace(program, containers=tuple(containers), data=data))
