"""Remove operators and containers that nothing reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from dfcompiler.ir import Program, Role, State
from dfcompiler.ir.rewrite import drop_unused_weights, live_ops, map_states, read_containers
from dfcompiler.pipeline import Decline, Pass


@dataclass(frozen=True)
class EliminateDeadCode(Pass):
    """Removes what no output and no persistent container depends on.

    ::

        %1 = exp @x          (nobody reads %1)
        @t = neg @x          (nobody reads temp @t)       @y = abs @x
        @y = abs @x                                 ──▶

    Unused weights and temporaries go too. Inputs stay: they are the caller's interface.
    """

    name: ClassVar[str] = "eliminate-dead-code"
    claims: ClassVar[tuple[str, ...]] = (
        "ops <=",
        "flops <=",
        "moved_bytes <=",
        "io_bound_bytes ==",
        "weight_bytes <=",
        "value_bytes <=",
    )

    def run(self, program: Program, decline: Decline) -> Program:
        while (smaller := _without_dead_values(program)) is not program:
            program = smaller
        return drop_unused_weights(program)


def _without_dead_values(program: Program) -> Program:
    """One sweep; a removed writer may leave the containers that it read unread."""
    read = read_containers(program)
    dead = {c.name for c in program.by_role(Role.TEMP) if c.name not in read}

    def swept(state: State) -> State:
        kept = [op for op in state.ops if op.result[1:] not in dead or op.result[0] == "%"]
        live = live_ops(kept)
        return state if len(live) == len(state.ops) else replace(state, ops=live)

    smaller = map_states(program, swept)
    if not dead:
        return smaller
    containers = tuple(c for c in program.containers if c.name not in dead)
    return replace(smaller, containers=containers)
