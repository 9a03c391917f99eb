"""Stamps that tell how long each operator of a call takes: measuring artifacts only.

The array has one element for each operator and one more, the time of the last stamp. All threads
have met when an operator's map is over; the first of them then adds what has passed since the last
stamp. Operators in loops add up over the iterations. On a GPU stamps are events (`cuda.profile`).
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
    """Puts a stamp behind each operator as it is lowered.

    Attributes:
        header: what the code needs.
        count: how many operators get one.
        next: the number of the next one.
    """

    header = "cpu/threads.h"

    def __init__(self, context: Context) -> None:
        self.context = context
        self.count = len(measured_ops(context.program))
        self.next = 0

    def begin(self) -> None:
        """Sets everything to zero and starts the clock."""
        self._add("begin", self.started())

    def after(self, op: Op) -> None:
        """Books the time since the last stamp on `op`."""
        if op.attr("alias", False):
            return
        self._add(op.kind, self.booked())
        self.next += 1

    def started(self) -> str:
        """C++ that starts the clock."""
        clear = f"for (int i = 0; i < {self.count}; ++i) out[i] = 0;"
        return f"#pragma omp master\n{{ {clear} out[{self.count}] = omp_get_wtime(); }}"

    def booked(self) -> str:
        """C++ that books the time since the last stamp on the next operator."""
        last = f"out[{self.count}]"
        book = f"out[{self.next}] += now - {last}; {last} = now;"
        return f"#pragma omp master\n{{ const double now = omp_get_wtime(); {book} }}"

    def _add(self, name: str, code: str) -> None:
        state = self.context.add_state(f"stamp{self.next}_{name}")
        self.context.include(self.header)
        out = whole(self.context, "out", self.context.array(f"@{PROFILE}"))
        add_tasklet(self.context, state, "stamp", [], [out], code)
