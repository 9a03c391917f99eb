"""Keep the variable of a loop in memory, so that a GPU can run the loop without the host."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from dfcompiler.analysis.captured_loops import mentioning, why_host_decides
from dfcompiler.ir import Block, Container, DType, Loop, Op, Program, Role, State, TensorType
from dfcompiler.ir.dims import Dim, as_dim, free_symbols, symbol
from dfcompiler.ir.program import ops_in
from dfcompiler.ir.rewrite import Builder
from dfcompiler.pipeline import Decline, Pass
from passes.rules.names import unused

_NUMBER = TensorType(DType.I64)


@dataclass(frozen=True)
class CountOnDevice(Pass):
    """Gives a loop's variable to its operators as a container that the loop itself counts up.

    ::

                                               temp @t: i64[]
                                               state steps.count { @t = 0 }
        loop steps for t in 1..N {             loop steps for t in 1..N {
          state step {                           state step {
            %0: i64[] = dim {value = t}   ──▶      @t = add @t, 1
            … %0 …                                 … @t …
          }                                      }
        }                                      }

    Then all iterations enqueue the same kernels with the same arguments, and the lowering makes one
    graph of them (`kernels/cuda/loop.h`). The count takes the place of the kernel that wrote `%0`.

    Skips loops inside of others, which the graph of the outer one unrolls, loops with branches or
    flags inside, and those whose variable is more than a number to their operators: an extent, an
    offset, a bound. The host runs these, and enqueues each iteration.
    """

    name: ClassVar[str] = "count-on-device"
    runs_on: ClassVar[tuple[str, ...]] = ("cuda",)

    def run(self, program: Program, decline: Decline) -> Program:
        taken = {c.name for c in program.containers}
        containers = list(program.containers)
        body: list[Block] = []
        for block in program.body:
            used = isinstance(block, Loop) and next(mentioning(block.body, block.variable), None)
            if not isinstance(block, Loop) or not _may_count(block, decline) or not used:
                body.append(block)
                continue
            counter = Container(Role.TEMP, unused(block.variable, taken), _NUMBER)
            taken.add(counter.name)
            containers.append(counter)
            body += _counting(block, f"@{counter.name}")
        if len(containers) == len(program.containers):
            return program
        return replace(program, containers=tuple(containers), body=tuple(body))


def _may_count(loop: Loop, decline: Decline) -> bool:
    """Whether the operators need the variable as a number alone, and the host nothing."""
    every = list(ops_in(loop.body))
    reason = why_host_decides(loop)
    if reason and every:
        decline(every[0], f"in the loop {loop.name}: {reason}")
    bad = [op for op in mentioning(loop.body, loop.variable) if not _is_number(op, loop.variable)]
    for op in bad:
        decline(op, f"it needs {loop.variable}, which the loop {loop.name} counts, on the host")
    return not reason and not bad


def _is_number(op: Op, variable: str) -> bool:
    """Whether an operator gives the variable, or the variable and a number."""
    return op.kind == "dim" and variable not in free_symbols(_distance(op, variable))


def _distance(op: Op, variable: str) -> Dim:
    return as_dim(op.attr("value") - symbol(variable))


def _counting(loop: Loop, counter: str) -> tuple[State, Loop]:
    """A state that sets the counter in front of the first iteration, and the loop with it."""
    builder = Builder()
    builder.op("dim", (), {"value": as_dim(loop.start - 1)}, type=_NUMBER, result=counter)
    step = Builder({counter: _NUMBER}, prefix="%count")
    step.op("add", [counter, step.constant(1, _NUMBER)], result=counter)
    first, *rest = _with_counter(loop.body, loop.variable, counter)
    if isinstance(first, State):
        body = (replace(first, ops=(*step.ops, *first.ops)), *rest)
    else:
        body = (State(f"{loop.name}.next", tuple(step.ops)), first, *rest)
    return State(f"{loop.name}.count", tuple(builder.ops)), replace(loop, body=body)


def _with_counter(blocks: tuple[Block, ...], variable: str, counter: str) -> list[Block]:
    found: list[Block] = []
    for block in blocks:
        match block:
            case State():
                found.append(_state_with_counter(block, variable, counter))
            case Loop(body=body):
                inner = tuple(_with_counter(body, variable, counter))
                found.append(replace(block, body=inner))
            case _:
                found.append(block)
    return found


def _state_with_counter(state: State, variable: str, counter: str) -> State:
    ops: list[Op] = []
    names: dict[str, str] = {}
    for op in state.ops:
        if op.kind != "dim" or variable not in free_symbols(op.attr("value")):
            ops.append(op.renamed(names))
            continue
        distance = _distance(op, variable)
        if distance == 0 and op.result.startswith("%"):
            names[op.result] = counter
            continue
        far = Op(f"{op.result.replace('@', '%')}.far", _NUMBER, "dim").with_attrs(value=distance)
        added = Op(op.result, op.type, "add", (counter, far.result), source=op.source)
        ops += (far, added)
    return replace(state, ops=tuple(ops))
