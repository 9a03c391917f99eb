"""Weights next to each other in one container."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dfcompiler.ir import Program
from dfcompiler.ir.stacked import side_by_side


@dataclass
class ConcatenatedWeights:
    """Weights side by side along the last axis, each combination stored once.

    Nothing is copied before the weights are written.

    Attributes:
        program: whose weights.
        data: the new containers' values.
    """

    program: Program
    data: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._taken = {container.name for container in self.program.containers}
        self._names: dict[tuple[str, ...], str] = {}

    def of(self, names: tuple[str, ...]) -> str:
        """The container that holds the weights called `names`."""
        if names not in self._names:
            plain = [name.removeprefix("@") for name in names]
            name = base = f"{plain[0]}.merged"
            number = 1
            while name in self._taken:
                number += 1
                name = f"{base}.{number}"
            self._taken.add(name)
            self.data[name] = side_by_side([self.program.data[n] for n in plain])
            self._names[names] = f"@{name}"
        return self._names[names]
