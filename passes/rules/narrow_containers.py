"""Containers in 16 bits: weights by need, state and temporaries always, the interface never."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np

from dfcompiler.ir import Container, DType, Program, Role
from dfcompiler.ir.program import Attr

_KEPT = (Role.INPUT, Role.OUTPUT)


class NarrowContainers:
    """Which types the containers of a program have from now on.

    Attributes:
        low: the narrow type.
    """

    def __init__(self, program: Program, low: DType) -> None:
        self.program, self.low, self.table = program, low, program.table()
        self._copies: dict[str, str] = {}

    def role(self, name: str) -> Role | None:
        """The role of ``@name``; None for a value."""
        return self.table[name[1:]].role if name.startswith("@") else None

    def is_weight(self, name: str) -> bool:
        """Whether a name is a weight: readers choose the type of its numbers."""
        return self.role(name) is Role.WEIGHT

    def stored(self, name: str, dtype: DType) -> DType:
        """The type in which a name holds what is computed in `dtype`."""
        role = self.role(name)
        if role is None:
            return dtype
        return DType.F32 if role in _KEPT else self.low

    def weight(self, name: str, dtype: DType) -> str:
        """The name under which a weight is stored in `dtype`."""
        if dtype is DType.F32:
            return name
        if name not in self._copies:
            number, candidate = 1, f"{name[1:]}.{self.low.value}"
            while candidate in self.table:
                number += 1
                candidate = f"{name[1:]}.{self.low.value}.{number}"
            self._copies[name] = f"@{candidate}"
        return self._copies[name]

    def applied_to(self, program: Program) -> Program:
        """The program with narrow state and temporaries, and copies behind the weights."""
        containers: list[Container] = []
        data = dict(program.data)
        for container in program.containers:
            narrow = container.type.with_dtype(self.low)
            if container.type.dtype is not DType.F32 or container.role in _KEPT:
                containers.append(container)
            elif container.role is not Role.WEIGHT:
                containers.append(replace(container, type=narrow))
                if container.name in data:
                    data[container.name] = self._rounded(data[container.name])
            else:
                containers.append(container)
                copy = self._copies.get(f"@{container.name}")
                if copy is None:
                    continue
                containers.append(Container(Role.WEIGHT, copy[1:], narrow))
                if container.name in data:
                    data[copy[1:]] = self._rounded(data[container.name])
        return replace(program, containers=tuple(containers), data=data)

    def _rounded(self, values: np.ndarray) -> np.ndarray:
        limit = float(ml_dtypes.finfo(self.low.numpy).max)
        values = np.asarray(values)
        clipped = np.where(np.isfinite(values), np.clip(values, -limit, limit), values)
        return np.asarray(clipped.astype(self.low.numpy))


def finite(value: Attr, dtype: DType) -> Attr:
    """A number that `dtype` would round to infinity as its largest one: masks stay finite."""
    if dtype is DType.F32:
        return value
    if isinstance(value, tuple):
        return tuple(finite(one, dtype) for one in value)
    limit = float(ml_dtypes.finfo(dtype.numpy).max)
    if not isinstance(value, float) or np.isinf(value) or np.isnan(value):
        return value
    return min(max(value, -limit), limit)
