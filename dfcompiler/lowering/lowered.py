"""What the lowering hands to the code generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import dace

from dfcompiler.ir.program import Op, Program
from dfcompiler.ir.types import TensorType
from dfcompiler.lowering.symbolic import program_name

ArgumentRole: TypeAlias = Literal["input", "output", "persist", "weight", "value", "status"]


@dataclass(frozen=True)
class Argument:
    """One array of the SDFG: a pointer that the generated function takes.

    Attributes:
        name: the SDFG's array and the C identifier.
        role: whose memory it is; ``value`` memory lies in the arena.
        container: the container of the program, without sigil; empty for a value.
        type: the elements that the generated code reads through it.
        slot: for a ``value``: the temp container of the program in which it lies.
        memory: for a view: the type of what its pointer points to, else None.
    """

    name: str
    role: ArgumentRole
    container: str
    type: TensorType
    slot: str = ""
    memory: TensorType | None = None


@dataclass(frozen=True)
class KernelRecord:
    """How an operator was implemented, and why so.

    Attributes:
        op: the operator.
        implementation: ``dace-map``, ``dace-map + row function``, ``alias``, ``native gemm``, …
        reason: why this one was chosen.
        extension: what its code needs besides the target's instruction set: ``amx``, ``bf16``.
    """

    op: Op
    implementation: str
    reason: str = ""
    extension: str = ""

    @property
    def result(self) -> str:
        """The name of what the operator computes."""
        return self.op.result

    @property
    def source(self) -> str:
        """The name of the model's node that the operator comes from."""
        return self.op.source


@dataclass(frozen=True)
class Lowered:
    """An SDFG and what is needed to call the function that it becomes.

    Attributes:
        program: the program that was lowered. It has one temp container more than the one handed
            in for each operator that would overwrite what it still reads.
        sdfg: the graph; every array is an argument, so it allocates nothing.
        arguments: in the order of the generated function; the SDFG's symbols follow them, sorted.
        kernels: one record for each operator.
        sites: ``sites[status[0] - 1]`` with ``{value}`` = ``status[1]`` says which index was bad.
        work: cost of a call in element-wise operations, over the SDFG's symbols; each loop once.
        measured: the operators whose seconds the last output holds, in order; empty: not measured.
        instances: for a GPU: by family of kernels, the templates that its unit instantiates.
    """

    program: Program
    sdfg: dace.SDFG
    arguments: tuple[Argument, ...]
    kernels: tuple[KernelRecord, ...]
    sites: tuple[str, ...]
    work: Any
    measured: tuple[Op, ...] = ()
    instances: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The program's symbols that the generated function takes after the arrays, in order."""
        arrays = self.sdfg.arrays
        return tuple(program_name(name) for name in self.sdfg.arglist() if name not in arrays)
