"""Pick rows of a table before computing on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dfcompiler.ir import OPERATORS, Op, OpClass, Program
from dfcompiler.ir.draft import Draft
from dfcompiler.ir.rewrite import StateRewriter, rewrite_states
from dfcompiler.pipeline import Decline, Pass


@dataclass(frozen=True)
class HoistGather(Pass):
    """Moves the gather of rows before the element-wise operator that computes the whole table.

    ::

        %0: f32[30522, 384] = dequantize @codes, @scale
        %1: f32[S, 384] = gather %0, @ids {axis = 0}

                ──▶     %0: i8[S, 384] = gather @codes, @ids {axis = 0}
                        %1: f32[S, 1] = gather @scale, @ids {axis = 0}
                        %2: f32[S, 384] = dequantize %0, %1

    An operand that is the same for all rows (extent 1, or missing, along the first axis) is not
    gathered.

    Skips gathers along other axes, tables that something else reads whole, operators that mix
    the elements of a row (rotary), and operands with different ranks below the first axis.
    """

    name: ClassVar[str] = "hoist-gather"
    claims: ClassVar[tuple[str, ...]] = ("weight_bytes ==",)

    def run(self, program: Program, decline: Decline) -> Program:
        def rule(state: StateRewriter) -> None:
            draft = Draft(state)
            for op in state.state.ops:
                if op.kind != "gather" or op.inputs[0].startswith("@"):
                    continue
                reason = _rewrite(draft, op)
                if reason:
                    decline(op, reason)

        return rewrite_states(program, rule)


def _rewrite(draft: Draft, gather: Op) -> str:
    """Moves one gather; the reason if it stays."""
    state, index = draft.state, gather.inputs[1]
    table = state.producer(gather.inputs[0])
    if table is None or OPERATORS[table.kind].op_class is not OpClass.ELEMENTWISE or table.region:
        return "the table is not the result of an element-wise operator"
    if gather.attr("axis") != 0:
        return "it does not pick rows"
    if state.only_user(table.result) is not gather:
        return "the whole table is read elsewhere"
    if table.kind == "rotary":
        return "the operator mixes the elements of a row"
    picked = []
    for name in table.inputs:
        operand = state.type_of(name)
        if operand.rank == table.type.rank and operand.shape[0] == table.type.shape[0]:
            picked.append(draft.op("gather", [name, index], {"axis": 0}, source=gather.source))
        elif operand.rank < table.type.rank:
            picked.append(name)
        else:
            picked.append(draft.reshape(name, operand.shape[1:]))
    draft.op(table.kind, picked, table.attrs, type=gather.type, source=table.source)
    return "" if draft.commit(gather) else "it reads a container that the program writes"
