"""Weight matrices of products, and their copies in bfloat16."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dfcompiler.ir import Container, DType, Program, Role

LOW = DType.BF16


class RoundedWeights:
    """Which weights can be right-hand sides, and their copies in bfloat16."""

    def __init__(self, program: Program) -> None:
        self.program, self.table = program, program.table()
        self.copies: dict[str, str] = {}

    def fits(self, name: str) -> bool:
        """Whether `name` is a matrix of f32 weights."""
        container = self.table.get(name[1:]) if name.startswith("@") else None
        return (
            container is not None
            and container.role is Role.WEIGHT
            and container.type.rank == 2
            and container.type.dtype is DType.F32
        )

    def copy(self, name: str) -> str:
        """The name of a weight's copy in bfloat16."""
        if name not in self.copies:
            number, candidate = 1, f"{name[1:]}.bf16"
            while candidate in self.table:
                number += 1
                candidate = f"{name[1:]}.bf16.{number}"
            self.copies[name] = f"@{candidate}"
        return self.copies[name]

    def added_to(self, program: Program) -> Program:
        """The program with each copy behind the weight that it was made from."""
        containers: list[Container] = []
        data = dict(program.data)
        for container in program.containers:
            containers.append(container)
            copy = self.copies.get(f"@{container.name}")
            if copy is None:
                continue
            containers.append(Container(Role.WEIGHT, copy[1:], container.type.with_dtype(LOW)))
            if container.name in data:
                data[copy[1:]] = np.asarray(data[container.name]).astype(LOW.numpy)
        return replace(program, containers=tuple(containers), data=data)
