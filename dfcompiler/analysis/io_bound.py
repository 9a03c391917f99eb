"""Lower bounds on the bytes that any schedule of a computation moves."""

from __future__ import annotations

from dfcompiler.analysis.concrete import Concrete
from dfcompiler.ir.program import Op, Program
from dfcompiler.ir.types import TensorType


def program_bound(program: Program, concrete: Concrete) -> int | None:
    return None


def op_bound(op: Op, types: tuple[TensorType, ...], fast_bytes: int) -> tuple[int | None, str]:
    return None, "unknown"
