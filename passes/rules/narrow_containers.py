"""Containers in 16 bits: weights by need, state and temporaries always, the interface never."""

from __future__ import annotations

from dataclasses import replace

from dfcompiler.ir import Container, DType, Program, Role
from passes.rules.narrow_range import rounded
from passes.rules.rounded_weights import RoundedWeights

_KEPT = (Role.INPUT, Role.OUTPUT)


class NarrowContainers:
    """Which types the containers of a program have from now on.

    State whose first values have no place in the narrow type keeps f32.

    Attributes:
        low: the narrow type.
        weights: their copies; readers choose the type of a weight's numbers.
    """

    def __init__(self, program: Program, low: DType) -> None:
        self.low, self.weights = low, RoundedWeights(program, low)
        self.table = program.table()

    def role(self, name: str) -> Role | None:
        """The role of ``@name``; None for a value."""
        return self.table[name[1:]].role if name.startswith("@") else None

    def stored(self, name: str, dtype: DType) -> DType:
        """The type in which a name holds what is computed in `dtype`."""
        role = self.role(name)
        if role is None:
            return dtype
        return DType.F32 if role in _KEPT or self.weights.why_not(name) else self.low

    def applied_to(self, program: Program) -> Program:
        """The program with narrow state and temporaries, and copies behind the weights."""
        data = dict(program.data)
        containers: list[Container] = []
        for container in program.containers:
            if not self._is_narrowed(container):
                containers.append(container)
                continue
            containers.append(replace(container, type=container.type.with_dtype(self.low)))
            if container.name in data:
                data[container.name] = rounded(data[container.name], self.low)
        changed = replace(program, containers=tuple(containers), data=data)
        return self.weights.added_to(changed)

    def _is_narrowed(self, container: Container) -> bool:
        is_float = container.type.dtype is DType.F32 and container.role is not Role.WEIGHT
        return is_float and self.stored(f"@{container.name}", self.low) is self.low
