"""Recover rotary position embeddings from slices, products and sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from dfcompiler.analysis.pairs import HalfTables, joined_halves, part
from dfcompiler.ir import Op, Program
from dfcompiler.ir.draft import Draft
from dfcompiler.ir.match import MismatchError
from dfcompiler.ir.rewrite import StateRewriter, rewrite_states, with_weights
from dfcompiler.pipeline import Decline, Pass


@dataclass(frozen=True)
class RecoverRotary(Pass):
    """Recovers the rotation of pairs of elements of the last axis.

    ::

        %first  = slice @x [.., 0:D/2]
        %second = slice @x [.., D/2:D]
        %minus  = neg %second
        %turned = concat %minus, %first          ──▶      %y = rotary @x, %c, %s
        %a      = mul @x, %cos                             (cos = concat %c, %c; sin alike)
        %b      = mul %turned, %sin
        %y      = add %a, %b

        concat (x₁·c − x₂·s), (x₂·c + x₁·s)      ──▶      rotary x, c, s

    Pairs are halves, or neighbours (``interleaved``) when slices have step 2 and the result is
    stacked. Tables twice as wide as the pairs are rebuilt at half the width, back to where they
    were doubled; a stored table is cut after comparing its values. A rotation of the first r
    elements alone stays slice, rotary, concat.

    Skips tables whose halves are not provably equal, and results paired otherwise than arguments.
    """

    name: ClassVar[str] = "recover-rotary"
    claims: ClassVar[tuple[str, ...]] = ("flops <=", "moved_bytes <=")

    def run(self, program: Program, decline: Decline) -> Program:
        tables = HalfTables(program)

        def rule(state: StateRewriter) -> None:
            draft = Draft(state)
            for op in state.state.ops:
                try:
                    match op.kind:
                        case "add":
                            _rewrite_turned(draft, op, tables)
                        case "concat" | "reshape":
                            _rewrite_split(draft, op)
                except MismatchError as mismatch:
                    decline(op, str(mismatch))

        rewritten = rewrite_states(program, rule)
        return rewritten if rewritten is program else with_weights(rewritten, tables.new_weights)


def _commit(draft: Draft, last: Op, x: str, cos: str, sin: str, interleaved: bool) -> None:
    if not draft.state.type_of(x).same(last.type):
        raise MismatchError("the tables broadcast the rotated value to another shape")
    attrs = {"interleaved": True} if interleaved else {}
    draft.op("rotary", [x, cos, sin], attrs, source=last.source)
    if not draft.commit(last):
        raise MismatchError("it reads a container that the program writes")


def _rewrite_turned(draft: Draft, last: Op, tables: HalfTables) -> None:
    """``x · cos + turned(x) · sin``."""
    state = draft.state
    for kept, turned in _orders(last.inputs):
        for rotated, sin in _products(state, turned):
            found = _turned(state, rotated)
            if found is None:
                continue
            x, interleaved = found
            for value, cos in _products(state, kept):
                if value != x:
                    continue
                half_cos = tables.half(draft, cos, interleaved)
                half_sin = tables.half(draft, sin, interleaved)
                _commit(draft, last, x, half_cos, half_sin, interleaved)
                return
            raise MismatchError("the turned value is not added to the value itself times cos")


def _turned(state: StateRewriter, name: str) -> tuple[str, bool] | None:
    """``(x, interleaved)`` when `name` is the pairs of x as (−second, first)."""
    joined = joined_halves(state, state.producer(name))
    if joined is None:
        return None
    op = state.producer(joined.first)
    negated = op is not None and op.kind == "mul" and -1 in map(state.scalar, op.inputs)
    if op is None or not (op.kind == "neg" or negated):
        return None
    second = op.inputs[1] if negated and state.scalar(op.inputs[0]) == -1 else op.inputs[0]
    return _pair(state, joined.second, second, joined.interleaved)


def _rewrite_split(draft: Draft, last: Op) -> None:
    """The pairs ``(x₁·cos − x₂·sin, x₂·cos + x₁·sin)`` joined again."""
    state = draft.state
    joined = joined_halves(state, last)
    if joined is None:
        return
    difference, total = state.producer(joined.first), state.producer(joined.second)
    if difference is None or total is None or (difference.kind, total.kind) != ("sub", "add"):
        return
    for x1, cos in _products(state, difference.inputs[0]):
        for x2, sin in _products(state, difference.inputs[1]):
            if not any(
                (x2, cos) in _products(state, a) and (x1, sin) in _products(state, b)
                for a, b in _orders(total.inputs)
            ):
                continue
            found = _pair(state, x1, x2, joined.interleaved)
            if found is not None:
                _commit(draft, last, found[0], cos, sin, joined.interleaved)
                return


def _pair(
    state: StateRewriter, first: str, second: str, interleaved: bool
) -> tuple[str, bool] | None:
    """The value whose pairs are `first` and `second`, joined in the same way."""
    one, other = part(state, first), part(state, second)
    if one is None or other is None or one.value != other.value:
        return None
    if (one.index, other.index) != (0, 1) or not state.is_stable(one.value):
        return None
    if not one.interleaved == other.interleaved == interleaved:
        raise MismatchError("the result pairs halves and the argument neighbours, or the reverse")
    return one.value, interleaved


def _orders(pair: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    yield pair[0], pair[1]
    yield pair[1], pair[0]


def _products(state: StateRewriter, name: str) -> Iterator[tuple[str, str]]:
    op = state.producer(name)
    if op is not None and op.kind == "mul":
        yield from _orders(op.inputs)
