"""Stamps that tell how long each operator of a call takes: measuring artifacts only.

The array has one element for each operator and one more, the time of the last stamp. All threads
have met when an operator's map is over; the first of them then adds what has passed since the last
stamp. Operators in loops add up over the iterations.
"""

from __future__ import annotations

from dataclasses import replace

from dfcompiler.ir.program import Container, Op, Program, Role
from dfcompiler.ir.types import DType, TensorType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.maps import add_tasklet, whole

PROFILE = "seconds of operators"
"""The output that a measuring artifact has besides its own."""


def with_profile(program: Program) -> Program:
    """The program with one output more, in which stamps leave the seconds of each operator."""
    stamps = len(measured_ops(program))
    room = Container(Role.OUTPUT, PROFILE, TensorType(DType.F64, (stamps + 1,)))
    return replace(program, containers=(*program.containers, room))


def measured_ops(program: Program) -> tuple[Op, ...]:
    """The operators that get a stamp: all but those that are only views of memory."""
    return tuple(op for op in program.ops() if not op.attr("alias", False))


class Stamps:
    """Puts a stamp behind each operator as it is lowered."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.count = len(measured_ops(context.program))
        self.next = 0

    def begin(self) -> None:
        """Sets everything to zero and starts the clock."""
        clear = f"for (int i = 0; i < {self.count}; ++i) out[i] = 0;"
        self._add("begin", f"{clear} out[{self.count}] = omp_get_wtime();")

    def after(self, op: Op) -> None:
        """Books the time since the last stamp on `op`."""
        if op.attr("alias", False):
            return
        last = f"out[{self.count}]"
        self._add(
            op.kind,
            f"const double now = omp_get_wtime(); out[{self.next}] += now - {last}; {last} = now;",
        )
        self.next += 1

    def _add(self, name: str, code: str) -> None:
        state = self.context.add_state(f"stamp{self.next}_{name}")
        self.context.include("cpu/threads.h")
        out = whole(self.context, "out", self.context.array(f"@{PROFILE}"))
        code = f"#pragma omp master\n{{ {code} }}"
        add_tasklet(self.context, state, "stamp", [], [out], code)
